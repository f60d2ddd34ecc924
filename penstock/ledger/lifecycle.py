"""The lifecycle of a model version, as the ledger's entries tell it, and whose hand moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.ledger.entry import Entry


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

STEPS = tuple(NEXT.items()) + tuple((s, Stage.ARCHIVED) for s in Stage if s != "ARCHIVED")
"""Every move there is: origin and target."""

REGISTERED = "registered"
"""Kind of the entry that names a version's package: folder, fingerprint, digest."""

MOVED = "moved"
"""Kind of the entries that move a version from their ``origin`` to their ``target``."""

_CONTROLLER = frozenset({"pipeline", "operator"})
_RETURNERS = _CONTROLLER | {"owner", "compliance", "admin"}

WRITERS: Mapping[str, frozenset[str]] = {
    REGISTERED: frozenset({"pipeline"}),
    "contract": frozenset({"owner", "pipeline"}),
    "retired": frozenset({"owner", "operator"}),
    # Whoever may retire a version may also move the aliases that pointed at it.
    "aliases": _CONTROLLER | {"owner"},
    # Which of them may give which command: penstock.rollout.commands.
    "command": frozenset({"operator", "owner", "admin", "approver", "compliance"}),
    # That the approver is independent besides: penstock.rollout.approvals.
    "approval": frozenset({"approver"}),
    "document": _CONTROLLER | {"owner", "validator", "compliance"},
    # Thrown while the ledger was down, it is noted by whoever finds it.
    "kill": _CONTROLLER | {"owner", "compliance", "admin"},
    "kill cleared": frozenset({"compliance", "admin"}),
    "drill": _CONTROLLER | {"owner"},
    # Whoever may ask a release to roll back may do so after its end, and archive what was left.
    "returning": _RETURNERS,
    "returned": _RETURNERS,
    "contaminated": _RETURNERS,
}
"""By kind of entry, the roles of which one must be held to write it.

Every other kind is written by controllers; the roll itself says who changes the roll.
"""

MOVERS: Mapping[str, frozenset[str]] = {
    Stage.STAGING: frozenset({"pipeline"}),
    Stage.SHADOW: _CONTROLLER,
    Stage.CANARY: _CONTROLLER,
    Stage.PRODUCTION: _CONTROLLER,
    Stage.ARCHIVED: _RETURNERS,
}
"""By the stage that a move ends at, the roles of which one must be held."""

STANDBYS = 2
"""How many earlier production versions stay deployable behind the champion."""


def may_move(origin: Stage, target: Stage) -> bool:
    """Return whether the lifecycle has this step."""
    return (origin, target) in STEPS


def refused_role(name: str, roles: frozenset[str], kind: str, target: str | None) -> str | None:
    """Return why an actor of these roles may not write such an entry, or None where it may.

    Args:
        target: The stage that a move ends at; None for what is no move.
    """
    asked = WRITERS.get(kind, _CONTROLLER) if target is None else MOVERS.get(target)
    # Where there is no such stage, the lifecycle refuses the move, whoever asks.
    if asked is None or roles & asked:
        return None
    what = f"write a {kind!r} entry" if target is None else f"move a version to {target}"
    return (
        f"{name} may not {what}; it takes the role {' or '.join(sorted(asked))}, and {name} is "
        f"{', '.join(sorted(roles))}. An admin gives roles: penstock ledger enrol."
    )


def refused_reason(version: int | None, reason: object) -> str | None:
    """Return why a move is not taken with this reason, or None where it is."""
    if isinstance(reason, str) and reason.strip():
        return None
    return f"the move of version {version} gives no reason; say in a sentence why it moves."


def refused_move(version: int, origin: Stage, target: Stage, *, registered: bool) -> str | None:
    """Return why a version cannot take this step, or None where it can."""
    if not may_move(origin, target):
        return (
            f"version {version} cannot go from {origin} to {target}; the order is NONE → STAGING → "
            "SHADOW → CANARY → PRODUCTION, ARCHIVED from any and final."
        )
    if target == Stage.STAGING and not registered:
        return f"version {version} is not registered, so it cannot be staged; register it first."
    return None


def refused_archive(order: Sequence[int], version: int) -> str | None:
    """Return why a version should stay deployable, or None where it may go to the archive.

    Args:
        order: The workload's versions in production, newest first, as ``serving_order`` gives them.

    Whatever was never promoted may go at any time. The champion may go when another version then
    serves; of the earlier ones the newest two are the way back.
    """
    if version not in order:
        return None
    place = order.index(version)
    if place == 0 and len(order) == 1:
        return (
            f"version {version} is the champion and no other version could serve; promote another "
            "first, or say why it must go all the same."
        )
    if 0 < place <= STANDBYS:
        return (
            f"version {version} is one of the {STANDBYS} earlier versions that stay deployable "
            f"behind champion {order[0]}; it may go when newer ones are, or say why it must go "
            "all the same."
        )
    return None


def stage_of(entries: Sequence[Entry], version: int) -> Stage:
    """Return where a version stands after these entries of its workload."""
    for entry in reversed(entries):
        if entry.target is not None and entry.version == version:
            return Stage(entry.target)
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
    entered: dict[int, None] = {}
    for entry in entries:
        if entry.version is None:
            continue
        if entry.target == Stage.PRODUCTION:
            entered[entry.version] = None
        elif entry.target == Stage.ARCHIVED:
            entered.pop(entry.version, None)
    return list(entered)[::-1]


def deployable(entries: Sequence[Entry]) -> list[int]:
    """Return the champion and the production versions before it that users can be returned to."""
    return serving_order(entries)[: 1 + STANDBYS]
