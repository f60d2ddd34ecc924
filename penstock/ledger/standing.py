"""What somebody's signature is worth now: roles are taken away, keys replaced, people revoked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from penstock.ledger.chain import Ledger
from penstock.ledger.roll import REVOKED


class Signed(Protocol):
    """An entry, or what was read from one."""

    @property
    def sequence(self) -> int:
        """Of the entry in the ledger."""
        ...

    @property
    def key_id(self) -> str:
        """Of the key that signed it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the ledger knows of somebody who may sign now."""

    roles: frozenset[str]
    key_id: str
    """Of the key that is enrolled now; what another key signed counts no more."""

    since: int = 0
    """Entry of the last revocation, 0 without one; what was signed before it counts no more."""

    def vouches(self, entry: Signed) -> bool:
        """Return whether an entry of this actor still counts: the key is the same, and trusted."""
        return entry.key_id == self.key_id and entry.sequence > self.since


Standings = Mapping[str, Standing]
"""Of everybody who may sign in a ledger, by name; whoever is revoked is not in it."""


def standings(ledger: Ledger) -> dict[str, Standing]:
    """Return what everybody's signature is worth now.

    Raises:
        Broken: The chain is not whole.
    """
    enrolled = ledger.actors()
    revoked = {e.body["name"]: e.sequence for e in ledger.entries("") if e.kind == REVOKED}
    return {
        held.name: Standing(roles=held.roles, key_id=held.key_id, since=revoked.get(held.name, 0))
        for held in enrolled
        if not held.revoked
    }
