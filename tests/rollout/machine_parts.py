"""A ledger and a data plane in memory, for worlds that are made by the thousand.

The ledger takes entries as the real one does (``expect``, the lifecycle's order); the plane refuses
a table that is not newer than the last and takes the same one again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.ledger import MOVED, Conflict, Entry, Head, LedgerError, Stage, stage_of
from penstock.ledger.lifecycle import refused_move
from penstock.rollout.ports import Stale
from penstock.rollout.table import BUCKETS, TrafficTable


class MemoryLedger:
    """The ledger's grammar without database and keys."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def entries(self, workload: str | None = None) -> list[Entry]:
        """Return all entries, in order."""
        return [e for e in self._entries if workload in (None, e.workload)]

    def head(self) -> Head:
        """Return the end of the chain."""
        return Head(len(self._entries), "")

    def append(
        self,
        *,
        workload: str,
        version: int | None,
        kind: str,
        body: Mapping[str, Any],
        actor: object,
        now: datetime,
        expect: int | None = None,
        target: str | None = None,
    ) -> Entry:
        """Add one entry."""
        self._expect(expect)
        entry = Entry(
            sequence=len(self._entries) + 1,
            at=now.isoformat(),
            actor=str(getattr(actor, "name", actor)),
            key_id="",
            workload=workload,
            version=version,
            kind=kind,
            subject=None,
            origin=None,
            target=target,
            body=body,
            previous="",
            hash="",
            signature="",
        )
        self._entries.append(entry)
        return entry

    def _expect(self, expect: int | None) -> None:
        if expect is not None and expect != len(self._entries):
            raise Conflict(f"decided at {expect}, the ledger is at {len(self._entries)}")

    def move(
        self,
        *,
        workload: str,
        version: int,
        to: Stage,
        reason: str,
        actor: object,
        now: datetime,
        evidence: Mapping[str, Any] | None = None,
        expect: int | None = None,
    ) -> Entry:
        """Move a version one step, as the lifecycle allows it."""
        self._expect(expect)
        origin = stage_of(self.entries(workload), version)
        why = refused_move(version, origin, to, registered=True)
        if why is not None:
            raise LedgerError(why)
        body = {"to": str(to), "reason": reason, "evidence": dict(evidence or {})}
        return self.append(
            workload=workload,
            version=version,
            kind=MOVED,
            body=body,
            actor=actor,
            now=now,
            expect=expect,
            target=str(to),
        )


@dataclass
class MemoryPlane:
    """Traffic tables of every market, and a kill switch before them."""

    history: dict[str, list[TrafficTable]]
    thrown: str = ""

    def written(self, market: str) -> TrafficTable:
        """Return the table that was written last."""
        return self.history[market][-1]

    observe = written

    def apply(self, table: TrafficTable) -> None:
        """Write a table; the same one again changes nothing."""
        last = self.written(table.market)
        if table == last:
            return
        if table.sequence <= last.sequence:
            raise Stale(f"table {table.sequence} after {last.sequence}")
        self.history[table.market].append(table)

    def wait_applied(self, table: TrafficTable, *, timeout_s: float) -> None:
        """Return at once: what is written is in force."""

    def verify(self, table: TrafficTable) -> str:
        """Find nothing wrong."""
        return ""

    def killed(self) -> str:
        """Return who threw the kill switch."""
        return self.thrown

    def answers(self, market: str) -> tuple[str, ...]:
        """Return the slot that answers each bucket; the switch goes before the table."""
        table = self.written(market)
        if self.thrown:
            return (table.fallback or table.champion,) * BUCKETS
        return tuple(table.slot_for(b) for b in range(BUCKETS))
