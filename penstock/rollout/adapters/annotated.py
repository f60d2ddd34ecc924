"""Traffic tables inside a cluster's objects: kept as an annotation, compared with what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.server import Object
from penstock.rollout.ports import Stale, TableError
from penstock.rollout.table import BUCKETS, TrafficTable

TABLES = "penstock.io/tables"
"""Annotation with the tables of all markets; its sequences are the fence."""

Tables = dict[str, TrafficTable]
"""By market; always with :data:`EVERYWHERE`."""


def annotation(tables: Mapping[str, TrafficTable]) -> dict[str, str]:
    """Return the annotation that keeps tables."""
    return {TABLES: json.dumps({m: t.to_dict() for m, t in tables.items()}, sort_keys=True)}


def tables_of(found: Object) -> Tables:
    """Return the tables that an object keeps.

    Raises:
        TableError: It keeps none, or none that can be read.
    """
    metadata = found.get("metadata", {})
    annotations = cast("dict[str, str]", metadata.get("annotations") or {})
    text = annotations.get(TABLES)
    name = f"{found.get('kind', 'object')} {metadata.get('name', '')}"
    if text is None:
        raise TableError(
            f"{name} keeps no table ({TABLES}); create it as docs/how-to/release-on-a-cluster.md "
            "says, or put the annotation back."
        )
    try:
        held = {m: TrafficTable.from_dict(t) for m, t in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError) as e:
        raise TableError(f"{name} keeps what is no table ({TABLES}): {e}") from e
    if EVERYWHERE not in held or any(m != t.market for m, t in held.items()):
        raise TableError(f"{name} keeps tables of {', '.join(held)}; {EVERYWHERE!r} must be there.")
    return held


def table_of(tables: Mapping[str, TrafficTable], market: str) -> TrafficTable:
    """Return a market's table; one that has none goes by everybody's, with nobody exposed."""
    found = tables.get(market)
    if found is not None:
        return found
    everybody = tables[EVERYWHERE]
    return replace(
        everybody,
        market=market,
        sequence=0,
        champion=everybody.champion,
        challenger=None,
        buckets=0,
        mirror=None,
        trickle=None,
    )


def fence(tables: Mapping[str, TrafficTable], table: TrafficTable) -> None:
    """Refuse a table that is not after its market's; the very one that is there may come again.

    Raises:
        Stale: A table of its sequence or a higher one is there.
    """
    held = tables.get(table.market)
    if held is not None and held != table and held.sequence >= table.sequence:
        raise _late(table, held)


def overtaken(tables: Mapping[str, TrafficTable], table: TrafficTable) -> None:
    """Refuse a table where an object beside the fence keeps a later one.

    One of the same sequence is what a controller left that lost the race for the fence.

    Raises:
        Stale: A table of a higher sequence is there.
    """
    held = tables.get(table.market)
    if held is not None and held.sequence > table.sequence:
        raise _late(table, held)


def _late(table: TrafficTable, held: TrafficTable) -> Stale:
    return Stale(
        f"table {table.sequence} of {table.market!r} comes after table {held.sequence}; read "
        "again and decide again."
    )


def newest(one: Mapping[str, TrafficTable], other: Mapping[str, TrafficTable]) -> Tables:
    """Return of each market the table of the higher sequence; of equal ones the first's."""
    found = dict(other)
    for market, table in one.items():
        if market not in found or found[market].sequence <= table.sequence:
            found[market] = table
    return found


def in_order(tables: Mapping[str, TrafficTable]) -> list[TrafficTable]:
    """Return tables by market, that of everybody last: the first that names a user counts."""
    return sorted(tables.values(), key=lambda table: (table.market == EVERYWHERE, table.market))


def exposes_nobody(held: TrafficTable, table: TrafficTable) -> bool:
    """Return whether a table sends no user to a slot that the one before did not send them to.

    The champion of before may have anybody back, and a table without a challenger anybody.
    """
    if table.buckets == 0:
        return True
    return all(
        table.slot_for(bucket) in (held.slot_for(bucket), held.champion)
        for bucket in range(BUCKETS)
    )


def different(wanted: Any, found: Any, at: str) -> Iterator[str]:
    """Yield what is otherwise than wanted, by its path: one sentence each."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        one, other = cast("Object", wanted), cast("Object", found)
        for name in sorted({*one, *other}):
            yield from different(one.get(name), other.get(name), f"{at}.{name}")
    elif isinstance(wanted, list) and isinstance(found, list):
        these, those = cast("list[Any]", wanted), cast("list[Any]", found)
        if len(these) != len(those):
            yield f"{at} has {len(those)} entries, not {len(these)}"
        for n, (one, other) in enumerate(zip(these, those, strict=False)):
            yield from different(one, other, f"{at}[{n}]")
    elif wanted != found:
        yield f"{at} is {_said(found)}, not {_said(wanted)}"


def _said(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
