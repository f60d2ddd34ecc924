"""What the table says, asked in the writer's own transaction; no question reads the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from penstock.ledger import schema
from penstock.ledger.actors import Actor
from penstock.ledger.audit import Audit
from penstock.ledger.entry import EMPTY, Draft, Head, LedgerError, entry_of
from penstock.ledger.lifecycle import (
    MOVED,
    REGISTERED,
    Stage,
    refused_archive,
    refused_move,
    refused_reason,
    refused_role,
    serving_order,
)
from penstock.ledger.roll import ENROLLED, REVOKED, NotEnrolled, Roll

_entries = schema.entries
_columns = _entries.c


def rows_of(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """Return what a query of entries finds."""
    return [dict(row) for row in connection.execute(query).mappings()]


def rows_from(
    connection: sa.Connection, sequence: int, count: int | None = None
) -> list[dict[str, Any]]:
    """Return the rows from a place in the chain on, in order; at most so many."""
    query = sa.select(_entries).where(_columns.sequence >= sequence)
    return rows_of(connection, query.order_by(_columns.sequence).limit(count))


def insert(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    """Add a row."""
    connection.execute(_entries.insert().values(**row))


def head_of(connection: sa.Connection) -> Head:
    """Return the last entry's number and hash."""
    query = sa.select(_columns.sequence, _columns.hash).order_by(_columns.sequence.desc()).limit(1)
    found = connection.execute(query).first()
    return EMPTY if found is None else Head(*found)


def hash_at(connection: sa.Connection, sequence: int) -> str | None:
    """Return the hash of an entry, or None where there is none of that number."""
    return connection.scalar(sa.select(_columns.hash).where(_columns.sequence == sequence))


def checked(connection: sa.Connection, draft: Draft, actor: Actor, audited: Audit) -> Draft:
    """Return the draft with the columns that follow from its body.

    Args:
        audited: The chain that the draft is to follow, whole.

    Raises:
        NotEnrolled: The actor cannot sign, or has no role for it.
        LedgerError: The lifecycle does not have it.
    """
    signer = audited.roll.of(actor.name, actor.key_id)
    if draft.kind in (ENROLLED, REVOKED):
        Roll(audited.roll.actors).change(draft.kind, draft.body, by=actor.name)
        return replace(draft, workload="", version=None, subject=draft.body["name"])
    target = str(Stage(draft.body["to"])) if draft.kind == MOVED else None
    why = refused_role(signer.name, signer.roles, draft.kind, target)
    if why is not None:
        raise NotEnrolled(why)
    where = (draft.workload, draft.version)
    if target is not None:
        return _checked_move(connection, replace(draft, target=target), audited)
    if draft.kind == REGISTERED and where in audited.registered:
        raise LedgerError(f"version {draft.version} of {draft.workload} is registered already.")
    return draft


def _checked_move(connection: sa.Connection, draft: Draft, audited: Audit) -> Draft:
    if draft.version is None:
        raise LedgerError("a move names no version; say which one moves.")
    where, target = (draft.workload, draft.version), Stage(str(draft.target))
    origin, registered = audited.stages.get(where, Stage.NONE), where in audited.registered
    why = refused_move(draft.version, origin, target, registered=registered)
    why = why or refused_reason(draft.version, draft.body.get("reason"))
    if why is None and origin is Stage.PRODUCTION and not draft.body.get("override"):
        why = refused_archive(_serving(connection, draft.workload), draft.version)
    if why is not None:
        raise LedgerError(why)
    return replace(draft, origin=str(origin))


def _serving(connection: sa.Connection, workload: str) -> list[int]:
    """Return the versions in production, newest first; only the moves that say so are read."""
    ends = sa.select(_entries).where(
        _columns.workload == workload,
        _columns.kind == MOVED,
        _columns.target.in_((Stage.PRODUCTION, Stage.ARCHIVED)),
    )
    return serving_order(
        [entry_of(row) for row in rows_of(connection, ends.order_by(_columns.sequence))]
    )
