"""The point-in-time rule, written down as one would explain it: slow, plain, and independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row of a feature view: entity, when it happened, when it became known, its value."""

    key: Any
    event: Any
    created: Any
    value: Any


def known(rows: Sequence[Row], key: Any, at: Any, *, ttl: Any, bitemporal: bool) -> Row | None:
    """Return the row that a label of this entity at this time may see, or None.

    Null keys match nothing; a row without an event timestamp is nobody's; where the source says
    when rows became known, one that does not say it cannot be shown to have been known.
    """
    best: tuple[Any, Row] | None = None
    for position, row in enumerate(rows):
        if key is None or row.key != key or row.event is None or row.event > at:
            continue
        if bitemporal and (row.created is None or row.created > at):
            continue
        rank = (row.event, row.created if bitemporal else 0, position)
        if best is None or rank > best[0]:
            best = (rank, row)
    if best is None or (ttl is not None and best[1].event < at - ttl):
        return None
    return best[1]
