"""Append entries to a hash chain in a SQL table, and find any edit of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from penstock.bundle import stable_form
from penstock.ledger.lifecycle import MOVED, Stage, may_move, stage_of

FIRST = "0" * 64
"""What the first entry carries as the hash of the one before it."""

_metadata = sa.MetaData()
_entries = sa.Table(
    "entries",
    _metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("workload", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
)
for _verb in ("UPDATE", "DELETE"):
    event.listen(
        _entries,
        "after_create",
        sa.DDL(
            f"CREATE TRIGGER entries_no_{_verb.lower()} BEFORE {_verb} ON entries "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        ).execute_if(dialect="sqlite"),  # pyright: ignore[reportArgumentType]
    )


class LedgerError(RuntimeError):
    """The chain was edited, a move does not exist, or another writer was faster."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger."""

    sequence: int
    at: str
    actor: str
    workload: str
    version: int | None
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str


class Ledger:
    """The record of one home: all workloads, one chain."""

    def __init__(self, url: str) -> None:
        """Open or create the table at a SQLAlchemy URL, ``sqlite:///path/to/ledger.db``."""
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(url)
        _metadata.create_all(self._engine)

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def entries(self, workload: str | None = None) -> list[Entry]:
        """Return the entries in order, of one workload or of all."""
        query = sa.select(_entries).order_by(_entries.c.sequence)
        if workload is not None:
            query = query.where(_entries.c.workload == workload)
        with self._engine.connect() as connection:
            return [_entry(dict(row)) for row in connection.execute(query).mappings()]

    def append(
        self,
        *,
        workload: str,
        version: int | None,
        kind: str,
        body: Mapping[str, Any],
        actor: str,
        now: datetime,
    ) -> Entry:
        """Add one entry at the end of the chain.

        Raises:
            LedgerError: The entry moves a version by a step that the lifecycle does not have, or
                another writer appended at the same moment; read again and decide again.
        """
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            query = sa.select(_entries).order_by(_entries.c.sequence)
            rows = connection.execute(query).mappings()
            held = [_entry(dict(row)) for row in rows]
            if kind == MOVED:
                _check_move([e for e in held if e.workload == workload], version, body)
            entry = _next(held, workload, version, kind, body, actor, now)
            values = {**vars(entry), "body": _text(entry.body)}
            try:
                connection.execute(_entries.insert().values(**values))
            except exc.IntegrityError as e:
                raise LedgerError("another writer appended first; read and decide again.") from e
            return entry

    def move(
        self,
        *,
        workload: str,
        version: int,
        to: Stage,
        reason: str,
        actor: str,
        now: datetime,
        evidence: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Move a version one step through the lifecycle, with the reason and its evidence."""
        body = {"to": str(to), "reason": reason, "evidence": dict(evidence or {})}
        return self.append(
            workload=workload, version=version, kind=MOVED, body=body, actor=actor, now=now
        )

    def verify(self) -> int:
        """Check the whole chain and return its length.

        Raises:
            LedgerError: An entry was edited, removed or put in; the text names the first.
        """
        previous = FIRST
        entries = self.entries()
        for expected, entry in enumerate(entries, start=1):
            if entry.sequence != expected:
                raise LedgerError(f"entry {expected} is missing: the next one is {entry.sequence}.")
            if entry.previous != previous or entry.hash != _hash(entry):
                raise LedgerError(f"entry {entry.sequence} ({entry.kind}) was edited.")
            previous = entry.hash
        return len(entries)


def _check_move(held: list[Entry], version: int | None, body: Mapping[str, Any]) -> None:
    if version is None:
        raise LedgerError("a move names no version.")
    origin, target = stage_of(held, version), Stage(body["to"])
    if not may_move(origin, target):
        raise LedgerError(
            f"version {version} cannot go from {origin} to {target}; the order is NONE → STAGING → "
            "SHADOW → CANARY → PRODUCTION, ARCHIVED from any and final."
        )


def _next(
    held: list[Entry],
    workload: str,
    version: int | None,
    kind: str,
    body: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> Entry:
    if now.tzinfo is None:
        raise ValueError(f"{now} has no time zone; pass an aware datetime.")
    entry = Entry(
        sequence=len(held) + 1,
        at=now.isoformat(),
        actor=actor,
        workload=workload,
        version=version,
        kind=kind,
        body=json.loads(_text(body)),
        previous=held[-1].hash if held else FIRST,
        hash="",
    )
    return replace(entry, hash=_hash(entry))


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(stable_form(body), sort_keys=True, separators=(",", ":"))


def _hash(entry: Entry) -> str:
    fields = {**vars(entry), "body": _text(entry.body)}
    del fields["hash"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(**{**row, "body": json.loads(row["body"])})
