"""History: when a workload was trained and what was decided before, as the ledger tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.ledger import REGISTERED, Entry

DECIDED = "retrain decided"
"""Kind of the entries of a decision: act, reason, trigger, priority, asked, suppressed, and
``monitor``, the digest of the verdict that it rests on."""


URGENT = 1
"""The priority that does not wait for the interval between two trainings."""


@dataclass(frozen=True, kw_only=True)
class History:
    """When a workload was trained."""

    trained: datetime | None = None
    """When the newest training was decided, or its version registered by another hand; None for
    never."""

    urgent: datetime | None = None
    """When the newest training of priority 1 was decided; None for never."""

    registered: datetime | None = None
    """When the newest version was registered: what the schedule counts from."""


def history_of(entries: Sequence[Entry]) -> History:
    """Return when a workload was trained, from its entries."""
    begun = [e for e in entries if e.kind == DECIDED and e.body["act"] == "train"]
    made = [e for e in entries if e.kind == REGISTERED]
    return History(
        trained=_newest((*begun, *made)),
        urgent=_newest([e for e in begun if e.body["priority"] == URGENT]),
        registered=_newest(made),
    )


def _newest(entries: Sequence[Entry]) -> datetime | None:
    return max((datetime.fromisoformat(e.at) for e in entries), default=None)


def decided(entries: Sequence[Entry], monitor: str) -> Entry | None:
    """Return what was decided on a verdict before; None where nothing was.

    Args:
        monitor: Digest of the verdict's bundle.
    """
    for entry in reversed(entries):
        if entry.kind == DECIDED and entry.body["monitor"] == monitor:
            return entry
    return None
