"""The real controller over the same world, stopped before and after each thing that it asks of it.

Its tick runs in a thread that goes on only when it is told to: as an iterator it is what the small
loop of ``machine_loop`` is, so both meet the same crashes, rivals and laws.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

from penstock.ledger import Entry, Head, Stage
from penstock.rollout.controller import Controller
from penstock.rollout.folding import fold
from penstock.rollout.observing import Glance, Observer
from penstock.rollout.opened import Opened
from penstock.rollout.plan import Plan
from penstock.rollout.state import INTENT, Act, State
from penstock.rollout.table import TrafficTable
from tests.rollout.machine import Decision, World


class Cut(BaseException):
    """The process ends here."""


@dataclass
class Turns:
    """Lets a thread go on from one point to the next."""

    work: Callable[[], object] = lambda: None
    error: BaseException | None = None
    over: bool = False
    cut: bool = False
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _thread: threading.Thread | None = None

    def point(self) -> None:
        """Stop here until it is told to go on; called by the thread."""
        self._came.release()
        self._go.acquire()
        if self.cut:
            raise Cut

    def go_on(self) -> bool:
        """Let the thread come to its next point; False where its work is over."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        else:
            self._go.release()
        self._came.acquire()
        if self.error is not None:
            raise self.error
        return not self.over

    def end(self) -> None:
        """End the thread where it is, as a crash does."""
        if self._thread is not None and not self.over:
            self.cut = True
            self._go.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self.work()
        except Cut:
            return
        except BaseException as e:  # noqa: BLE001 - it is raised where the thread is told to go on
            self.error = e
        finally:
            self.over = True
            self._came.release()


@dataclass
class Stopping:
    """Ledger, plane, lease, clock and notifier of one controller."""

    world: World
    market: str
    who: str
    point: Callable[[], None]
    looked: Decision | None = None

    def entries(self, workload: str | None = None) -> list[Entry]:
        """Read the ledger."""
        self.point()
        return self.world.ledger.entries(workload)

    def head(self) -> Head:
        """Read the ledger's end."""
        self.point()
        return self.world.ledger.head()

    def append(self, **named: Any) -> Entry:
        """Append, and remember which decision an intent was written for."""
        self.point()
        entry = self.world.ledger.append(**named)
        if entry.kind == INTENT:
            self.world.behind[entry.sequence] = self._behind(named["body"])
        self.point()
        return entry

    def _behind(self, body: Mapping[str, Any]) -> Decision:
        if "again" in body:
            written = {e.body["n"]: e.sequence for e in self.world.ledgered(self.market)}
            return self.world.behind[written[body["again"]]]
        assert self.looked is not None
        return self.looked

    def move(self, *, to: Stage, **named: Any) -> Entry:
        """Move the version."""
        self.point()
        entry = self.world.ledger.move(to=to, **named)
        self.point()
        return entry

    def written(self, market: str) -> TrafficTable:
        """Return the table that was written last."""
        self.point()
        return self.world.plane.written(market)

    observe = written

    def apply(self, table: TrafficTable) -> None:
        """Write a table."""
        self.point()
        self.world.plane.apply(table)
        self.point()

    def wait_applied(self, table: TrafficTable, *, timeout_s: float) -> None:
        """See the table in force."""
        self.point()

    def verify(self, table: TrafficTable) -> str:
        """Find nothing wrong."""
        return ""

    def killed(self) -> str:
        """Return who threw the kill switch."""
        return self.world.plane.killed()

    def now(self) -> datetime:
        """Return the time by the controller's own clock."""
        return self.world.clock(self.who)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Tell nobody."""

    def acquire(self, release: str, now: datetime) -> bool:
        """Let everybody hold the lease: the ledger alone keeps two from acting both."""
        return True

    def renew(self, release: str, now: datetime, *, freeze: bool) -> bool:
        """Keep it."""
        return True

    def release(self, release: str) -> None:
        """Give nothing back."""

    def look(
        self, opened: Opened, plan: Plan, state: State, entries: Sequence[Entry], now: datetime
    ) -> Glance:
        """See what the world shows of a state."""
        self.point()
        seen = self.world.look(self.market, state, self.who)
        held = fold(entries, opened.release)
        self.looked = Decision(state=held, seen=seen, now=now, act=None, plan=plan)
        return Glance(seen=seen)

    def note(self, look: Mapping[str, Any]) -> None:
        """Remember what was decided."""
        assert self.looked is not None
        act = None if look["act"] == "hold" else Act(look["act"])
        self.looked = replace(self.looked, act=act)
        self.world.decisions.append(self.looked)


def tick(world: World, market: str, who: str) -> Iterator[None]:
    """Run one tick of a controller that begins with nothing but ledger and plane."""
    turns = Turns()
    ports: Any = Stopping(world, market, who, turns.point)
    controller = Controller(
        release=world.release(market),
        policy=world.policy,
        plane=ports,
        ledger=ports,
        lease=ports,
        clock=ports,
        notifier=ports,
        observer=cast(Observer, ports),
        actor=world.actor,
        note=ports.note,
    )
    turns.work = controller.tick
    try:
        while turns.go_on():
            yield
    finally:
        turns.end()
