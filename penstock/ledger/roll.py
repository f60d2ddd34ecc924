"""The roll: who may sign, with which key and in which roles, as the ledger's own entries tell it.

Whoever makes the first entry of an empty ledger is enrolled by it, with every role: trust on first
use, as nobody is there yet who could vouch. Everyone else is enrolled by an admin. Being revoked is
an entry too; what was signed before it stays valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.ledger.actors import ADMIN, ROLES, check_name, key_id_of
from penstock.ledger.entry import LedgerError

ENROLLED = "enrolled"
"""Kind of the entries that give an actor a key and roles: body name, public_key, roles."""

REVOKED = "revoked"
"""Kind of the entries after which an actor's signature counts no more: body name, reason."""


class NotEnrolled(LedgerError):
    """The actor cannot sign in this ledger; the text says why and what to do."""


@dataclass(frozen=True)
class Enrolment:
    """What the ledger knows of an actor."""

    name: str
    public_key: str
    roles: frozenset[str]
    revoked: bool = False

    @property
    def key_id(self) -> str:
        """Fingerprint of the public key."""
        return key_id_of(self.public_key)


def enrolment_body(name: str, public_key: str, roles: Iterable[str]) -> dict[str, Any]:
    """Return the body of an entry that enrols.

    Raises:
        ValueError: Name, key or a role is none.
    """
    asked = sorted(set(roles))
    if not asked or not set(asked) <= ROLES:
        raise ValueError(
            f"roles {asked} are not all known; choose from {', '.join(sorted(ROLES))}."
        )
    key_id_of(public_key)
    return {"name": check_name(name), "public_key": public_key, "roles": asked}


@dataclass
class Roll:
    """The actors after some entries; empty before the first."""

    actors: dict[str, Enrolment] = field(default_factory=dict[str, Enrolment])

    def of(self, name: str, key_id: str) -> Enrolment:
        """Return the enrolment that lets this actor sign with this key.

        Raises:
            NotEnrolled: Unknown, revoked, or enrolled with another key.
        """
        known = self.actors.get(name)
        if known is None:
            raise NotEnrolled(
                f"{name} is not enrolled in this ledger; an admin enrols an actor by: penstock "
                f"ledger enrol '{name}' --public-key FILE.pub --role ROLE"
            )
        if known.revoked:
            raise NotEnrolled(
                f"{name} was revoked and cannot sign; an admin can enrol {name} again."
            )
        if known.key_id != key_id:
            raise NotEnrolled(
                f"{name} signs with key {key_id[:12]}, but key {known.key_id[:12]} is enrolled; "
                "name the enrolled key's file in PENSTOCK_KEY, or let an admin enrol the new key."
            )
        return known

    def change(self, kind: str, body: Mapping[str, Any], *, by: str) -> None:
        """Take in an entry that enrols or revokes.

        Raises:
            LedgerError: Its actor is no admin, the key is another actor's, or no admin would be
                left.
        """
        if self.actors and ADMIN not in self.actors[by].roles:
            raise NotEnrolled(f"{by} is no admin; ask one of: {', '.join(self._admins())}.")
        after = self._enrolled(body) if kind == ENROLLED else self._revoked(body)
        changed = Roll({**self.actors, after.name: after})
        if not changed._admins():
            raise LedgerError(f"{after.name} is the last admin; enrol another admin first.")
        self.actors = changed.actors

    def _enrolled(self, body: Mapping[str, Any]) -> Enrolment:
        asked = _enrolment(enrolment_body(body["name"], body["public_key"], body["roles"]))
        for held in self.actors.values():
            if held.key_id == asked.key_id and held.name != asked.name:
                raise LedgerError(
                    f"this key is {held.name}'s; make another for {asked.name}: nobody can be two."
                )
        return asked

    def _revoked(self, body: Mapping[str, Any]) -> Enrolment:
        known = self.actors.get(body["name"])
        if known is None or known.revoked:
            raise LedgerError(f"{body['name']} is not enrolled, so there is nothing to revoke.")
        return replace(known, revoked=True)

    def _admins(self) -> list[str]:
        return [a.name for a in self.actors.values() if ADMIN in a.roles and not a.revoked]


def _enrolment(body: Mapping[str, Any]) -> Enrolment:
    return Enrolment(body["name"], body["public_key"], frozenset(body["roles"]))
