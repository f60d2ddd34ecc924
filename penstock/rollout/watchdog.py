"""The watchdog: users go home when nobody carries their release any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.rollout.lease import Held, read
from penstock.rollout.table import TrafficTable


def returned(table: TrafficTable) -> TrafficTable:
    """Return the next table, in which a market's own champion answers all of its users."""
    return replace(
        table,
        sequence=table.sequence + 1,
        challenger=None,
        buckets=0,
        mirror=None,
        trickle=None,
    )


def exposed(table: TrafficTable) -> bool:
    """Return whether anything of a market's traffic reaches a challenger, copies too."""
    return bool(table.buckets) or table.mirror is not None


def asked(table: TrafficTable) -> set[str]:
    """Return the slots that a table needs."""
    named = (table.champion, table.challenger, table.mirror, table.trickle, table.fallback)
    return {slot for slot in named if slot is not None}


@dataclass(kw_only=True)
class Watchdog:
    """Looks at the leases of a home by its own monotonic clock."""

    leases: Path
    clock: Callable[[], float] = time.monotonic
    _seen: dict[Path, tuple[Held, float]] = field(default_factory=dict[Path, tuple[Held, float]])

    def look(self) -> None:
        """Note which leases are there, and since when each says what it says."""
        now_s = self.clock()
        paths = set(self.leases.glob("*.json"))
        self._seen = {path: held for path, held in self._seen.items() if path in paths}
        for path in paths:
            held, known = read(path), self._seen.get(path)
            if held is not None and (known is None or known[0] != held):
                self._seen[path] = held, now_s

    def ended(self) -> list[Held]:
        """Return the leases whose holder is gone, or has not renewed them in time."""
        now_s = self.clock()
        return [
            held
            for held, since_s in self._seen.values()
            if not held.lives() or now_s - since_s > held.timeout_s
        ]

    def carried(self) -> bool:
        """Return whether somebody carries any release."""
        return len(self.ended()) < len(self._seen)
