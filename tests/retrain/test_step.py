"""Laws of the retrain stage: whatever asked is in the ledger once, with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import registered, retrain
from penstock.bundle import BundleError, read
from penstock.ledger import Entry, Ledger
from penstock.ledger.actors import Actor
from penstock.release import Trigger
from penstock.retrain import step
from penstock.retrain.history import DECIDED, History, history_of
from penstock.retrain.signals import Signals
from penstock.stage import Refused
from penstock.workload import load
from tests.ledger.steps import NOW as REGISTERED_AT
from tests.ledger.steps import promote, register
from tests.people import person
from tests.retrain.looks import drifted, fell, look, signals

NOW = REGISTERED_AT + timedelta(days=3)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A ledger in which version 1 serves since three days, named by the environment."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("PENSTOCK_LEDGER", url)
    key = tmp_path / "actor.pem"
    actor = Actor.create(key, name="watcher")
    monkeypatch.setenv("PENSTOCK_KEY", str(key))
    held = Ledger(url)
    promote(held, 1)
    held.enrol(
        name="watcher",
        public_key=actor.public_key,
        roles=["pipeline"],
        actor=person(),
        now=REGISTERED_AT,
    )
    yield held
    held.close()


def ran(tmp_path: Path, found: Signals, *, name: str = "look", at: datetime = NOW) -> str:
    """Write a look, decide on it, and return what was decided."""
    where = tmp_path / name
    if not where.exists():
        look(where, found)
    out = tmp_path / f"out-{name}-{at:%H%M}"
    return retrain.run(workload="digits", monitor=where, out=out, now=at)


def entered(ledger: Ledger) -> list[Entry]:
    return [entry for entry in ledger.entries("digits") if entry.kind == DECIDED]


@pytest.mark.parametrize(
    ("found", "act", "trigger"),
    [
        (drifted(), "train", "drift"),
        (fell(), "train", "performance"),
        (signals(errors=("log: gone",)), "diagnose", None),
    ],
)
def test_what_asked_is_entered_and_signed(
    ledger: Ledger, tmp_path: Path, found: Signals, act: str, trigger: str | None
):
    assert ran(tmp_path, found) == act

    (entry,) = entered(ledger)
    assert (entry.version, entry.actor) == (1, "watcher")
    assert (entry.body["act"], entry.body["trigger"]) == (act, trigger)
    assert entry.body["reason"]
    ledger.verify()


def test_a_training_that_was_refused_is_entered_with_its_reason(ledger: Ledger, tmp_path: Path):
    """Monday's drift, Tuesday's fall: the second one waits, and the ledger says for what."""
    assert ran(tmp_path, drifted(), name="monday") == "train"
    assert ran(tmp_path, fell(), name="tuesday", at=NOW + timedelta(hours=20)) == "wait"

    refused = entered(ledger)[-1].body
    assert refused["suppressed"]
    assert refused["trigger"] == "performance"
    assert "20 h ago" in refused["reason"]


def test_a_look_without_anything_to_say_is_not_entered(ledger: Ledger, tmp_path: Path):
    """One look an hour would fill the ledger with nothing."""
    assert ran(tmp_path, signals()) == "wait"
    assert entered(ledger) == []


def test_a_look_is_decided_on_once(ledger: Ledger, tmp_path: Path):
    """A step that is tried again, hours later too, says what it said and enters nothing."""
    first = ran(tmp_path, drifted())
    again = ran(tmp_path, drifted(), at=NOW + timedelta(hours=30))

    assert (first, again, len(entered(ledger))) == ("train", "train", 1)


def test_whoever_was_faster_is_heard(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two watchers of one drift begin one training: the slower one decides anew, and waits."""
    real = step.history_of
    begun: list[int] = []

    def slow(entries: list[Entry]) -> History:
        held = real(entries)
        if not begun:
            begun.append(1)
            monkeypatch.setattr(step, "history_of", real)
            assert ran(tmp_path, drifted(), name="faster") == "train"
        return held

    monkeypatch.setattr(step, "history_of", slow)

    assert ran(tmp_path, drifted(), name="slower") == "wait"
    assert [e.body["act"] for e in entered(ledger)] == ["train", "wait"]


def test_a_version_that_somebody_trained_by_hand_counts(ledger: Ledger):
    """The interval is between trainings, whoever began them; the schedule counts versions."""
    before = history_of(ledger.entries("digits"))
    register(ledger, 2)

    assert before == History(trained=REGISTERED_AT, urgent=None, registered=REGISTERED_AT)
    assert history_of(ledger.entries("digits")).registered == REGISTERED_AT


def test_only_urgent_trainings_hold_up_urgent_ones(ledger: Ledger, tmp_path: Path):
    ran(tmp_path, drifted(), name="usual")
    assert history_of(ledger.entries("digits")).urgent is None

    ran(tmp_path, drifted(0.9), name="urgent", at=NOW + timedelta(hours=1))

    found = history_of(ledger.entries("digits"))
    assert found.trained == found.urgent
    assert found.urgent == NOW + timedelta(hours=1)


def test_the_bundle_says_what_is_done_next(ledger: Ledger, tmp_path: Path):
    ran(tmp_path, drifted(), name="a")
    ran(tmp_path, signals(), name="b")
    ran(tmp_path, Signals(), name="c")
    train, wait, diagnose = (tmp_path / f"out-{name}-{NOW:%H%M}" for name in "abc")

    assert [retrain.trigger_of(path) for path in (train, wait)] == ["drift", "manual"]
    retrain.require_no_diagnosis(train)
    retrain.require_no_diagnosis(wait)
    with pytest.raises(Refused, match="look first: nothing is known of the champion"):
        retrain.require_no_diagnosis(diagnose)
    said = read(train, kind="retrain")
    assert said.file("report.md").read_text().startswith("# Train: ")
    assert said.summary.line.startswith("train, asked for by drift: ")


def test_a_look_at_another_workload_is_refused(ledger: Ledger, tmp_path: Path):
    look(tmp_path / "other", drifted(), workload="credit")

    with pytest.raises(BundleError, match="is of 'credit', not of 'digits'"):
        retrain.run(workload="digits", monitor=tmp_path / "other", out=tmp_path / "o", now=NOW)
    assert entered(ledger) == []


def test_without_a_ledger_nothing_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    look(tmp_path / "look", drifted())

    with pytest.raises(ValueError, match="PENSTOCK_LEDGER is not set"):
        retrain.run(workload="digits", monitor=tmp_path / "look", out=tmp_path / "o", now=NOW)


@pytest.mark.parametrize(
    ("body", "trigger"),
    [({}, Trigger.MANUAL), ({"trigger": "drift"}, Trigger.DRIFT)],
)
def test_a_registration_says_why_its_version_was_trained(
    ledger: Ledger, body: dict[str, Any], trigger: Trigger
):
    """What a release takes when nobody says another; before it was kept, a person began it."""
    register(ledger, 2, **body)

    assert registered.trigger(ledger.entries("digits"), 2) is trigger


def test_every_workload_says_when_it_is_trained_again():
    """Streamrec weekly, digits monthly, credit quarterly."""
    every = {name: load(name).watch.every for name in ("streamrec", "digits", "credit")}

    assert {name: span.days for name, span in every.items() if span} == {
        "streamrec": 7, "digits": 30, "credit": 91,
    }  # fmt: skip
