"""What a round of one controller costs: conductors of many workloads, each with one release.

Real are the ledger (SQLite or PostgreSQL, audited), leases, folding, decisions and looks; servers
and tables are in memory, and the judgement is made already: what a look at evidence costs is
measured by :mod:`benchmarks.scale.evidence`.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from benchmarks.scale import told
from benchmarks.scale.evidence import peak_mb
from benchmarks.scale.plane import still
from penstock.ledger import Entry, Head, Ledger, schema
from penstock.rollout import folding
from penstock.rollout.conductor import Conductor
from penstock.rollout.fleet import Fleet
from penstock.rollout.lease import FileLease
from penstock.rollout.observing import Observer
from penstock.rollout.table import TrafficTable
from tests.people import person
from tests.rollout.carried import Noted, Now

Figures = dict[str, Any]
Named = tuple[str, int, float]
"""A function, its calls, and its share of the time with all that it calls."""

ROUNDS = 3
PROFILED = 12
"""Functions that are named, the costliest first."""


class Counted(Ledger):
    """A ledger that counts how often it is read."""

    reads = 0

    def entries(self, workload: str | None = None) -> list[Entry]:
        """Count, and read the entries."""
        self.reads += 1
        return super().entries(workload)

    def head(self) -> Head:
        """Count, and read the chain's end."""
        self.reads += 1
        return super().head()


@dataclass
class Statements:
    """How many statements were sent to any database."""

    sent: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count while the block runs."""
        event.listen(sa.Engine, "before_cursor_execute", self._count)
        try:
            yield
        finally:
            event.remove(sa.Engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.sent += 1


@dataclass
class House:
    """A controller's process: one ledger, and a conductor for each workload."""

    folder: Path
    url: str
    releases: int
    past: int
    """Releases of each workload that are done."""

    entries: int = 0
    start_s: float = 0.0
    """Until the whole chain was audited, which a process does once."""

    ledger: Counted = field(init=False)
    conductors: list[Conductor] = field(default_factory=list[Conductor])

    def furnish(self) -> None:
        """Write the ledger, open it, and make the conductors."""
        names = [f"w{n}" for n in range(self.releases)]
        self.entries = told.furnished(self.url, names, past=self.past)
        self.ledger = Counted(self.url)
        begun = time.perf_counter()
        self.ledger.entries("")
        self.start_s = time.perf_counter() - begun
        self.conductors = [self._conductor(name) for name in names]

    def round(self) -> None:
        """Look at every release once, as one process does."""
        for conductor in self.conductors:
            (state,) = conductor.round()
            assert state.pending is None, state

    def _conductor(self, name: str) -> Conductor:
        home, version = self.folder / name, self.past + 2
        (state,) = folding.active(self.ledger.entries(name))
        assert isinstance(state.table, TrafficTable)
        plane: Any = still(home, {"a": version - 1, "b": version}, state.table)
        fleet = Fleet(plane=plane)
        return Conductor(
            workload=name, policy=told.POLICY, fleet=fleet, ledger=self.ledger,
            lease=FileLease(home / "serving"), clock=Now(told.START + timedelta(minutes=1)),
            notifier=Noted(), actor=person(), home=home,
            observer=Observer(
                plane=plane, reader=told.Reader(), ledger=self.ledger, judge=told.passed,
                ready=fleet.ready, refused=fleet.refused,
            ),
        )  # fmt: skip


def measured(folder: Path, url: str, *, releases: int, past: int) -> Figures:
    """Return what a round costs, and one bare read of the same rows, as its floor.

    Taken in a process of its own, so that memory is its own.
    """
    with get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
        return alone.apply(_measured, (folder, url, releases, past))


def _measured(folder: Path, url: str, releases: int, past: int) -> Figures:
    house = House(folder=folder, url=url, releases=releases, past=past)
    told.judged()
    before_mb = peak_mb()
    house.furnish()
    house.round()  # servers are taken up and leases written in the first
    house.ledger.reads, statements = 0, Statements()
    with statements.counted():
        wall_s, cpu_s = _timed(house.round, ROUNDS)
    taken_mb = peak_mb() - before_mb
    _, floor_s = _timed(lambda: bare(house), ROUNDS)
    each = ROUNDS * releases
    house.ledger.close()
    return {
        "releases": releases, "past": past, "entries": house.entries, "start_s": house.start_s,
        "round_s": wall_s, "ms_each": 1000 * cpu_s / releases, "memory_mb": taken_mb,
        "bare_ms_each": 1000 * floor_s / releases, "to_bare": cpu_s / floor_s,
        "reads_each": house.ledger.reads / each, "statements_each": statements.sent / each,
    }  # fmt: skip


def bare(house: House) -> None:
    """Read each workload's rows with one bare query."""
    engine, columns = schema.connected(house.url), schema.entries.c
    with engine.connect() as connection:
        for conductor in house.conductors:
            query = sa.select(schema.entries).where(columns.workload == conductor.workload)
            rows = connection.execute(query.order_by(columns.sequence)).mappings().all()
            assert rows
    engine.dispose()


def costliest(folder: Path, url: str, *, releases: int, past: int) -> list[Named]:
    """Return where a round's time goes: function, calls, and its share with all that it calls."""
    house = House(folder=folder, url=url, releases=releases, past=past)
    house.furnish()
    house.round()
    profile = cProfile.Profile()
    profile.runcall(house.round)
    house.ledger.close()
    return named(pstats.Stats(profile))


def named(stats: pstats.Stats) -> list[Named]:
    """Return the costliest functions of Penstock, by their cumulative share."""
    found: dict[Any, Any] = vars(stats)["stats"]
    whole = max(cumulative for _, _, _, cumulative, _ in found.values())
    ours = [
        (f"{Path(path).parent.name}.{Path(path).stem}.{name}", calls, cumulative / whole)
        for (path, _, name), (_, calls, _, cumulative, _) in found.items()
        if "penstock" in path
    ]
    return sorted(ours, key=lambda one: -one[2])[:PROFILED]


def _timed(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of one of several turns."""
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times, (time.process_time() - cpu) / times
