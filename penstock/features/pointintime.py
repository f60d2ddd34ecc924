"""Find, for each label row, the newest feature row that was known then. Pure.

A feature row becomes *visible* when it has both happened and become known: at the later of its
event and created timestamps. Sorted by key and that moment, the rows a label may see are the ones
before it, and the one it wants is the newest event among them: a running maximum. One sort, one
search, and no row is ever joined with a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MISSING = -1
"""Position of a label row that no feature row answers; code of a key that nobody asked for."""


AT_ONCE = 1_000_000
"""Feature rows sorted at a time: what bounds the memory, and fits a processor's cache better."""


@dataclass(frozen=True)
class Asked:
    """Label rows, m of them."""

    codes_m: NDArray[np.integer]
    """The entity as a number from 0, or MISSING where its key is null or nobody has it."""

    times_m: Ints
    """The instant each row asks about, in ticks since 1970."""


@dataclass(frozen=True)
class Held:
    """Feature rows of one view, n of them, in the order of their source."""

    codes_n: NDArray[np.integer]
    """The entity, numbered as in the label rows; never MISSING."""

    event_n: Ints
    """When each row happened, in the ticks of the label rows."""

    created_n: Ints | None
    """When each row became known; None where the source does not say."""


def newest_known(asked: Asked, held: Held, *, ttl: int | None, at_once: int = AT_ONCE) -> Ints:
    """Return for each label row the position of its feature row, or MISSING; shape [m].

    Of the rows of the same entity with event and created timestamps at or before the label's, it is
    the one with the newest event; of those, the newest created; of those, the last in the source.
    One whose event is more than ``ttl`` ticks before the label has expired and is missing.

    Args:
        at_once: About how many feature rows to sort at a time. Entities are dealt into that many
            parts, and no part needs another.
    """
    found_m = np.full(len(asked.codes_m), MISSING, np.int64)
    parts = -(-len(held.codes_n) // at_once)
    part_n, part_m = _dealt(held.codes_n, parts), _dealt(asked.codes_m, parts)
    for part in range(parts):
        rows, labels = np.flatnonzero(part_n == part), np.flatnonzero(part_m == part)
        if not len(rows) or not len(labels):
            continue
        created_n = None if held.created_n is None else held.created_n[rows]
        found = _search(
            Asked(asked.codes_m[labels] // parts, asked.times_m[labels]),
            Held(held.codes_n[rows] // parts, held.event_n[rows], created_n),
            ttl,
        )
        hit = found != MISSING
        found_m[labels[hit]] = rows[found[hit]]
    return found_m


def _coarser(asked: Asked, held: Held, ttl: int | None) -> tuple[Asked, Held, int | None]:
    """Return the same in ticks a thousand times longer, as often as nothing is lost by it.

    Whole seconds in nanoseconds leave no room for the entity in 63 bits, and cost a second sort.
    """
    while True:
        times = [asked.times_m, held.event_n, *([] if held.created_n is None else [held.created_n])]
        if (ttl or 0) % 1000 or any(np.any(t[:1000] % 1000) or np.any(t % 1000) for t in times):
            return asked, held, ttl
        if not any(np.any(t) for t in times):
            return asked, held, ttl
        created_n = None if held.created_n is None else held.created_n // 1000
        asked = Asked(asked.codes_m, asked.times_m // 1000)
        held = Held(held.codes_n, held.event_n // 1000, created_n)
        ttl = None if ttl is None else ttl // 1000


def _dealt(codes: NDArray[np.integer], parts: int) -> NDArray[np.uint16]:
    """Return which part each entity belongs to."""
    return (codes % max(1, parts)).astype(np.uint16)


def _search(asked: Asked, held: Held, ttl: int | None) -> Ints:
    """Return the positions for one part of the entities."""
    asked, held, ttl = _coarser(asked, held, ttl)
    codes_m, times_m = asked.codes_m, asked.times_m
    codes_n, event_n, created_n = held.codes_n, held.event_n, held.created_n
    found_m = np.full(len(codes_m), MISSING, np.int64)
    visible_n = event_n if created_n is None else np.maximum(event_n, created_n)
    packed_n, packed_m, span = _packed(codes_n, visible_n, codes_m, times_m)
    order_n = _order(packed_n, event_n, event_n if created_n is None else created_n)
    packed_n, event_n = packed_n[order_n], event_n[order_n]
    by_time = np.argsort(packed_m)
    packed_m, times_m = packed_m[by_time], times_m[by_time]
    at_m = np.searchsorted(packed_n, packed_m, side="right") - 1
    same = (at_m >= 0) & (packed_n[at_m] // span == packed_m // span)
    chosen, labels = at_m[same], np.flatnonzero(same)
    if created_n is not None:
        chosen = _newest(packed_n // span, event_n)[chosen]
    if ttl is not None:
        fresh = event_n[chosen] >= times_m[labels] - ttl
        chosen, labels = chosen[fresh], labels[fresh]
    found_m[by_time[labels]] = order_n[chosen]
    return found_m


def _packed(
    codes_n: NDArray[np.integer], times_n: Ints, codes_m: NDArray[np.integer], times_m: Ints
) -> tuple[Ints, Ints, int]:
    """Return entity and time of both sides as one number each, and what to divide by for the code.

    Times become offsets; where offset and code do not fit 63 bits together, they become ranks.
    """
    first, last = int(min(times_n.min(), times_m.min())), int(max(times_n.max(), times_m.max()))
    entities = int(max(codes_n.max(), codes_m.max())) + 1
    offset_n, offset_m, span = times_n - first, times_m - first, last - first + 1
    if entities * span >= 2**63:
        by_time = np.argsort(offset_n)
        moments = offset_n[by_time]
        new = np.concatenate([[True], moments[1:] != moments[:-1]])
        offset_n = np.empty(len(by_time), np.int64)
        offset_n[by_time] = np.cumsum(new)
        offset_m = np.searchsorted(moments[new], offset_m, side="right")
        span = int(new.sum()) + 1
    return codes_n * np.int64(span) + offset_n, codes_m * np.int64(span) + offset_m, span


def _order(packed_n: Ints, event_n: Ints, created_n: Ints) -> Ints:
    """Return positions by entity, visible moment, event, created, source order."""
    order_n = np.argsort(packed_n)
    sorted_n = packed_n[order_n]
    tied = np.flatnonzero(sorted_n[1:] == sorted_n[:-1])
    if len(tied):
        # The fast sort leaves ties in any order; there are few, and they are sorted again.
        inside = np.union1d(tied, tied + 1)
        rows = order_n[inside]
        again = np.lexsort((rows, created_n[rows], event_n[rows], packed_n[rows]))
        order_n[inside] = rows[again]
    return order_n


def _newest(codes_n: Ints, event_n: Ints) -> Ints:
    """Return for each row, in order, the position of the newest event of its entity so far.

    Rows of one entity with equal events stand in the order of their created timestamps, so the last
    row that reaches the running maximum is the right one.
    """
    first, span = int(event_n.min()), int(event_n.max()) - int(event_n.min()) + 1
    offset_n = event_n - first
    if (int(codes_n[-1]) + 1) * span >= 2**63:
        moments, offset_n = np.unique(event_n, return_inverse=True)
        span = len(moments)
    reached_n = codes_n * span + offset_n
    newest_n = np.maximum.accumulate(reached_n)
    record_n = np.where(reached_n == newest_n, np.arange(len(codes_n)), 0)
    return np.maximum.accumulate(record_n)
