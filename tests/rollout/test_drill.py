"""Laws of rehearsed rollbacks, on a real Envoy and a ledger on SQLite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import Entry, Ledger
from penstock.release import EVERYWHERE, Market, Measure, Rollout
from penstock.rollout import branches, drill, kill, switch, unfinished
from penstock.rollout.plane import Plane
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.table import TrafficTable
from penstock.stage import Refused
from tests.packages import wait_for
from tests.people import person
from tests.rollout.test_plane import STANDIN, filled, table

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
POLICY = Rollout(
    canary_percents=(10, 100),
    soak=timedelta(days=1),
    deadline=timedelta(days=7),
    primary=Measure(name="clicks", source="label", margin=0.1, deviation=0.4),
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One plane of stand-ins with both slots ready."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    made = filled(tmp_path_factory.mktemp("drill"))
    yield made
    made.down()
    patch.undo()


@pytest.fixture(autouse=True)
def golden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in's package has no golden requests; a real server is asked them elsewhere."""
    monkeypatch.setattr(Plane, "verify_slot", lambda _plane, _slot: "")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


def rehearse(plane: Plane, ledger: Ledger, **more: Any) -> drill.Drill:
    """Rehearse with the whole way written down."""
    return drill.run(plane, ledger, workload="digits", actor=person(), clock=lambda: NOW, **more)


def drills(ledger: Ledger) -> list[Entry]:
    """Return the entries of rehearsals."""
    return [e for e in ledger.entries("digits") if e.kind in (drill.DRILL, drill.BEGUN)]


@pytest.mark.parametrize("buckets", [0, 16, 64])
def test_users_go_back_and_return_and_nobody_fails(plane: Plane, ledger: Ledger, buckets: int):
    """A rehearsal passes, leaves the table's content as it was, and tells both ways' times."""
    before = table(plane, buckets)

    done = rehearse(plane, ledger)

    assert (done.passed, done.why, done.failures) == (True, "", 0)
    assert done.requests > 0
    assert plane.observe() == replace(before, sequence=before.sequence + 2)
    begun, said = drills(ledger)
    away = TrafficTable.from_dict(begun.body["away"])
    assert away.slot_for(0) == away.slot_for(63) == done.standby == ("a" if buckets else "b")
    assert said.body["passed"]
    assert set(said.body["milliseconds"]) == {"back", "return"}
    assert drill.due(ledger.entries("digits"), POLICY, NOW) == ""


def test_a_standby_that_answers_nobody_fails_it(plane: Plane, ledger: Ledger):
    """Users are home again, the ledger says what failed, and forward steps wait for a good one."""
    table(plane, 0)
    plane.set_slot("b", package=plane.home, digest="sha256:1", version="failing")
    plane.wait_ready("b", version="failing", timeout_s=20)
    os.kill(pid := plane.status()["slots"]["b"]["pid"], signal.SIGSTOP)

    done = rehearse(plane, ledger)

    os.kill(pid, signal.SIGCONT)
    assert not done.passed
    assert plane.observe().champion == "a"
    assert "failed" in drill.due(ledger.entries("digits"), POLICY, NOW)
    plane.set_slot("b", package=plane.home, digest="sha256:1", version="2")
    plane.wait_ready("b", version="2", timeout_s=20)
    wait_for(lambda: plane.probe("b", "/v2/models/digits/ready")[0] == 200, 5)
    assert rehearse(plane, ledger).passed
    assert drill.due(ledger.entries("digits"), POLICY, NOW) == ""


def test_wrong_golden_answers_fail_it_and_turn_nobody(
    plane: Plane, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """A standby that answers golden requests otherwise gets no user, not even for a second."""
    held = table(plane, 0)
    monkeypatch.setattr(Plane, "verify_slot", lambda _plane, slot: f"slot {slot} is 0.3 apart")

    done = rehearse(plane, ledger)

    assert (done.passed, done.why) == (False, "slot b is 0.3 apart")
    assert plane.observe() == held
    assert [e.kind for e in drills(ledger)] == [drill.DRILL]


def test_there_must_be_somebody_to_return_to(plane: Plane, ledger: Ledger):
    """Without a second version, or with the kill switch thrown, nothing is rehearsed or entered."""
    held = table(plane, 0)
    plane.stop_slot("b")
    with pytest.raises(Refused, match="nobody stands by"):
        rehearse(plane, ledger)
    plane.set_slot("b", package=plane.home, digest="sha256:1", version="2")
    plane.wait_ready("b", version="2", timeout_s=20)
    switch.turn(plane.home / "serving", "to-a")
    with pytest.raises(Refused, match="kill switch"):
        rehearse(plane, ledger)
    switch.turn(plane.home / "serving", switch.OFF)

    assert drills(ledger) == []
    assert plane.observe() == held
    assert kill.killed(plane.home) is None


def test_somebody_who_writes_meanwhile_is_not_overwritten(plane: Plane, ledger: Ledger):
    """A newer table stays in force, and nothing is said of the way back."""
    table(plane, 0)
    others: list[TrafficTable] = []

    def write(_: float) -> None:
        held = plane.written()
        others.append(replace(held, sequence=held.sequence + 10))
        plane.apply(others[-1])

    with pytest.raises(Refused, match="somebody else"):
        rehearse(plane, ledger, sleep=write)

    assert plane.written() == others[-1]
    assert drill.DRILL not in {e.kind for e in drills(ledger)}


DIES = """
import os, sys
from pathlib import Path
from dataclasses import replace
from penstock.rollout import unfinished
from penstock.rollout.plane import Plane
plane = Plane.attach(Path(sys.argv[1]))
held = plane.written()
away = replace(held, sequence=held.sequence + 1, champion="b")
with unfinished.rehearsing(plane.home / "serving", replace(held, sequence=held.sequence + 2)):
    plane.apply(away)
    plane.wait_applied(away, timeout_s=5)
    os._exit(9)
"""


def test_a_rehearsal_that_dies_leaves_nobody_on_the_standby(plane: Plane):
    """Killed while users are away, it is finished by the supervisor."""
    before = table(plane, 0)

    died = subprocess.run([sys.executable, "-c", DIES, str(plane.home)], check=False)

    assert died.returncode == 9
    wait_for(lambda: plane.observe() == replace(before, sequence=before.sequence + 2), 5)
    wait_for(lambda: not (plane.home / "serving" / unfinished.NOTE).exists(), 5)


def test_servers_of_another_workload_are_not_turned(plane: Plane, ledger: Ledger):
    """What is rehearsed for one workload says nothing of another."""
    held = table(plane, 0)
    with pytest.raises(Refused, match="serve digits, not credit"):
        drill.run(plane, ledger, workload="credit", actor=person(), clock=lambda: NOW)

    assert plane.observe() == held
    assert ledger.entries("credit") == []


def test_a_market_is_declared_and_its_standby_has_answered_there(
    plane: Plane, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """Users are shown no version that their market never had, not even for half a second."""
    table(plane, 0)
    markets = replace(POLICY, markets=(Market(name="us", canary_percents=(10, 100)),))
    with pytest.raises(Refused, match="no market 'eu'; there are us"):
        drill.refuse(plane, [], markets, "eu")
    drill.refuse(plane, [], markets, EVERYWHERE)
    orders = {"now": [1]}
    monkeypatch.setattr(branches, "order_in", lambda *_: orders["now"])
    with pytest.raises(Refused, match="serves version 2, which never answered there"):
        drill.refuse(plane, ledger.entries("digits"), markets, "us")
    orders["now"] = [1, 2]
    drill.refuse(plane, ledger.entries("digits"), markets, "us")


def test_each_declared_market_is_rehearsed_and_asked_for_by_name():
    """One market's good rehearsal says nothing of another's; the text can be typed."""
    markets = tuple(Market(name=n, canary_percents=(10, 100)) for n in ("us", "eu"))
    policy = replace(POLICY, markets=markets)
    us = entry(days_ago=1, passed=True, market="us")
    assert "of eu was ever" in drill.overdue([us], policy, NOW)
    assert drill.overdue([us], policy, NOW, "us") == ""
    failed = drill.due([us, entry(days_ago=0, passed=False, market="eu")], policy, NOW)
    assert failed.endswith("rehearse again: penstock release drill digits --market eu")
    gone = drill.due([us, entry(days_ago=0, passed=False, market="uk")], policy, NOW)
    assert gone == "", "nobody can rehearse it any more"


def entry(*, days_ago: int, passed: bool, market: str = "all") -> Entry:
    """Return an entry of a rehearsal."""
    body = {"market": market, "passed": passed, "why": "" if passed else "slow"}
    at = (NOW - timedelta(days=days_ago)).isoformat()
    return Entry(
        sequence=1, at=at, actor="x", key_id="", workload="digits", version=None, kind=drill.DRILL,
        subject=None, origin=None, target=None, body=body, previous="", hash="", signature="",
    )  # fmt: skip


def test_only_a_failed_rehearsal_holds_a_release_up():
    """One that is overdue, or was never held, is told and stops nobody."""
    old = [entry(days_ago=40, passed=True)]
    assert drill.due([], POLICY, NOW) == drill.due(old, POLICY, NOW) == ""
    assert "40 days old" in drill.overdue(old, POLICY, NOW)
    assert "ever" in drill.overdue([], POLICY, NOW)
    assert drill.overdue([entry(days_ago=31, passed=True)], POLICY, NOW) == ""
    failed = [entry(days_ago=2, passed=True), entry(days_ago=1, passed=False)]
    assert "slow" in drill.due(failed, POLICY, NOW)
    assert drill.due([*failed, entry(days_ago=0, passed=True)], POLICY, NOW) == ""
    assert "slow" in drill.due([*failed, entry(days_ago=0, passed=True, market="eu")], POLICY, NOW)
