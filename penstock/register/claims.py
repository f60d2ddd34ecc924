"""Claims: what evidence shows, and where it is. Each says where, or None; more never takes away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.ledger.lifecycle import MOVED, Stage
from penstock.register.featurecontract import CONTRACT
from penstock.verdict import Outcome

CI = ".ci/run"
"""The script that runs every test; without it a test is one that somebody may have run once."""

ALL_USERS = 100
"""Percent of a release's last step, which is no canary."""


@dataclass(frozen=True)
class Piece:
    """One piece of evidence that was read and verified."""

    document: Any

    where: str
    """How a reader finds it: a file of a package by its fingerprint, an entry, a path."""


Pieces = Mapping[str, Piece]
"""Verified pieces by name: ``package:scores.json``, ``entry:…``, ``tree:…``, ``commit:…``.

``tree:`` is a file of the checkout, ``commit:`` one of the commit that the version was made from.
"""

Claim = Callable[[Pieces], str | None]
Record = Mapping[str, Any]


def both(*claims: Claim) -> Claim:
    """Return the claim that holds where all of them hold."""

    def holds(pieces: Pieces) -> str | None:
        found = [claim(pieces) for claim in claims]
        return None if None in found else "; ".join(dict.fromkeys(f for f in found if f))

    return holds


def shows(name: str, holds: Callable[[Any], object]) -> Claim:
    """Return the claim that a piece is there and is so. One of another form shows nothing."""

    def found(pieces: Pieces) -> str | None:
        piece = pieces.get(name)
        try:
            return piece.where if piece is not None and holds(piece.document) else None
        except (KeyError, TypeError, AttributeError):
            return None

    return found


def passed(kind: str, *checks: str) -> Claim:
    """Return the claim that a packaged verdict is a pass, with a check of each of these names.

    Args:
        checks: Beginnings of names, or several joined by ``|`` of which one is enough.
    """

    def holds(verdict: Record) -> bool:
        names = [c["name"] for c in verdict["checks"] if c["outcome"] == Outcome.PASS]
        return verdict["outcome"] == Outcome.PASS and all(
            any(name.startswith(tuple(wanted.split("|"))) for name in names) for wanted in checks
        )

    return shows(f"package:verdicts/{kind}.json", holds)


def in_tree(path: str) -> Claim:
    """Return the claim that the checkout has a file."""
    return shows(f"tree:{path}", lambda _: True)


def covered(path: str) -> Claim:
    """Return the claim that the version's commit has a test, and the script that runs it."""
    return both(shows(f"commit:{path}", lambda _: True), shows(f"commit:{CI}", lambda _: True))


def entries(pieces: Pieces) -> Iterator[tuple[str, Any]]:
    """Yield where it is, and the entry, of every entry of the ledger in its order."""
    for name, piece in pieces.items():
        if name.startswith("entry:"):
            yield piece.where, piece.document


def registered(pieces: Pieces) -> str | None:
    """Say which entry of the ledger names this very package."""
    piece = pieces.get("registered")
    return None if piece is None else piece.where


def version_of(pieces: Pieces) -> int | None:
    """Return the version's number, where the ledger has its package."""
    piece = pieces.get("registered")
    return None if piece is None else int(piece.document)


def contract_signed(pieces: Pieces) -> str | None:
    """Say where the feature contract in the package was signed."""
    held = pieces.get("package:contract.json")
    if held is None:
        return None
    for where, entry in entries(pieces):
        if entry.kind == CONTRACT and entry.body.get("document") == held.document:
            return f"{held.where}; {where}"
    return None


def canary_passed(*, own: bool) -> Claim:
    """Return the claim that a version passed a step with few users before it got all of them.

    Args:
        own: This version; otherwise any of the workload.
    """

    def found(pieces: Pieces) -> str | None:
        promoted = {
            entry.version: where
            for where, entry in entries(pieces)
            if entry.kind == MOVED and entry.body.get("to") == Stage.PRODUCTION
        }
        for where, entry in entries(pieces):
            few = 0 < entry.body.get("percent", 0) < ALL_USERS
            wanted = not own or entry.version == version_of(pieces)
            if few and _passes(entry) and wanted and entry.version in promoted:
                return f"{where}; {promoted[entry.version]}"
        return None

    return found


def released_with(check: str) -> Claim:
    """Return the claim that a step of this version's release passed a check of such a name."""

    def found(pieces: Pieces) -> str | None:
        for where, entry in entries(pieces):
            of_this = entry.version is not None and entry.version == version_of(pieces)
            if of_this and _passes(entry, check):
                return where
        return None

    return found


def judged_live(check: str, *, versions: int) -> Claim:
    """Return the claim that several versions were judged by a check on what users got."""

    def found(pieces: Pieces) -> str | None:
        seen: dict[int | None, str] = {}
        for where, entry in entries(pieces):
            if _passes(entry, check):
                seen.setdefault(entry.version, where)
        return "; ".join(seen.values()) if len(seen) >= versions else None

    return found


def rolled_back(pieces: Pieces) -> str | None:
    """Say which entry records that users were returned, and how fast."""
    for where, entry in entries(pieces):
        evidence: Any = entry.body.get("evidence") or {}
        if entry.body.get("to") == Stage.ARCHIVED and "milliseconds" in evidence:
            return where
    return None


def locked(pieces: Pieces) -> str | None:
    """Say where it is on record that the version was made with the libraries that are locked."""
    lock = pieces.get("tree:requirements/all.txt")
    if lock is None:
        return None
    made = shows("package:lineage.json", lambda r: r["environment"]["lock"] == lock.document)
    where = made(pieces)
    return None if where is None else f"{where}; {lock.where}"


def _passes(entry: Any, check: str = "") -> bool:
    verdict: Record | None = entry.body.get("verdict")
    if not verdict or verdict.get("outcome") != Outcome.PASS:
        return False
    passing = [c["name"] for c in verdict["checks"] if c["outcome"] == Outcome.PASS]
    return any(name.startswith(check) for name in passing)
