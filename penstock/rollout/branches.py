"""Branches: the same version in several markets, each with its own release and champion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.ledger import Entry, Stage
from penstock.ledger.lifecycle import NEXT
from penstock.registered import registration
from penstock.release import EVERYWHERE, Rollout
from penstock.rollout import folding
from penstock.rollout.independence import opening
from penstock.rollout.state import IN_FORCE, INTENT, OPENED, Act

BACK = "returned"
"""Kind of the entry by which a market without an active release goes back to an earlier version:
market, from, to, reason. Of a release that had climbed and never finished, it names that, too."""


def champion_in(entries: Sequence[Entry], market: str, policy: Rollout) -> int | None:
    """Return the version that answers the users of a market; None where none does.

    It is the last one whose release finished there, or in the market of everybody, and that the
    market was not returned from. Where a policy declares no markets, that is the ledger's champion.

    Args:
        entries: Of the workload, all of them.
    """
    return next(iter(order_in(entries, market, policy)), None)


def order_in(entries: Sequence[Entry], market: str, policy: Rollout) -> list[int]:
    """Return the versions that finished in a market and may answer there, newest first."""
    order: dict[int, None] = {}
    for version, comes in _changes(entries, market, policy):
        order.pop(version, None)
        if comes:
            order[version] = None
    return list(order)[::-1]


def _changes(entries: Sequence[Entry], market: str, policy: Rollout) -> Iterator[tuple[int, bool]]:
    """Yield each version that comes to answer a market's users, or can no longer, in order."""
    opened = {e.body["release"]: e for e in entries if e.kind == OPENED}
    # A version of a release is in its markets alone; any other is everybody's.
    apart = {e.version for e in opened.values()} if policy.markets else set[int | None]()
    here = {r for r, e in opened.items() if e.body["market"] in (market, EVERYWHERE)}
    finishing: set[tuple[str, object]] = set()
    for entry in entries:
        version, body = entry.version, entry.body
        # Entries of controllers of before there were releases name none.
        release = body.get("release", "")
        if version is None:
            continue
        if entry.target == Stage.ARCHIVED or (
            entry.target == Stage.PRODUCTION and version not in apart
        ):
            yield version, entry.target == Stage.PRODUCTION
        elif entry.kind == INTENT and body.get("action") == Act.FINISH and release in here:
            finishing.add((release, body.get("n")))
        elif entry.kind == IN_FORCE and (release, body.get("n")) in finishing:
            yield version, True
        elif entry.kind == BACK and body["market"] in (market, EVERYWHERE):
            yield body["from"], False
            yield body["to"], True


def kept(entries: Sequence[Entry], version: int, policy: Rollout, *, besides: str = "") -> str:
    """Return why a version must not be archived now; empty where no market has it.

    Args:
        besides: A release that ends now and keeps nothing any more.
    """
    for market in policy.market_names():
        if champion_in(entries, market, policy) == version:
            return f"version {version} answers the users of {market}"
    for state in folding.active(entries):
        if state.release != besides and opening(entries, state.release).version == version:
            return f"version {version} is being released in {state.market}"
    return ""


def way(stands: Stage, wanted: Stage) -> tuple[Stage, ...]:
    """Return the moves of the lifecycle that lead a version from where it stands to a stage.

    None where it stands there or beyond: another market was faster. PRODUCTION is entered with the
    first market that finishes.

    >>> [str(s) for s in way(Stage.STAGING, Stage.CANARY)], way(Stage.PRODUCTION, Stage.CANARY)
    (['SHADOW', 'CANARY'], ())

    Raises:
        ValueError: One of them is ARCHIVED: nothing leads out of there, and no release there.
    """
    if Stage.ARCHIVED in (stands, wanted):
        raise ValueError(f"no way of a release leads from {stands} to {wanted}.")
    order = [*NEXT, Stage.PRODUCTION]
    return tuple(order[order.index(stands) + 1 : order.index(wanted) + 1])


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Whether all branches of a version serve the same package."""

    version: int
    registered: str
    """Digest of the package that was registered."""

    released: tuple[tuple[str, str], ...]
    """Release and the digest that it was opened with."""

    @property
    def holds(self) -> bool:
        """Whether every release is of the package that was registered; without any, nothing is."""
        return {d for _, d in self.released} == {self.registered}

    def __str__(self) -> str:
        others = [f"{release} has {d}" for release, d in self.released if d != self.registered]
        if others:
            return f"version {self.version} is {self.registered}, but {'; '.join(others)}."
        names = ", ".join(release for release, _ in self.released) or "no release yet"
        return f"version {self.version} is {self.registered} in {names}."


def same_digest(entries: Sequence[Entry], version: int) -> Proof:
    """Return the proof that every release of a version names the package that was registered.

    Raises:
        LookupError: The version was never registered.
    """
    wanted = registration(entries, version).body["digest"]
    opened = [e for e in entries if e.kind == OPENED and e.version == version]
    named = tuple((e.body["release"], e.body["challenger"]["digest"]) for e in opened)
    return Proof(version=version, registered=wanted, released=named)
