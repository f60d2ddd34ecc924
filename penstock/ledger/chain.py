"""Append signed entries to a hash chain in a SQL table, and read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from penstock.ledger import schema, store
from penstock.ledger.actors import ROLES, Actor
from penstock.ledger.anchor import anchor_of
from penstock.ledger.audit import Audit, audit
from penstock.ledger.entry import (
    EMPTY,
    Conflict,
    Draft,
    Entry,
    Head,
    LedgerError,
    entry_of,
    sealed,
)
from penstock.ledger.lifecycle import MOVED, Stage
from penstock.ledger.roll import ENROLLED, REVOKED, Enrolment, enrolment_body

BATCH = 500
"""Entries read at a time: a reader never holds writers up for longer than one batch takes."""

_T = TypeVar("_T")
_entries = schema.entries
_columns = _entries.c


class Ledger:
    """The record of one home: all workloads, one chain."""

    def __init__(self, url: str) -> None:
        """Open or create the table at a SQLAlchemy URL.

        ``sqlite:///path/to/ledger.db`` or ``postgresql+psycopg://user@host/database``. The end of
        the chain is noted in ``ledger.head`` beside a SQLite file, or where
        ``PENSTOCK_LEDGER_HEAD`` says.

        Raises:
            LedgerError: The database does not answer, or its ledger is of another release.
        """
        self._engine = schema.connected(url)
        self._anchor = anchor_of(url)
        try:
            with self._reading() as connection:
                there = schema.there(connection)
            if not there:
                self._write(schema.create)
        except LedgerError:
            self.close()
            raise

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the whole chain as rows, a batch in memory at a time."""
        last = 0
        while True:
            query = sa.select(_entries).where(_columns.sequence > last).limit(BATCH)
            with self._reading() as connection:
                batch = store.rows_of(connection, query.order_by(_columns.sequence))
            yield from batch
            if len(batch) < BATCH:
                return
            last = batch[-1]["sequence"]

    def entries(self, workload: str | None = None) -> list[Entry]:
        """Return the entries in order, of one workload or of all."""
        query = sa.select(_entries).order_by(_columns.sequence)
        if workload is not None:
            query = query.where(_columns.workload == workload)
        with self._reading() as connection:
            return [entry_of(row) for row in store.rows_of(connection, query)]

    def head(self) -> Head:
        """Return the end of the chain."""
        with self._reading() as connection:
            return store.head_of(connection)

    def known(self) -> Head:
        """Return the end that the chain is known to have had, by its anchor."""
        return self._anchor.read()

    def append(
        self,
        *,
        workload: str,
        version: int | None,
        kind: str,
        body: Mapping[str, Any],
        actor: Actor,
        now: datetime,
        expect: int | None = None,
    ) -> Entry:
        """Add one entry, signed by the actor, at the end of the chain.

        The first entry of an empty ledger is preceded by one that enrols its actor with every role.

        Writers queue, so that without ``expect`` it has its place behind whoever was faster.

        Args:
            expect: The head's sequence that the caller decided on; None to append after any.

        Raises:
            Conflict: Another writer appended since ``expect``; read again and decide again.
            NotEnrolled: The actor is unknown or revoked, or signs with another key.
            LedgerError: The entry moves a version by a step that the lifecycle does not have, or
                entries were removed from the chain's end.
        """
        draft = Draft(workload=workload, version=version, kind=kind, body=body)
        return self._append(draft, actor, now, expect)

    def move(
        self,
        *,
        workload: str,
        version: int,
        to: Stage,
        reason: str,
        actor: Actor,
        now: datetime,
        evidence: Mapping[str, Any] | None = None,
        override: str = "",
        expect: int | None = None,
    ) -> Entry:
        """Move a version one step through the lifecycle, with the reason and its evidence.

        Args:
            override: Why a version is archived that should stay deployable; kept in the entry.
        """
        body = {"to": str(to), "reason": reason, "evidence": dict(evidence or {})}
        if override:
            body["override"] = override
        return self.append(
            workload=workload,
            version=version,
            kind=MOVED,
            body=body,
            actor=actor,
            now=now,
            expect=expect,
        )

    def enrol(
        self, *, name: str, public_key: str, roles: Iterable[str], actor: Actor, now: datetime
    ) -> Entry:
        """Let someone sign from now on; again for a known name, to change its key or roles.

        Raises:
            LedgerError: ``actor`` is no admin, or the key is another actor's.
        """
        body = enrolment_body(name, public_key, roles)
        return self.append(
            workload="", version=None, kind=ENROLLED, body=body, actor=actor, now=now
        )

    def revoke(self, *, name: str, reason: str, actor: Actor, now: datetime) -> Entry:
        """Let someone sign no more; what they signed stays.

        Raises:
            LedgerError: ``actor`` is no admin, nobody of this name is enrolled, or they are the
                last admin.
        """
        body = {"name": name, "reason": reason}
        return self.append(workload="", version=None, kind=REVOKED, body=body, actor=actor, now=now)

    def actors(self) -> list[Enrolment]:
        """Return everyone who is or was enrolled."""
        with self._reading() as connection:
            return list(store.roll_of(connection).actors.values())

    def roles(self, name: str) -> frozenset[str]:
        """Return the roles of an actor; none where it is unknown or revoked."""
        with self._reading() as connection:
            known = store.roll_of(connection, name).actors.get(name)
        return frozenset() if known is None or known.revoked else known.roles

    def audit(self, head: Head | None = None) -> Audit:
        """Check the whole chain and return what was learned on the way.

        Args:
            head: An end that it is known to have had; what the anchor says by default.

        Raises:
            Broken: An entry was edited, removed, replaced, reordered or put in; names the first.
        """
        return audit(self.rows(), known=self.known() if head is None else head)

    def verify(self, head: Head | None = None) -> int:
        """Check the whole chain as ``audit`` does and return its length."""
        return self.audit(head).head.sequence

    def _append(self, draft: Draft, actor: Actor, now: datetime, expect: int | None) -> Entry:
        row = self._write(lambda connection: self._appended(connection, draft, actor, now, expect))
        self._anchor.write(Head(row["sequence"], row["hash"]))
        return entry_of(row)

    def _appended(
        self,
        connection: sa.Connection,
        draft: Draft,
        actor: Actor,
        now: datetime,
        expect: int | None,
    ) -> dict[str, Any]:
        """Add a draft behind the head, and before it the first entry where there is none."""
        head = store.head_of(connection)
        if expect is not None and head.sequence != expect:
            raise Conflict(
                f"decided at entry {expect}, but the ledger is at {head.sequence}: read again and "
                "decide again."
            )
        self._check_end(connection, head)
        if head == EMPTY:
            body = enrolment_body(actor.name, actor.public_key, ROLES)
            first = Draft(workload="", version=None, kind=ENROLLED, body=body, subject=actor.name)
            head = store.insert(connection, sealed(first, after=head, actor=actor, now=now))
        drafted = store.checked(connection, draft, actor)
        row = sealed(drafted, after=head, actor=actor, now=now)
        store.insert(connection, row)
        return row

    def _check_end(self, connection: sa.Connection, head: Head) -> None:
        """Refuse to write on where entries are gone: the next note would hide it."""
        known = self.known()
        if known == EMPTY:
            return
        if store.hash_at(connection, known.sequence) != known.hash:
            raise LedgerError(
                f"{self._anchor.path} says that the ledger reached entry {known.sequence}, but "
                f"that entry is gone or another; the table ends at {head.sequence}. Bring the "
                "table back from its copy. To begin a new ledger on purpose, move that file away."
            )

    def _write(self, change: Callable[[sa.Connection], _T]) -> _T:
        """Carry out a change in a transaction of its own, after every other writer's."""
        try:
            with self._reading() as connection, connection.begin():
                schema.lock(connection)
                return change(connection)
        except exc.IntegrityError as e:
            said = str(e.orig).splitlines()[0]
            raise LedgerError(f"the database refused the entry: {said}.") from e

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.OperationalError as e:
            url = self._engine.url.render_as_string()
            said = " ".join(str(e.orig).split())
            raise LedgerError(f"the ledger at {url} does not answer: {said}") from e
