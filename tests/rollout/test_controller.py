"""Laws of the release loop: wherever it is cut, users end where the ledger says."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import REGISTERED, Ledger, LedgerError, Stage, champion, stage_of
from penstock.rollout.controller import PROMOTED, ROLLED_BACK, Controller, Result, Versions
from penstock.rollout.evidence import Arm, Evidence
from penstock.rollout.table import TrafficTable
from penstock.workload import Rollout
from tests.people import person

NOW = datetime(2026, 1, 5, tzinfo=UTC)
POLICY = Rollout(
    canary_percents=(10, 100), soak=timedelta(seconds=2), deadline=timedelta(seconds=60)
)
ALL_THE_WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
GOOD = Arm(requests=5000, answered=5000, labelled=5000)
BAD = Arm(requests=5000, answered=2500, labelled=2500, errors=2500)


class Cut(BaseException):
    """Ctrl-C, at a moment of the test's choosing."""


class Cutter:
    """Counts effects and cuts after one of them."""

    def __init__(self, after: int | None = None, how: signal.Signals | None = None) -> None:
        self.left, self.how, self.seen = after, how, 0

    def effect(self) -> None:
        """Note that something happened."""
        self.seen += 1
        if self.left is None or self.seen != self.left:
            return
        if self.how is None:
            raise Cut
        signal.raise_signal(self.how)


class StandIn:
    """A plane in memory: a table is written at once and in force only when it was waited for."""

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        first = TrafficTable(
            sequence=7, salt="s", champion="a", challenger=None, buckets=0, mirror=None
        )
        self.tables, self.used = [first], first

    def written(self) -> TrafficTable:
        """Return the newest table."""
        return self.tables[-1]

    def observe(self) -> TrafficTable:
        """Return the table in force."""
        return self.used

    def apply(self, table: TrafficTable) -> None:
        """Take a table; refuse one that is not newer, as the real one does."""
        if table.sequence <= self.tables[-1].sequence:
            raise AssertionError(f"table {table.sequence} after {self.tables[-1].sequence}")
        self.tables.append(table)
        self._cutter.effect()

    def wait_applied(self, table: TrafficTable, *, timeout_s: float) -> None:
        """Put the newest table in force."""
        self.used = table
        self._cutter.effect()

    def ready(self, slot: str) -> bool:
        """Say that every slot is ready."""
        return True


class Watched(Ledger):
    """A real ledger whose every entry is an effect."""

    cutter = Cutter()

    def append(self, **named: Any) -> Any:
        """Append, then perhaps cut."""
        entry = super().append(**named)
        self.cutter.effect()
        return entry


def registered(ledger: Ledger, version: int, *stages: Stage) -> None:
    """Register a version and move it through stages."""
    named: dict[str, Any] = {"workload": "digits", "version": version, "actor": person()}
    ledger.append(**named, kind=REGISTERED, body={"package": f"p{version}"}, now=NOW)
    for stage in stages:
        ledger.move(**named, to=stage, reason="t", now=NOW)


class Reader:
    """Evidence that says the same at every look."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm

    def poll(self) -> None:
        """Have nothing new to read."""

    def forget_before(self, at: float) -> None:
        """Have nothing to forget."""

    def evidence(self, **_: Any) -> Evidence:
        """Return this moment's evidence."""
        return Evidence(champion=GOOD, challenger=self.arm, compared=5000)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Watched]:
    """A ledger in which version 1 serves and version 2 waits."""
    held = Watched(f"sqlite:///{tmp_path / 'ledger.db'}")
    held.cutter = Cutter()
    registered(held, 1, *ALL_THE_WAY)
    registered(held, 2, Stage.STAGING)
    yield held
    held.close()


def controller(ledger: Watched, arm: Arm, cutter: Cutter) -> tuple[Controller, StandIn]:
    """Return a controller of version 2 over version 1, and its plane."""
    seconds = iter(range(10**6))
    ledger.cutter = cutter
    plane: Any = StandIn(cutter)
    reader: Any = Reader(arm)
    clock: Callable[[], datetime] = lambda: NOW + timedelta(seconds=next(seconds))  # noqa: E731
    made = Controller(
        plane=plane,
        ledger=ledger,
        reader=reader,
        policy=POLICY,
        versions=Versions(
            workload="digits", challenger=2, challenger_slot="b", champion=1, champion_slot="a"
        ),
        actor=person(),
        emit=lambda _: None,
        clock=clock,
        sleep=lambda _: None,
    )
    return made, plane


def released(ledger: Watched, arm: Arm) -> tuple[Result, StandIn, int]:
    """Carry a release to its end; return it, its plane, and how many effects it had."""
    cutter = Cutter()
    made, plane = controller(ledger, arm, cutter)
    return made.release(ready_s=None), plane, cutter.seen


def test_good_evidence_carries_every_user_over(ledger: Watched):
    """Shadow first, then each share, and the challenger's slot answers in the end."""
    result, plane, _ = released(ledger, GOOD)

    assert result.outcome == PROMOTED
    shares = [(t.mirror, t.buckets) for t in plane.tables[1:]]
    assert shares == [("b", 0), (None, 6), (None, 64), (None, 0)]
    assert plane.used.champion == "b"
    assert champion(ledger.entries("digits")) == 2


def test_bad_evidence_brings_every_user_back(ledger: Watched):
    """Harm that the copies show never reaches a user."""
    result, plane, _ = released(ledger, BAD)

    assert result.outcome == ROLLED_BACK
    assert [t.buckets for t in plane.tables] == [0] * len(plane.tables)
    assert (plane.used.champion, plane.used.mirror) == ("a", None)
    assert stage_of(ledger.entries("digits"), 2) is Stage.ARCHIVED


def forge(database: Path) -> None:
    """Put an entry that nobody signed at the end of a ledger, past the library."""
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    last = dict(connection.execute("SELECT * FROM entries ORDER BY sequence DESC").fetchone())
    made = {
        **last,
        "sequence": last["sequence"] + 1,
        "previous": last["hash"],
        "hash": "0" * 64,
        "kind": "note",
        "origin": None,
        "target": None,
    }
    marks = ", ".join("?" * len(made))
    statement = f"INSERT INTO entries ({', '.join(made)}) VALUES ({marks})"
    connection.execute(statement, list(made.values()))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("arm", [GOOD, BAD], ids=["all is well", "harm is seen"])
def test_a_ledger_that_breaks_under_way_leaves_no_user_on_the_challenger(
    ledger: Watched, arm: Arm, tmp_path: Path
):
    """No record is a reason to stop, never one to leave users where they are."""
    made, plane = controller(ledger, arm, Cutter())
    looked: Any = made.reader
    seen = looked.evidence

    def evidence(**named: Any) -> Evidence:
        # Copies are harmless, so the harm shows when the first users are on it.
        shadowed = plane.used.buckets == 0
        looked.arm = GOOD if shadowed else arm
        if not shadowed and looked.forged is False:
            looked.forged = True
            forge(tmp_path / "ledger.db")
        return seen(**named)

    looked.forged, looked.evidence = False, evidence

    with pytest.raises(LedgerError, match="edited after it was signed"):
        made.release(ready_s=None)

    assert looked.forged
    assert max(t.buckets for t in plane.tables) > 0
    assert (plane.used.champion, plane.used.buckets, plane.used.mirror) == ("a", 0, None)


@pytest.mark.parametrize("arm", [GOOD, BAD], ids=["promoted", "rolled back"])
@pytest.mark.parametrize(
    ("how", "raised"),
    [(None, Cut), (signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)],
    ids=["error", "Ctrl-C", "request to end"],
)
def test_cut_after_any_effect_users_end_where_the_ledger_says(
    ledger: Watched,
    arm: Arm,
    how: signal.Signals | None,
    raised: type[BaseException],
    tmp_path: Path,
):
    """For every place a release can be cut: one slot answers, and it is the ledger's champion's."""
    _, _, effects = released(ledger, arm)
    assert effects > 8
    for after in range(1, effects + 1):
        held = Watched(f"sqlite:///{tmp_path / f'{after}.db'}")
        registered(held, 1, *ALL_THE_WAY)
        registered(held, 2, Stage.STAGING)
        made, plane = controller(held, arm, Cutter(after, how))

        with pytest.raises(raised):
            made.release(ready_s=None)

        entries = held.entries("digits")
        serving = {1: "a", 2: "b"}[champion(entries) or 0]
        told = plane.used
        assert told == plane.written(), after
        assert (told.champion, told.buckets, told.mirror) == (serving, 0, None), after
        assert stage_of(entries, 2) in (Stage.PRODUCTION, Stage.ARCHIVED), after
        if how is not None:
            intents = [e for e in entries if e.kind == "intent"]
            confirmed = [e for e in entries if e.kind == "in force"]
            assert len(intents) == len(confirmed), "a signal cut a change in two"
        held.close()


def test_an_interrupted_release_of_a_standby_leaves_the_champion_answering(tmp_path: Path):
    """Having served once is not serving: users end with the champion, and the standby stays."""
    held = Watched(f"sqlite:///{tmp_path / 'standby.db'}")
    held.cutter = Cutter()
    registered(held, 2, *ALL_THE_WAY)
    registered(held, 1, *ALL_THE_WAY)
    made, plane = controller(held, GOOD, Cutter(3))

    with pytest.raises(Cut):
        made.release(ready_s=None)

    assert plane.used == plane.written()
    assert (plane.used.champion, plane.used.buckets, plane.used.mirror) == ("a", 0, None)
    assert stage_of(held.entries("digits"), 2) is Stage.PRODUCTION
    held.close()
