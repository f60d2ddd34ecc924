"""Running: the servers of a home with their champions, and what carries its releases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from penstock.ledger import Actor, Entry, Ledger, champion
from penstock.rollout import drill, folding, killroll
from penstock.rollout.champions import champions, promised, serve
from penstock.rollout.clock import SteadyClock
from penstock.rollout.conductor import Conductor
from penstock.rollout.fleet import Fleet
from penstock.rollout.journal import Told
from penstock.rollout.judgement import Reader
from penstock.rollout.lease import FileLease
from penstock.rollout.notify import notifier_of
from penstock.rollout.observing import Observer
from penstock.rollout.plane import Plane
from penstock.rollout.ports import Leases
from penstock.rollout.reading import LogReader
from penstock.rollout.table import RULES, SLOTS
from penstock.workload import load

NOTIFIED_S = 2.0
"""Longest that the end of a run waits for its last notifications to go out."""


@contextmanager
def servers(
    workload: str,
    version: int,
    home: Path,
    ledger: Ledger,
    port: int,
    emit: Callable[[Told], None],
) -> Iterator[Plane]:
    """Yield the plane of a home, with its champions answering; down again if the block raises."""
    entries, policy = ledger.entries(workload), load(workload).rollout
    serving, running = champion(entries), Plane.running(home)
    limits = promised(entries, version if serving is None else serving)
    killroll.remember(home, ledger)
    plane = Plane.up(home, model=workload, port=port, endpoint=limits)
    try:
        serve(Fleet(plane=plane), entries, policy, emit)
        yield plane
    except BaseException:
        # Whom the kill switch sends everybody to answers on, whoever else does not start.
        if not running and not plane.killed():
            plane.down()
        raise
    entries = ledger.entries(workload)
    ruled = any(table.champion == RULES for table in plane.tables().values())
    if not champions(entries, policy) and not folding.active(entries) and not ruled:
        # There is nothing left to keep up.
        plane.down()


@contextmanager
def conducted(
    plane: Plane,
    workload: str,
    home: Path,
    ledger: Ledger,
    actor: Actor,
    emit: Callable[[Told], None],
) -> Iterator[Conductor]:
    """Yield what carries the releases of a home."""
    declared, entries = load(workload), ledger.entries(workload)
    reader = LogReader(
        logs={slot: plane.log_folder(slot) for slot in SLOTS},
        outcomes=home / "serving" / "traffic" / "outcomes.jsonl",
        since=since(entries),
        declared=declared,
    )
    with conducting(
        workload=workload,
        fleet=Fleet(plane=plane),
        reader=reader,
        lease=FileLease(home / "serving"),
        ledger=ledger,
        actor=actor,
        home=home,
        emit=emit,
    ) as conductor:
        yield conductor


@contextmanager
def conducting(
    *,
    workload: str,
    fleet: Fleet,
    reader: Reader,
    lease: Leases,
    ledger: Ledger,
    actor: Actor,
    home: Path,
    emit: Callable[[Told], None],
    late_s: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Conductor]:
    """Yield what carries the releases of a workload, over whatever serves and logs it.

    Args:
        late_s: How much later than its answer the reader may have a record.
        sleep: Waits.
    """
    policy, entries = load(workload).rollout, ledger.entries()
    newest = datetime.fromisoformat(entries[-1].at) if entries else None
    clock = SteadyClock(newest, sleep=sleep)
    outbox = notifier_of(home, ledger.entries)
    try:
        yield Conductor(
            workload=workload,
            policy=policy,
            fleet=fleet,
            ledger=ledger,
            lease=lease,
            clock=clock,
            notifier=_Waker(None if outbox is None else outbox.wake),
            observer=Observer(
                plane=fleet.plane,
                reader=reader,
                ledger=ledger,
                ready=fleet.ready,
                refused=fleet.refused,
                wrong=fleet.wrong,
                standby=fleet.stands_by,
                drilled=lambda entries, now: drill.due(entries, policy, now),
                ahead_s=clock.ahead_s,
                late_s=late_s,
            ),
            actor=actor,
            home=home,
            emit=emit,
        )
    finally:
        if outbox is not None:
            outbox.close(timeout_s=NOTIFIED_S)


@dataclass(frozen=True)
class _Waker:
    """Tells the sender of notifications that the ledger went on; it reads the rest there."""

    wake: Callable[[], None] | None

    def tell(self, event: Told) -> None:  # noqa: ARG002 - the ledger says it
        """Wake it."""
        if self.wake is not None:
            self.wake()


def since(entries: Sequence[Entry]) -> float:
    """Return from when on records may be evidence: when the oldest release was opened."""
    opened = [state.opened_at.timestamp() for state in folding.active(entries)]
    return min(opened, default=time.time())
