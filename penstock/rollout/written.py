"""The route file: every market's table, read and changed as one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from penstock.release import EVERYWHERE
from penstock.rollout.ports import Stale, TableError
from penstock.rollout.routing import held, routes
from penstock.rollout.table import TrafficTable
from penstock.rollout.watchdog import returned

FIRST = TrafficTable(sequence=0, salt="", champion="a", challenger=None, buckets=0, mirror=None)
"""Everybody on slot a."""

LOCKED_S = 2.0
"""Longest wait for whoever writes a table just now, which takes milliseconds."""


def tables(path: Path) -> dict[str, TrafficTable]:
    """Return the tables of a route file, by market."""
    return _read(path)[0]


def written(path: Path, market: str = EVERYWHERE) -> TrafficTable:
    """Return a market's table of a route file."""
    return of_market(tables(path), market)


def of_market(tables: Mapping[str, TrafficTable], market: str) -> TrafficTable:
    """Return the table that a market's users are under: its own, or that of everybody."""
    own = tables.get(market)
    return replace(tables[EVERYWHERE], market=market) if own is None else own


def first(path: Path) -> list[TrafficTable]:
    """Return the tables to begin with, that of everybody first: those of before, without releases.

    Their numbers are higher than any of before, so that whoever wrote those is behind. Where none
    can be read, everybody is on slot a.
    """
    try:
        found = tables(path)
        before = [found.pop(EVERYWHERE), *found.values()]
    except (OSError, ValueError, LookupError, TypeError):
        return [FIRST]
    sequence = 1 + max(table.sequence for table in before)
    return [replace(returned(table), sequence=sequence) for table in before]


def apply(path: Path, table: TrafficTable) -> None:
    """Write a market's table into the route file by rename; those of other markets stay.

    Raises:
        Stale: The file holds a table of this market with this sequence or a higher one: somebody
            newer has written since, and this caller must read again before it acts.
        TableError: Somebody has been writing for longer than that ever takes.
    """
    try:
        with FileLock(path.parent.parent / "routes.lock", timeout=LOCKED_S):
            _apply(path, table)
    except Timeout as e:
        raise TableError(
            f"{e.lock_file} is held for {LOCKED_S:.0f} s; a process that writes tables hangs."
        ) from e


def _apply(path: Path, table: TrafficTable) -> None:
    found, timeout_ms = _read(path)
    before = of_market(found, table.market)
    if found.get(table.market) == table:
        return
    if table.sequence <= before.sequence:
        raise Stale(
            f"table {table.sequence} of market {table.market} comes after table {before.sequence} "
            "was written; read the table in force and decide again."
        )
    changed = {**found, table.market: table}
    _replace(path, json.dumps(routes(changed.values(), timeout_ms=timeout_ms)))


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, and wait for no disk: a rollback may be waiting.

    What a machine that loses its power forgets here nobody needs: Envoy starts anew then.
    """
    part = path.with_name(f".part-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, TrafficTable], float]:
    return held(json.loads(path.read_text(encoding="utf-8"))["resources"][0])
