"""What the table says, asked in the writer's own transaction; no question reads the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from penstock.ledger import schema
from penstock.ledger.actors import Actor
from penstock.ledger.entry import EMPTY, Draft, Head, LedgerError, entry_of
from penstock.ledger.lifecycle import (
    MOVED,
    REGISTERED,
    Stage,
    refused_archive,
    refused_move,
    serving_order,
)
from penstock.ledger.roll import ENROLLED, REVOKED, Roll

_entries = schema.entries
_columns = _entries.c


def rows_of(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """Return what a query of entries finds."""
    return [dict(row) for row in connection.execute(query).mappings()]


def insert(connection: sa.Connection, row: Mapping[str, Any]) -> Head:
    """Add a row and return the head that it makes."""
    connection.execute(_entries.insert().values(**row))
    return Head(row["sequence"], row["hash"])


def head_of(connection: sa.Connection) -> Head:
    """Return the last entry's number and hash."""
    query = sa.select(_columns.sequence, _columns.hash).order_by(_columns.sequence.desc()).limit(1)
    found = connection.execute(query).first()
    return EMPTY if found is None else Head(*found)


def hash_at(connection: sa.Connection, sequence: int) -> str | None:
    """Return the hash of an entry, or None where there is none of that number."""
    return connection.scalar(sa.select(_columns.hash).where(_columns.sequence == sequence))


def roll_of(connection: sa.Connection, name: str | None = None) -> Roll:
    """Return the roll of everyone, or of one actor alone; only entries about actors are read."""
    query = sa.select(_entries).where(_columns.subject.is_not(None))
    if name is not None:
        query = query.where(_columns.subject == name)
    roll = Roll()
    for row in rows_of(connection, query.order_by(_columns.sequence)):
        roll.take(row["kind"], entry_of(row).body)
    return roll


def checked(connection: sa.Connection, draft: Draft, actor: Actor) -> Draft:
    """Return the draft with the columns that follow from its body.

    Raises:
        LedgerError: The actor cannot sign it, or the lifecycle does not have it.
    """
    about_actors = draft.kind in (ENROLLED, REVOKED)
    roll = roll_of(connection, None if about_actors else actor.name)
    roll.of(actor.name, actor.key_id)
    if about_actors:
        roll.change(draft.kind, draft.body, by=actor.name)
        return replace(draft, workload="", version=None, subject=draft.body["name"])
    if draft.kind == MOVED:
        return _checked_move(connection, draft)
    if draft.kind == REGISTERED and _registered(connection, draft):
        raise LedgerError(f"version {draft.version} of {draft.workload} is registered already.")
    return draft


def _checked_move(connection: sa.Connection, draft: Draft) -> Draft:
    if draft.version is None:
        raise LedgerError("a move names no version; say which one moves.")
    moves = sa.select(_entries).where(_columns.workload == draft.workload, _columns.kind == MOVED)
    last = moves.where(_columns.version == draft.version).order_by(_columns.sequence.desc())
    stood = rows_of(connection, last.limit(1))
    origin = Stage(stood[0]["target"]) if stood else Stage.NONE
    target = Stage(draft.body["to"])
    why = refused_move(draft.version, origin, target, registered=_registered(connection, draft))
    if why is None and origin is Stage.PRODUCTION and not draft.body.get("override"):
        ends = moves.where(_columns.target.in_((Stage.PRODUCTION, Stage.ARCHIVED)))
        held = [entry_of(row) for row in rows_of(connection, ends.order_by(_columns.sequence))]
        why = refused_archive(serving_order(held), draft.version)
    if why is not None:
        raise LedgerError(why)
    return replace(draft, origin=str(origin), target=str(target))


def _registered(connection: sa.Connection, draft: Draft) -> bool:
    query = sa.select(_columns.sequence).where(
        _columns.workload == draft.workload,
        _columns.version == draft.version,
        _columns.kind == REGISTERED,
    )
    return connection.execute(query.limit(1)).first() is not None
