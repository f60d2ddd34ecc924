r"""Entries: what a line of the ledger holds, which bytes are hashed and which are signed.

Hashed (SHA-256) is the canonical encoding of an entry: one JSON object with all of its fields but
``hash`` and ``signature``, keys sorted, no spaces, everything outside ASCII as ``\uXXXX``. The body
is in it as a string: the JSON text of the body, written by the same rules. Numbers are written as
Python writes them, the shortest digits that read back as the same number. ``previous`` is the hash
of the entry before, which makes the chain.

Signed (Ed25519) are the bytes ``penstock ledger entry 1`` and a zero byte, then the 32 bytes of the
hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from penstock.bundle import stable_form
from penstock.ledger.actors import Actor

FIRST = "0" * 64
"""What the first entry carries as the hash of the one before it."""

SIGNING = b"penstock ledger entry 1\0"
"""Keeps a signature over an entry from being one over anything else."""


class LedgerError(RuntimeError):
    """The ledger does not take the entry, or is not whole; the text says why and what to do."""


class NoLedger(LedgerError):
    """There is no ledger to look at; the text says where it was looked for."""


class Conflict(LedgerError):
    """Another writer was faster; read again and decide again."""


class Head(NamedTuple):
    """The end of the chain: the last entry's number and hash."""

    sequence: int
    hash: str


EMPTY = Head(0, FIRST)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger."""

    sequence: int
    """1 for the first; without gaps."""

    at: str
    """When, ISO 8601 in UTC."""

    actor: str
    """Who signed it."""

    key_id: str
    """Fingerprint of the public key that the signature is checked with."""

    workload: str
    """Empty where the entry is about the ledger's own actors."""

    version: int | None
    kind: str
    subject: str | None
    """The actor that the entry enrols or revokes."""

    origin: str | None
    """Stage that a move begins at."""

    target: str | None
    """Stage that a move ends at."""

    body: Mapping[str, Any]
    previous: str
    hash: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is to be entered, before it has a place in the chain."""

    workload: str
    version: int | None
    kind: str
    body: Mapping[str, Any]
    subject: str | None = None
    origin: str | None = None
    target: str | None = None


def sealed(draft: Draft, *, after: Head, actor: Actor, now: datetime) -> dict[str, Any]:
    """Return the row of a draft in its place: hashed and signed.

    Raises:
        ValueError: The time has no zone.
        TypeError: The body has no stable form.
    """
    if now.tzinfo is None:
        raise ValueError(f"{now} has no time zone; pass an aware datetime.")
    row: dict[str, Any] = {
        **vars(draft),
        "body": text_of(draft.body),
        "sequence": after.sequence + 1,
        "at": now.astimezone(UTC).isoformat(),
        "actor": actor.name,
        "key_id": actor.key_id,
        "previous": after.hash,
    }
    row["hash"] = hash_of(row)
    row["signature"] = actor.sign(signing_input(row["hash"]))
    return row


def hash_of(row: Mapping[str, Any]) -> str:
    """Return the hash of a row's canonical encoding, hex digits."""
    fields = {k: v for k, v in row.items() if k not in ("hash", "signature")}
    return hashlib.sha256(canonical(fields).encode("ascii")).hexdigest()


def signing_input(hash_: str) -> bytes:
    """Return the bytes that are signed for an entry of this hash."""
    return SIGNING + bytes.fromhex(hash_)


def text_of(body: Mapping[str, Any]) -> str:
    """Return a body's canonical text.

    Raises:
        TypeError: Something in it has no stable form: a function, a set, not a number.
    """
    return canonical(stable_form(body))


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Return the entry of a row, whose body is text."""
    return Entry(**{**row, "body": json.loads(row["body"])})


def line_of(row: Mapping[str, Any]) -> str:
    """Return a row as a line of an export: as it is hashed, but with the body as an object."""
    return canonical({**row, "body": json.loads(row["body"])})


def row_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of what ``line_of`` wrote, read as JSON.

    Raises:
        ValueError: The fields are not those of an entry.
    """
    if set(fields) != set(Entry.__dataclass_fields__):
        raise ValueError("it has other fields than an entry")
    return {**fields, "body": canonical(fields["body"])}


def canonical(value: object) -> str:
    """Return a value's one JSON text: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
