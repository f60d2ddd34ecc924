"""The lifecycle of a model version, as the ledger's entries tell it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.ledger.chain import Entry


class Stage(StrEnum):
    """Where a version stands. There is no way but forward one step, or to the archive."""

    NONE = "NONE"
    STAGING = "STAGING"
    SHADOW = "SHADOW"
    CANARY = "CANARY"
    PRODUCTION = "PRODUCTION"
    ARCHIVED = "ARCHIVED"


NEXT = {
    Stage.NONE: Stage.STAGING,
    Stage.STAGING: Stage.SHADOW,
    Stage.SHADOW: Stage.CANARY,
    Stage.CANARY: Stage.PRODUCTION,
}

REGISTERED = "registered"
"""Kind of the entry that names a version's package: folder, fingerprint, digest."""

MOVED = "moved"
"""Kind of the entries that move a version; their body's ``to`` is the stage."""


def may_move(origin: Stage, target: Stage) -> bool:
    """Return whether the lifecycle has this step."""
    if origin is Stage.ARCHIVED:
        return False
    return target is Stage.ARCHIVED or NEXT.get(origin) is target


def stage_of(entries: Sequence[Entry], version: int) -> Stage:
    """Return where a version stands after these entries of its workload."""
    for entry in reversed(entries):
        if entry.kind == MOVED and entry.version == version:
            return Stage(entry.body["to"])
    return Stage.NONE


def champion(entries: Sequence[Entry]) -> int | None:
    """Return the version that serves users: the last to enter PRODUCTION and still there."""
    return next(iter(serving_order(entries)), None)


def package_of(entries: Sequence[Entry], version: int) -> str:
    """Return the folder of a version's package.

    Raises:
        LookupError: The version was never registered.
    """
    for entry in entries:
        if entry.kind == REGISTERED and entry.version == version:
            return entry.body["package"]
    raise LookupError(f"version {version} is not in the ledger; run the register stage.")


def serving_order(entries: Sequence[Entry]) -> list[int]:
    """Return the versions that entered PRODUCTION and are not archived, newest first."""
    entered = [e.version for e in entries if e.kind == MOVED and e.body["to"] == Stage.PRODUCTION]
    live = [v for v in entered if v is not None and stage_of(entries, v) is Stage.PRODUCTION]
    return live[::-1]
