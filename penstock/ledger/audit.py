"""Check a chain entry by entry, in memory that does not grow with its length."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from penstock.ledger.actors import ROLES, signed_by
from penstock.ledger.entry import EMPTY, Head, LedgerError, hash_of, signing_input, text_of
from penstock.ledger.lifecycle import (
    MOVED,
    REGISTERED,
    Stage,
    refused_move,
    refused_reason,
    refused_role,
)
from penstock.ledger.roll import ENROLLED, REVOKED, Enrolment, Roll

SKEW = timedelta(minutes=5)
"""How far the clocks of machines that write may differ: no entry is older than another before it
by more."""

KEEPING = (REGISTERED, "retired")
"""Kinds of the entries that may ask to be kept, by ``keep_until`` in their body."""


class Broken(LedgerError):
    """The chain is not what was appended."""

    def __init__(self, sequence: int, problem: str, said: str) -> None:
        """Name the first entry that is wrong.

        Args:
            problem: ``order``, ``chain``, ``hash``, ``signature``, ``actor``, ``role``, ``time``,
                ``move``, ``form`` or ``end``.
            said: What is wrong with it, for people.
        """
        super().__init__(f"entry {sequence}: {said}")
        self.sequence, self.problem, self.said = sequence, problem, said


@dataclass
class Audit:
    """Takes the rows of a chain in order and stops at the first that is wrong."""

    head: Head = EMPTY
    roll: Roll = field(default_factory=Roll)
    stages: dict[tuple[str, int], Stage] = field(default_factory=dict[tuple[str, int], Stage])
    """Where each moved version stands, by workload and version."""

    registered: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])

    latest: datetime | None = None
    """The latest time that an entry bears."""

    keep_until: str | None = None
    """The latest day until which an entry asks to be kept, as it is written there."""

    known: Head = EMPTY
    """An end that the chain is known to have had; it must still pass through it."""

    def take(self, row: Mapping[str, Any]) -> None:
        """Check one row and go on behind it.

        Raises:
            Broken: The row is not the one that was appended here; the audit stands where it stood.
        """
        self._check_place(row)
        body = self._body(row)
        signer = self._signer(row, body)
        if not signed_by(signer.public_key, row["signature"], signing_input(row["hash"])):
            raise Broken(row["sequence"], "signature", f"{row['actor']} did not sign it.")
        head = Head(row["sequence"], row["hash"])
        if self.known.sequence == head.sequence and self.known != head:
            raise Broken(head.sequence, "chain", "it was replaced: its hash was noted as another.")
        at, keep_until = self._time(row), self._keep_until(row, body)
        self._check_role(row, signer)
        self._check_rules(row, body)
        self.latest, self.keep_until, self.head = at, keep_until, head

    def follow(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the rows from the last one that was taken on, which must still be there.

        Raises:
            Broken: A row is wrong, or the last one that was taken is gone or another.
        """
        rest = iter(rows)
        if self.head != EMPTY:
            found = next(rest, None)
            if found is None or (found["sequence"], found["hash"]) != self.head:
                raise Broken(
                    self.head.sequence, "end", "it is gone or another than when it was read."
                )
        for row in rest:
            self.take(row)

    def copy(self) -> Audit:
        """Return an audit that stands where this one does and goes its own way."""
        return replace(
            self,
            roll=Roll(self.roll.actors),
            stages=dict(self.stages),
            registered=set(self.registered),
        )

    def close(self) -> int:
        """Return the length of the chain that was taken.

        Raises:
            Broken: It ends before an end that it is known to have had.
        """
        if self.head.sequence < self.known.sequence:
            raise Broken(
                self.head.sequence + 1,
                "end",
                f"it is missing, and so is what followed: the chain was seen to reach entry "
                f"{self.known.sequence}.",
            )
        return self.head.sequence

    def _check_place(self, row: Mapping[str, Any]) -> None:
        expected, found = self.head.sequence + 1, row["sequence"]
        if found != expected:
            raise Broken(expected, "order", f"it is missing; entry {found} stands in its place.")
        if row["previous"] != self.head.hash:
            raise Broken(expected, "chain", "it does not follow the entry before it.")
        if row["hash"] != hash_of(row):
            raise Broken(expected, "hash", f"it ({row['kind']}) was edited after it was signed.")

    def _body(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            body: Any = json.loads(row["body"])
            if isinstance(body, dict) and text_of(cast("dict[str, Any]", body)) == row["body"]:
                return cast("dict[str, Any]", body)
        except (ValueError, TypeError, RecursionError):
            pass
        raise Broken(
            row["sequence"], "form", "its body is no JSON object, or not in the canonical form."
        )

    def _signer(self, row: Mapping[str, Any], body: Mapping[str, Any]) -> Enrolment:
        """Return who signed, by what was enrolled before; the first entry vouches for itself."""
        try:
            if self.head == EMPTY:
                return Roll({row["actor"]: _first(row, body)}).of(row["actor"], row["key_id"])
            return self.roll.of(row["actor"], row["key_id"])
        except (LedgerError, ValueError, TypeError) as e:
            raise Broken(row["sequence"], "actor", str(e)) from e

    def _time(self, row: Mapping[str, Any]) -> datetime:
        """Return the latest time with this row's."""
        at = _moment(row, "at", row["at"])
        latest = self.latest or at
        if at < latest - SKEW:
            raise Broken(
                row["sequence"],
                "time",
                f"it is of {at:%Y-%m-%d %H:%M:%S} and follows one of {latest:%Y-%m-%d %H:%M:%S}; "
                f"clocks may differ by {SKEW}, so set the clock of the machine that writes.",
            )
        return max(at, latest)

    def _keep_until(self, row: Mapping[str, Any], body: Mapping[str, Any]) -> str | None:
        """Return until when the chain is to be kept with this row."""
        asked = body.get("keep_until") if row["kind"] in KEEPING else None
        if asked is None:
            return self.keep_until
        day = _moment(row, "keep_until", asked)
        if self.keep_until is not None and _moment(row, "keep_until", self.keep_until) >= day:
            return self.keep_until
        return asked

    def _check_role(self, row: Mapping[str, Any], signer: Enrolment) -> None:
        if row["kind"] in (ENROLLED, REVOKED):
            return
        why = refused_role(signer.name, signer.roles, row["kind"], row["target"])
        if why is not None:
            raise Broken(row["sequence"], "role", why)

    def _check_rules(self, row: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        kind, where = row["kind"], (row["workload"], row["version"])
        if kind in (ENROLLED, REVOKED):
            self._change_roll(row, body)
        elif kind == MOVED:
            self._move(row, body)
        elif kind == REGISTERED:
            if where in self.registered:
                raise Broken(row["sequence"], "move", f"version {where[1]} is registered already.")
            self.registered.add(where)

    def _change_roll(self, row: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        try:
            if row["subject"] != body["name"]:
                raise ValueError(f"it says {body['name']} and means {row['subject']}")
            self.roll.change(row["kind"], body, by=row["actor"])
        except (LedgerError, ValueError, KeyError, TypeError) as e:
            raise Broken(row["sequence"], "actor", f"it changes the roll unduly: {e}") from e

    def _move(self, row: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        where = (row["workload"], row["version"])
        stands, registered = self.stages.get(where, Stage.NONE), where in self.registered
        if row["origin"] != stands or body.get("to") != row["target"]:
            raise Broken(row["sequence"], "move", f"version {where[1]} stood at {stands}.")
        why = refused_move(where[1], stands, row["target"], registered=registered)
        why = why or refused_reason(where[1], body.get("reason"))
        if why is not None:
            raise Broken(row["sequence"], "move", why)
        self.stages[where] = Stage(row["target"])


def _moment(row: Mapping[str, Any], name: str, text: object) -> datetime:
    """Return the time that a field names; a day without a zone is a day in UTC."""
    try:
        read = datetime.fromisoformat(str(text))
    except ValueError:
        raise Broken(row["sequence"], "form", f"its {name} is no time: {text!r}.") from None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _first(row: Mapping[str, Any], body: Mapping[str, Any]) -> Enrolment:
    """Return the enrolment that the first entry makes for its own actor."""
    own = row["kind"] == ENROLLED and row["subject"] == row["actor"] == body.get("name")
    if not own or not ROLES.issuperset(body.get("roles") or [""]):
        raise LedgerError("the first entry must enrol its own actor.")
    return Enrolment(row["actor"], str(body.get("public_key")), frozenset(body["roles"]))


def audit(rows: Iterable[Mapping[str, Any]], *, known: Head = EMPTY) -> Audit:
    """Check a whole chain.

    Raises:
        Broken: Names the first entry that is wrong and what is wrong with it.
    """
    checked = Audit(known=known)
    for row in rows:
        checked.take(row)
    checked.close()
    return checked
