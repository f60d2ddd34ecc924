"""Laws of the verbs of the kill switch, typed as people type them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from penstock.cli import kill as verbs
from penstock.cli.main import app
from penstock.ledger import Actor, Ledger
from penstock.rollout import kill, killroll, killtokens, switch
from penstock.rollout.plane import Plane

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose slots serve versions 1 and 2 without a process; its key has every role."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    monkeypatch.setattr(verbs, "CONFIRMED_S", 0.05)
    serving = tmp_path / "serving"
    switch.prepare(serving)
    slots = {slot: {"version": version} for slot, version in (("a", "1"), ("b", "2"))}
    (serving / "desired.json").write_text(json.dumps({"model": "digits", "slots": slots}))
    return tmp_path


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    """Its ledger, in which the home's key is the first, and so has every role."""
    held = Ledger(f"sqlite:///{home / 'ledger.db'}", head=home / "ledger.head")
    actor = Actor.create(home / "actor.pem", name="ann")
    held.append(workload="digits", version=1, kind="note", body={}, actor=actor, now=NOW)
    yield held
    held.close()


def typed(*words: str) -> Any:
    """Return what a command prints and how it ends."""
    return CliRunner().invoke(app, ["kill", *words], catch_exceptions=False)


def kills(ledger: Ledger) -> list[dict[str, Any]]:
    """Return what the ledger has of throws."""
    return [dict(e.body) for e in ledger.entries("digits") if e.kind == kill.KILL]


@pytest.mark.parametrize(
    ("running", "ends", "said"), [(True, 1, "NOT confirmed"), (False, 0, "no servers run")]
)
def test_what_was_not_seen_in_force_is_said_and_ends_with_1(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, running: bool, ends: int, said: str
):
    """While servers run, a throw that Envoy does not tell of is no success; it is entered."""

    def said_so(_: Path) -> bool:
        return running

    monkeypatch.setattr(Plane, "running", said_so)

    done = typed("--reason", "unfair", "--to", "a")

    assert (done.exit_code, said in done.output) == (ends, True)
    assert [one["verified"] for one in kills(ledger)] == [True]


def test_who_is_new_in_the_ledger_may_throw_it_at_once(home: Path, ledger: Ledger):
    """A roll that was never copied, or does not know somebody yet, is copied before a refusal."""
    assert not (home / "serving" / killroll.ROLL).exists()

    assert typed("--reason", "unfair", "--to", "a").exit_code == 0

    assert kill.killed(home) is not None


def test_to_look_enters_what_was_thrown_by_hand(home: Path, ledger: Ledger):
    """A throw by hand or by token is in the ledger once somebody with a key has looked."""
    switch.turn(home / "serving", "to-a")

    assert typed("show").exit_code == 1

    assert [one["how"] for one in kills(ledger)] == ["file"]


def test_to_look_without_a_key_makes_none(home: Path):
    """Whoever only looks is told that the ledger does not have it, and gets no key by that."""
    switch.turn(home / "serving", "to-a")

    done = typed("show")

    assert done.exit_code == 1
    assert "not in the ledger yet" in done.output
    assert not (home / "actor.pem").exists()


def test_nothing_that_was_noted_steers_the_terminal(home: Path, ledger: Ledger):
    """What a note holds is printed as it is, whoever wrote it."""
    kill_as(home, ledger)
    (path,) = (home / "serving" / "runtime").glob("kill-*.json")
    path.write_text(path.read_text().replace("unfair", "\\u001b[2Jfine"))

    assert "\x1b" not in typed("show").output
    assert "fine" in typed("show").output


def kill_as(home: Path, ledger: Ledger) -> None:
    """Throw the switch as whoever the home's key is."""
    killroll.remember(home, ledger)
    kill.throw(home, Actor.load(home / "actor.pem"), reason="unfair", now=NOW, to="a")


def test_a_token_is_shown_as_a_header_and_taken_away_by_name(home: Path, ledger: Ledger):
    """What is printed goes into a file for curl as it is; --revoke ends it."""
    shown = typed("token", "desk").stdout.splitlines()[0].removeprefix("authorization: ")
    assert killtokens.caller_of(home, shown) == ("desk", "ann")
    with pytest.raises(ValueError, match="already"):
        typed("token", "desk")

    assert typed("token", "desk", "--revoke").exit_code == 0

    assert killtokens.caller_of(home, shown) is None


def test_whom_the_ledger_revokes_the_switch_knows_no_more(home: Path, ledger: Ledger):
    """To revoke or to enrol somebody copies the roll, so that nobody waits for the next start."""
    ben = Actor.create(home / "ben.pem", name="ben")
    words = ["ledger", "enrol", "ben", "--public-key", str(home / "ben.pem.pub")]
    CliRunner().invoke(app, [*words, "--role", "operator"], catch_exceptions=False)
    killroll.check_person(home, ben)

    CliRunner().invoke(app, ["ledger", "revoke", "ben", "--reason", "left"], catch_exceptions=False)

    with pytest.raises(killroll.NotAllowed):
        killroll.check_person(home, ben)


def test_status_tells_of_the_switch_and_whether_it_is_heard(home: Path, ledger: Ledger):
    """Thrown, unentered and unheard are said even while no servers run."""
    typed("token", "desk")
    kill_as(home, ledger)

    said = CliRunner().invoke(app, ["status"], catch_exceptions=False).output

    for words in ("KILL SWITCH", "not in the ledger yet", "NOT HEARD"):
        assert words in said
