"""Independence: who may say yes to a release without having a part in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from penstock.ledger import REGISTERED, Entry
from penstock.ledger.standing import Standings
from penstock.rollout.state import OPENED

APPROVER, OWNER = "approver", "owner"
CONTRACT = "contract"
"""Kind of the entry by which the owner signs what the features of a workload are."""


def dependent(
    name: str, *, release: str, version: int, entries: Sequence[Entry], roles: Standings
) -> str:
    """Return why somebody is no independent approver of a release; empty where they are one.

    Independent is who holds the role, does not answer for the workload, did not make the version
    and did not open the release.

    Raises:
        LookupError: The ledger does not know the release.
    """
    held = roles[name].roles if name in roles else frozenset[str]()
    if APPROVER not in held:
        return f"{name} does not hold the role {APPROVER}"
    if OWNER in held or name in _owners(entries):
        return f"{name} is an owner, who answers for the workload"
    if any(e.actor == name for e in entries if e.kind == REGISTERED and e.version == version):
        return f"{name} trained and registered version {version}"
    if name in _openers(entries, release):
        return f"{name} opened the release"
    return ""


def _openers(entries: Sequence[Entry], release: str) -> set[str]:
    """Return who opened a release, and who wanted it where it had waited for its turn."""
    opened = opening(entries, release)
    wanted = (opened.sequence, opened.body.get("queued"))
    return {e.actor for e in entries if e.sequence in wanted}


def _owners(entries: Sequence[Entry]) -> set[str]:
    """Return who signed for the workload's features, and whom it names as its owner."""
    signed = [e for e in entries if e.kind == CONTRACT]
    return {e.actor for e in signed} | {str(part(e, "document").get("holder")) for e in signed}


def opening(entries: Sequence[Entry], release: str) -> Entry:
    """Return the entry that opened a release.

    Raises:
        LookupError: There is none.
    """
    for entry in entries:
        if entry.kind == OPENED and entry.body.get("release") == release:
            return entry
    raise LookupError(f"the ledger knows no release {release}; see penstock release list.")


def part(entry: Entry, name: str) -> Mapping[str, Any]:
    """Return a part of a body; people write bodies, and what is no part says nothing."""
    found = entry.body.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
