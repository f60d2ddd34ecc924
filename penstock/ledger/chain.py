"""Append signed entries to a hash chain in a SQL table, and read them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from penstock.ledger import schema, store
from penstock.ledger.actors import ROLES, Actor
from penstock.ledger.anchor import Anchor, anchor_of
from penstock.ledger.audit import Audit, audit
from penstock.ledger.database import Database
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

_entries = schema.entries
_columns = _entries.c


class Ledger:
    """The record of one home: all workloads, one chain.

    What it says was checked: the whole chain at the first question, and then what came since.
    """

    def __init__(self, url: str, *, head: Path | None = None, looking: bool = False) -> None:
        """Open or create the table at a SQLAlchemy URL.

        ``sqlite:///path/to/ledger.db`` or ``postgresql+psycopg://user@host/database``.

        Args:
            head: File in which the end of the chain is noted; by default the one that
                ``PENSTOCK_LEDGER_HEAD`` names, or ``ledger.head`` beside a SQLite file.
            looking: Only look, at a ledger that may be broken: none is created, its guards may be
                gone (``unguarded`` says so), and nothing can be appended.

        Raises:
            NoLedger: There is none, and it was to be looked at.
            LedgerError: The database does not answer, its ledger is of another release, or its
                guards are gone.
        """
        self._looking = looking
        self._audited, self._alone = Audit(), threading.Lock()
        self._kept: dict[str | None, tuple[int, list[Entry]]] = {}
        self._anchor = anchor_of(url) if head is None else Anchor(head)
        self._database = Database(url, looking=looking)

    def close(self) -> None:
        """Release the connections."""
        self._database.close()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the whole chain as rows, a batch in memory at a time."""
        return self._rows_from(0)

    def _rows_from(self, sequence: int) -> Iterator[dict[str, Any]]:
        while True:
            with self._database.reading() as connection:
                batch = store.rows_from(connection, sequence, BATCH)
            yield from batch
            if len(batch) < BATCH:
                return
            sequence = batch[-1]["sequence"] + 1

    def entries(self, workload: str | None = None) -> list[Entry]:
        """Return the entries in order, of one workload or of all.

        Raises:
            Broken: The chain is not whole; names the first entry that is wrong.
        """
        end = self._follow().head.sequence
        # What was audited never changes, so only what came since is read: a controller asks for
        # all of it several times a second.
        known, kept = self._kept.get(workload, (0, []))
        if known < end:
            kept = [*kept, *self._between(known, end, workload)]
            self._kept[workload] = end, kept
        return list(kept)

    def _between(self, after: int, end: int, workload: str | None) -> Iterator[Entry]:
        query = sa.select(_entries).where(_columns.sequence.between(after + 1, end))
        if workload is not None:
            query = query.where(_columns.workload == workload)
        with self._database.reading() as connection:
            for row in store.rows_of(connection, query.order_by(_columns.sequence)):
                yield entry_of(row)

    def head(self) -> Head:
        """Return the end of the chain."""
        with self._database.reading() as connection:
            return store.head_of(connection)

    def known(self) -> Head:
        """Return the end that the chain is known to have had, by its anchor."""
        return self._anchor.read()

    @property
    def anchor(self) -> Path | None:
        """The file in which the end of the chain is noted, where one is."""
        return self._anchor.path

    def unguarded(self) -> list[str]:
        """Return the guards of the table that are gone or another than they were made."""
        return self._database.unguarded()

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
            NotEnrolled: The actor is unknown or revoked, signs with another key, or has no role
                that may write this.
            Broken: The chain is not whole, or the entry would not be taken by an audit.
            LedgerError: The entry moves a version by a step that the lifecycle does not have,
                entries were removed from the chain's end, or its end cannot be noted.
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
        """Return everyone who is or was enrolled.

        Raises:
            Broken: The chain is not whole.
        """
        return list(self._follow().roll.actors.values())

    def roles(self, name: str) -> frozenset[str]:
        """Return the roles of an actor; none where it is unknown or revoked.

        Raises:
            Broken: The chain is not whole.
        """
        known = self._follow().roll.actors.get(name)
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
        if self._looking:
            raise LedgerError("this ledger was opened to look at it; open it to write.")
        self._anchor.probe()
        if self._audited.head == EMPTY:
            # The long way once, while others may write; under their lock only what came since.
            self._follow()
        row, after = self._database.write(lambda c: self._appended(c, draft, actor, now, expect))
        with self._alone:
            if self._audited.head.sequence < after.head.sequence:
                self._audited = after
        self._anchor.note(after.head)
        return entry_of(row)

    def _appended(
        self,
        connection: sa.Connection,
        draft: Draft,
        actor: Actor,
        now: datetime,
        expect: int | None,
    ) -> tuple[dict[str, Any], Audit]:
        """Add a draft behind the head, and before it the first entry where there is none.

        Return its row and the audit behind it, which counts once the transaction has ended.
        """
        self._check_end(connection, self.known())
        audited = self._audited.copy()
        audited.follow(store.rows_from(connection, audited.head.sequence))
        head = audited.head
        if expect is not None and head.sequence != expect:
            raise Conflict(
                f"decided at entry {expect}, but the ledger is at {head.sequence}: read again and "
                "decide again."
            )
        if head == EMPTY:
            body = enrolment_body(actor.name, actor.public_key, ROLES)
            first = Draft(workload="", version=None, kind=ENROLLED, body=body, subject=actor.name)
            row = sealed(first, after=head, actor=actor, now=now)
            audited.take(row)
            store.insert(connection, row)
        drafted = store.checked(connection, draft, actor, audited)
        row = sealed(drafted, after=audited.head, actor=actor, now=now)
        # What is written is what any reader will take.
        audited.take(row)
        store.insert(connection, row)
        return row, audited

    def _follow(self) -> Audit:
        """Return the audit of the chain as it is now.

        Raises:
            Broken: An entry since the last one that was audited is wrong.
            LedgerError: Entries are gone from its end.
        """
        # The note first: it may only say less than the table that is read after it.
        known = self.known()
        with self._alone:
            audited = self._audited.copy()
            audited.follow(self._rows_from(audited.head.sequence))
            self._audited = audited
        with self._database.reading() as connection:
            self._check_end(connection, known)
        return audited

    def _check_end(self, connection: sa.Connection, known: Head) -> None:
        """Refuse to go on where entries are gone: the next note would hide it."""
        if known == EMPTY:
            return
        if store.hash_at(connection, known.sequence) != known.hash:
            raise LedgerError(
                f"{self._anchor.path} says that the ledger reached entry {known.sequence}, but "
                "that entry is gone or another; the table ends at "
                f"{store.head_of(connection).sequence}. Bring the table back from its copy. To "
                "begin a new ledger on purpose, move that file away."
            )
