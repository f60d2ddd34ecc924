"""Laws of carrying releases on a real plane: opened, taken up again, given up, one per market."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from penstock.ledger import REGISTERED, Ledger, LedgerError, Stage, champion, stage_of
from penstock.release import EVERYWHERE, Market, Rollout, Trigger, WhenBusy
from penstock.rollout import approvals, folding
from penstock.rollout.champions import champions, serve
from penstock.rollout.clock import SteadyClock
from penstock.rollout.conductor import Conductor
from penstock.rollout.fleet import Fleet, free_slot
from penstock.rollout.journal import unheard
from penstock.rollout.lease import FileLease, leases_of
from penstock.rollout.observing import Observer
from penstock.rollout.opened import Placed, opened_of
from penstock.rollout.opening import Opener, Wish, queue
from penstock.rollout.plan import Phase
from penstock.rollout.plane import Plane
from penstock.rollout.state import COMMAND, State
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.stage import Refused
from penstock.verdict import Outcome
from tests.bundles import NOW
from tests.packages import free_port, wait_for
from tests.people import person
from tests.rollout.carried import POLICY, Noted, Now, Reader, Says, judge, well
from tests.rollout.test_plane import STANDIN

ALL_THE_WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
QUICK = replace(
    POLICY,
    soak=timedelta(seconds=0.1),
    deadline=timedelta(seconds=60),
    canary_percents=(10, 50, 100),
)


@pytest.fixture(autouse=True)
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots run the stand-in."""
    monkeypatch.setenv(COMMAND_VARIABLE, STANDIN)


def package(path: Path, *, over: Bundle | None = None) -> Bundle:
    """Write a package that was compared with another."""
    compared: dict[str, dict[str, str]] = {"artifacts": {}, "digests": {}}
    if over is not None:
        named = {"artifacts": over.fingerprint, "digests": over.digest}
        compared = {name: {"champion": value} for name, value in named.items()}

    def fill(folder: Path) -> Summary:
        write_json(folder / "lineage.json", {**compared, "of": path.name})
        return Summary("pass", "made for a test")

    return write(path, Recipe(kind="package", workload="digits", settings={}), make=fill, now=NOW)


@dataclass
class House:
    """A home in which version 1 serves, and 2 and 3 wait."""

    path: Path
    policy: Rollout = QUICK
    says: Says = well

    def furnish(self, *, before: int | None = None) -> None:
        """Register the versions; perhaps one that served before the first."""
        ledger = self.ledger()
        if before is not None:
            self._register(ledger, before, package(self.path / f"p{before}"), *ALL_THE_WAY)
        first = package(self.path / "p1")
        self._register(ledger, 1, first, *ALL_THE_WAY)
        for version in (2, 3):
            self._register(
                ledger, version, package(self.path / f"p{version}", over=first), Stage.STAGING
            )
        ledger.close()

    def _register(self, ledger: Ledger, version: int, made: Bundle, *stages: Stage) -> None:
        body = {"package": str(made.path), "digest": made.digest, "fingerprint": made.fingerprint}
        named: dict[str, Any] = {"workload": "digits", "version": version, "actor": person()}
        ledger.append(**named, kind=REGISTERED, body=body, now=NOW)
        for stage in stages:
            ledger.move(**named, to=stage, reason="t", now=NOW)

    def ledger(self) -> Ledger:
        """Open the ledger anew."""
        return Ledger(f"sqlite:///{self.path / 'ledger.db'}")

    def up(self) -> Plane:
        """Start the servers; version 1 answers."""
        plane, ledger = Plane.up(self.path, model="digits", port=free_port()), self.ledger()
        serve(Fleet(plane=plane), ledger.entries("digits"), self.policy, unheard)
        ledger.close()
        return plane

    def conductor(self, ledger: Ledger) -> Conductor:
        """Return a conductor that knows nothing yet."""
        plane, reader = Plane.attach(self.path), Reader(ledger, self.says)
        fleet = Fleet(plane=plane)
        told: Any = reader
        return Conductor(
            workload="digits",
            policy=self.policy,
            fleet=fleet,
            ledger=ledger,
            lease=FileLease(self.path / "serving"),
            clock=SteadyClock(),
            notifier=Noted(),
            observer=Observer(
                plane=plane,
                reader=told,
                ledger=ledger,
                judge=judge,
                ready=fleet.ready,
                refused=fleet.refused,
            ),
            actor=person(),
            home=self.path,
        )

    def fork(self, work: Callable[[Conductor], object]) -> int:
        """Let a process of its own carry; return its number."""
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                work(self.conductor(self.ledger()))
            os._exit(0)
        return child

    def state(self, name: str = "digits/2/all/1") -> State:
        """Return where a release stands."""
        ledger = self.ledger()
        try:
            return folding.fold(ledger.entries("digits"), name)
        finally:
            ledger.close()

    def stands_at(self, step: int) -> bool:
        """Return whether the release is at a step, with nothing half done."""
        with suppress(LedgerError):
            return (self.state().step, self.state().pending) == (step, None)
        return False


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A home; its servers are stopped at the end."""
    made = House(tmp_path)
    made.furnish()
    yield made
    if Plane.running(tmp_path):
        Plane.attach(tmp_path).down()


def nothing_came() -> None:
    """Heed nothing."""


def wish(version: int = 2, market: str = EVERYWHERE) -> Wish:
    """Want a release."""
    return Wish(version=version, market=market)


def holds_at(step: int) -> Says:
    """Return evidence that is good before a step, and never enough at it."""
    return lambda state: Outcome.INCONCLUSIVE if state.step == step else Outcome.PASS


def carried(conductor: Conductor) -> None:
    """Open a release and carry it."""
    conductor.open(wish())
    conductor.carry(nothing_came)


def test_a_release_that_dies_in_canary_is_taken_up_again(house: House):
    """Killed: users go back, the server ends. The next process brings both up and finishes."""
    plane = house.up()
    child = replace(house, says=holds_at(1)).fork(carried)
    wait_for(lambda: house.stands_at(1), 20)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    wait_for(lambda: plane.observe().buckets == 0, 5)
    wait_for(lambda: plane.status()["slots"]["b"]["state"] == "stopped", 10)
    assert plane.ready("a")
    assert house.state().phase is Phase.CANARY

    ledger = house.ledger()
    house.conductor(ledger).carry(nothing_came)
    assert house.state().phase is Phase.DONE
    assert plane.observe().champion == "b"
    assert champion(ledger.entries("digits")) == 2
    assert list(leases_of(house.path / "serving").glob("*.json")) == []
    ledger.close()


def test_a_slot_is_ready_when_its_new_version_is(tmp_path: Path):
    """The standby that a challenger takes the place of answers a little longer: not in its name."""
    house = House(tmp_path)
    house.furnish(before=9)
    plane, ledger = house.up(), house.ledger()
    conductor = house.conductor(ledger)
    conductor.tidy()
    standby = Placed(version=9, digest="", slot="b")
    wait_for(lambda: conductor.fleet.ready(standby), 20)
    seen: list[tuple[str, str]] = []

    def note(event: Mapping[str, Any]) -> None:
        if event["event"] == "look" and event["act"] == "enter":
            held = plane.status()["slots"]["b"]
            seen.append((held["version"], held["state"]))

    conductor.emit = note
    try:
        conductor.open(wish())
        conductor.carry(nothing_came, goes=lambda state: state.step is None)
        assert seen == [("2", "ready")]
    finally:
        plane.down()
        ledger.close()


def test_a_release_that_dies_later_is_left_as_it_is(house: House):
    """Past the canary nobody is moved when nobody looks: traffic stays, and so does its server."""
    plane = house.up()
    child = replace(house, says=holds_at(3)).fork(carried)
    wait_for(lambda: house.stands_at(3), 20)
    frozen = leases_of(house.path / "serving") / "digits-2-all-1.json"
    wait_for(lambda: '"freeze": true' in frozen.read_text(), 5)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    time.sleep(0.5)

    assert plane.observe().buckets == 64
    assert plane.ready("b")

    ledger = house.ledger()
    serve(Fleet(plane=plane), ledger.entries("digits"), house.policy, unheard)
    assert plane.observe().buckets == 64
    house.conductor(ledger).carry(nothing_came)
    ledger.close()
    assert house.state().phase is Phase.DONE


def test_an_abort_is_written_down_and_sends_everybody_home(house: House):
    """Ctrl-C's way: a signed command, the table of the champion, and the server given up."""
    plane, ledger = house.up(), house.ledger()
    conductor = replace(house, says=holds_at(2)).conductor(ledger)
    conductor.open(wish())

    def interrupted() -> None:
        if plane.observe().buckets == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conductor.carry(interrupted)
    (state,) = conductor.abort("interrupted by the operator")

    assert state.phase is Phase.ROLLED_BACK
    assert "interrupted by the operator" in state.reason
    assert (plane.observe().champion, plane.observe().buckets) == ("a", 0)
    assert plane.status()["slots"]["b"]["state"] == "stopped"
    entries = ledger.entries("digits")
    assert [e.body["command"] for e in entries if e.kind == COMMAND] == ["abort"]
    assert stage_of(entries, 2) is Stage.ARCHIVED
    # Somebody who died between the end and giving the lease back.
    FileLease(house.path / "serving").acquire(state.release, conductor.clock.now())
    conductor.tidy()
    assert list(leases_of(house.path / "serving").glob("*.json")) == []
    ledger.close()


def test_who_carries_may_stay_until_a_person_has_answered(house: House):
    """An approval that is wanted leaves traffic as it is; given, it is heeded without a restart."""
    plane, ledger = house.up(), house.ledger()
    named: dict[str, Any] = {"name": "ann", "roles": ["approver"], "actor": person(), "now": NOW}
    ledger.enrol(public_key=person("ann").public_key, **named)
    conductor = house.conductor(ledger)
    told: list[Mapping[str, Any]] = []
    conductor.emit = told.append
    conductor.open(replace(wish(), trigger=Trigger.DRIFT))

    (state,) = conductor.carry(nothing_came)
    assert (state.phase, state.within, plane.observe().mirror) == (Phase.AWAIT, Phase.SHADOW, "b")
    (asked,) = [event for event in told if event["event"] == "asked"]
    assert "needs an approval" in asked["text"]

    def answered() -> None:
        state = house.state()
        if state.awaited is not None:
            plan = opened_of(ledger.entries("digits"), state.release).plan(house.policy)
            now = conductor.clock.now()
            with suppress(Refused):
                approvals.grant(ledger, state, plan, reason="t", actor=person("ann"), now=now)

    conductor.carry(answered, goes=conductor.is_ours)
    assert house.state().phase is Phase.DONE
    ledger.close()


def test_a_market_does_not_move_with_another(house: House):
    """One version in two markets: rolled back in the one, promoted in the other."""
    markets = (
        Market(name="us", canary_percents=(10, 100)),
        Market(name="eu", canary_percents=(5, 100)),
    )
    house.policy = replace(QUICK, markets=markets)
    house.says = lambda s: Outcome.FAIL if s.market == "eu" and s.step == 1 else Outcome.PASS
    plane, ledger = house.up(), house.ledger()
    conductor = house.conductor(ledger)
    for market in ("us", "eu"):
        conductor.open(wish(market=market))
    conductor.carry(nothing_came)

    entries = ledger.entries("digits")
    phases = {m: house.state(f"digits/2/{m}/1").phase for m in ("us", "eu")}
    assert phases == {"us": Phase.DONE, "eu": Phase.ROLLED_BACK}
    assert {m: plane.observe(m).champion for m in ("us", "eu")} == {"us": "b", "eu": "a"}
    assert stage_of(entries, 2) is Stage.PRODUCTION
    assert champions(entries, house.policy) == {"us": 2, "eu": 1, EVERYWHERE: 1}
    assert plane.ready("a")
    assert plane.ready("b")
    # A third version has nowhere to run while each slot has users of its own.
    assert free_slot(entries, 3, conductor.fleet.serving(), house.policy) is None
    ledger.close()


class Slots:
    """A fleet that runs version 1 and has room for another."""

    def serving(self) -> dict[str, int | None]:
        """Return who runs where."""
        return {"a": 1, "b": None}

    def slot_of(self, version: int) -> str | None:
        """Return where a version runs."""
        return "a" if version == 1 else None


def opener(house: House, ledger: Ledger) -> Opener:
    """Return what opens releases, without servers."""
    fleet: Any = Slots()
    return Opener(
        workload="digits",
        policy=house.policy,
        ledger=ledger,
        fleet=fleet,
        clock=Now(NOW),
        actor=person(),
    )


def test_a_second_release_is_refused(house: House):
    """While one goes on its market is busy; nothing is written down of the other."""
    ledger = house.ledger()
    opens = opener(house, ledger)
    assert opens.open(wish(2)) is not None
    before = ledger.entries()

    with pytest.raises(Refused, match="release digits/2/all/1 goes on, in PREPARE"):
        opens.open(wish(3))

    assert ledger.entries() == before
    ledger.close()


def test_a_second_release_waits_where_the_policy_says_so(house: House):
    """It is queued once, opened when the first has ended, and refused then if it grew too old."""
    house.policy = replace(QUICK, when_busy=WhenBusy.QUEUE)
    ledger = house.ledger()
    opens = opener(house, ledger)
    first = opens.open(wish(2))
    assert first is not None
    for _ in range(2):
        assert opens.open(wish(3)) is None
    entries = ledger.entries("digits")
    assert [(w.version, w.market) for w in queue(entries)] == [(3, EVERYWHERE)]
    assert opens.next_queued(entries) is None

    ended(ledger, first.release)
    opened = opens.next_queued(ledger.entries("digits"))

    assert opened is not None
    assert (opened.release, opened.queued) == ("digits/3/all/1", queue(entries)[0].queued)
    assert queue(ledger.entries("digits")) == []
    ledger.close()


def test_what_waited_too_long_is_let_go(house: House):
    """A version that was archived while it was queued is never opened, and the ledger says why."""
    house.policy = replace(QUICK, when_busy=WhenBusy.QUEUE)
    ledger = house.ledger()
    opens = opener(house, ledger)
    first = opens.open(wish(2))
    assert first is not None
    opens.open(wish(3))
    named: dict[str, Any] = {"workload": "digits", "version": 3, "actor": person()}
    ledger.move(**named, to=Stage.ARCHIVED, reason="t", now=NOW)
    ended(ledger, first.release)

    assert opens.next_queued(ledger.entries("digits")) is None
    entries = ledger.entries("digits")
    assert queue(entries) == []
    assert "version 3 is in ARCHIVED" in entries[-1].body["reason"]
    assert folding.active(entries) == []
    ledger.close()


def ended(ledger: Ledger, release: str) -> None:
    """End a release before its first step."""
    named: dict[str, Any] = {"workload": "digits", "version": 2, "actor": person(), "now": NOW}
    body = {"release": release, "n": 1, "action": "fail", "step": None, "why": "t", "table": None}
    ledger.append(**named, kind="intent", body=body)
    ledger.append(**named, kind="in force", body={"release": release, "n": 1})
