"""The served-feature log: one JSON line per look-up, and its rows as a table.

A line holds ``at`` (ISO time), ``service``, ``definitions`` (hash of the feature definitions),
``entity``, ``values`` (by feature) and ``stale`` (features that were older than their limit). A
last line without its newline is still being written and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.online.layout import Layout, OnlineError
from penstock.online.lookup import Found

_WANTED = {"at": str, "definitions": str, "values": dict}


@dataclass(frozen=True, kw_only=True)
class Served:
    """What was served."""

    rows: pa.Table
    """A column per feature, a row per look-up."""

    definitions: frozenset[str]
    """Hashes of the feature definitions it was served by."""


def line_of(
    layout: Layout, entity: Mapping[str, Any], found: Found, at: datetime
) -> dict[str, Any]:
    """Return the line of one look-up."""
    return {
        "at": at.isoformat(),
        "service": layout.service,
        "definitions": layout.definitions,
        "entity": dict(entity),
        "values": found.values,
        "stale": list(found.stale),
    }


def read_served(path: Path) -> Served:
    """Return what a log holds.

    Raises:
        OnlineError: There is no such file, or a line is not one of this log.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise OnlineError(f"the served-feature log {path} cannot be read: {e}") from e
    rows: list[Mapping[str, Any]] = []
    definitions: set[str] = set()
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        held = _parsed(line, path, number)
        rows.append(held["values"])
        definitions.add(held["definitions"])
    return Served(rows=_table(rows, path), definitions=frozenset(definitions))


def _parsed(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        held = json.loads(line)
    except json.JSONDecodeError as e:
        raise OnlineError(f"{path}, line {number}, is no JSON document: {e}") from e
    said: dict[str, Any] = held if isinstance(held, dict) else {}
    for name, kind in _WANTED.items():
        if not isinstance(said.get(name), kind):
            raise OnlineError(
                f"{path}, line {number}, is no line of served features: {name!r} must be a "
                f"{kind.__name__}."
            )
    return said


def _table(rows: Sequence[Mapping[str, Any]], path: Path) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
        raise OnlineError(f"{path}: a feature has values of several types: {e}") from e
