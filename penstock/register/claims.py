"""Claims: what evidence shows, and where it is. Each says where, or None; more never takes away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from penstock.ledger.lifecycle import MOVED, Stage
from penstock.verdict import Outcome, Verdict

STEP_LEFT = "intent"
"""Kind of the entry with which the release controller leaves a step: its share and its verdict."""

FORWARD = {"enter": None, "finish": 100}
"""Actions of such an entry that leave a step for a higher one, and the share that is sure."""

IN_FORCE = "in force"
"""Kind of the entry in which the controller confirms that users go where it sent them."""

ALL_USERS = 100
"""Percent of a release's last step, which is no canary."""

UNPROVEN = "a test is there; no record of its passing"
"""Said of every test: nothing puts the result of a suite on record yet."""


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
        except (LookupError, TypeError, AttributeError, ValueError):
            return None

    return found


def passed(kind: str, *checks: str) -> Claim:
    """Return the claim that a packaged verdict is a pass, with a check of each of these names.

    Args:
        checks: Beginnings of names, or several joined by ``|`` of which one is enough.
    """

    def holds(document: Any) -> bool:
        names = passing(document)
        return bool(names) and all(
            any(name.startswith(tuple(wanted.split("|"))) for name in names) for wanted in checks
        )

    return shows(f"package:verdicts/{kind}.json", holds)


def covered(name: str) -> Claim:
    """Return the claim that a test is there, in the version's commit or else in the checkout.

    It need not have passed, so this is never enough for a whole mark.
    """

    def found(pieces: Pieces) -> str | None:
        for place in ("commit", "tree"):
            piece = pieces.get(f"{place}:{name}")
            if piece is not None and piece.document:
                return f"{piece.where}: {UNPROVEN}"
        return None

    return found


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
    """Say where the feature contract in the package was signed, by somebody who may."""
    held, signed = pieces.get("package:contract.json"), pieces.get("signed")
    return None if held is None or signed is None else f"{held.where}; {signed.where}"


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A step that a version passed with users on it, before it was promoted."""

    version: int
    percent: float
    roles: list[str]
    """What its checks were of: ``primary``, ``errors``, ``latency``, …"""

    where: str
    promoted: str
    """Where its promotion is."""


def steps_passed(pieces: Pieces) -> Iterator[Passed]:
    """Yield the steps of releases that ended well; what was written after the end is no step."""
    ends = _promotions(pieces)
    for where, entry in entries(pieces):
        body = _body(entry)
        percent, checks = _share(body), passing(body.get("verdict"))
        end = ends.get(entry.version)
        if entry.kind == STEP_LEFT and end is not None and checks and 0 < percent <= ALL_USERS:
            promoted, sequence = end
            if entry.sequence < sequence:
                yield Passed(
                    version=entry.version,
                    percent=percent,
                    roles=_roles(body, checks),
                    where=where,
                    promoted=promoted,
                )


def canary_passed(*, own: bool) -> Claim:
    """Return the claim that a version passed a step with few users before it got all of them.

    Args:
        own: This version; otherwise any of the workload.
    """

    def found(pieces: Pieces) -> str | None:
        for step in steps_passed(pieces):
            wanted = not own or step.version == version_of(pieces)
            if wanted and step.percent < ALL_USERS:
                return f"{step.where}; {step.promoted}"
        return None

    return found


def released_with(role: str) -> Claim:
    """Return the claim that this version's release passed a check of such a role, with users."""

    def found(pieces: Pieces) -> str | None:
        for step in steps_passed(pieces):
            if step.version == version_of(pieces) and role in step.roles:
                return step.where
        return None

    return found


def judged_live(role: str, *, versions: int) -> Claim:
    """Return the claim that several versions were judged by a check on what users got."""

    def found(pieces: Pieces) -> str | None:
        seen: dict[int, str] = {}
        for step in steps_passed(pieces):
            if role in step.roles:
                seen.setdefault(step.version, step.where)
        return "; ".join(seen.values()) if len(seen) >= versions else None

    return found


def rolled_back(pieces: Pieces) -> str | None:
    """Say which entry records that users were returned to the version before, and how fast.

    It is a move from CANARY, where users were on the version, made for an intent of a release to
    roll back, whose effect the controller has read back and timed. Without a version before there
    is nobody to return to.
    """
    ends = _promotions(pieces)
    for where, entry in entries(pieces):
        if entry.kind != MOVED or (entry.origin, entry.target) != (Stage.CANARY, Stage.ARCHIVED):
            continue
        before = any(v != entry.version and at < entry.sequence for v, (_, at) in ends.items())
        confirmed = _confirmed(pieces, entry)
        if before and confirmed is not None:
            return f"{confirmed}; {where}"
    return None


def _confirmed(pieces: Pieces, move: Any) -> str | None:
    """Return which entry confirms the intent to roll back that a version was archived for."""
    wanted = _intent_of(_mapping(_body(move).get("evidence")))
    meant = False
    for where, entry in entries(pieces):
        body = _body(entry)
        if wanted is None or entry.version != move.version or _intent_of(body) != wanted:
            continue
        meant |= entry.kind == STEP_LEFT and body.get("action") == "roll back"
        if entry.kind == IN_FORCE and meant and _number(body.get("milliseconds")) is not None:
            return where
    return None


def _intent_of(body: Record) -> tuple[str, int] | None:
    """Return which intent of which release an entry is of."""
    release, n = body.get("release"), body.get("n")
    return (release, n) if isinstance(release, str) and type(n) is int else None


def locked(pieces: Pieces) -> str | None:
    """Say where it is on record that the version was trained with the libraries that are locked.

    The lock file lay there, and what was installed is what it pins: the first says nothing of the
    second.
    """
    lock = pieces.get("tree:lock")
    if lock is None:
        return None
    pins: Record = lock.document["pins"]

    def holds(lineage: Any) -> bool:
        made: Record = lineage["environment"]
        installed: Record = {_plain(n): v.partition("+")[0] for n, v in made["libraries"].items()}
        same = made["lock"] == lock.document["sha256"] and made["seen_at"] == "training"
        return same and bool(installed) and installed.items() <= pins.items()

    where = shows("package:lineage.json", holds)(pieces)
    return None if where is None else f"{where}; {lock.where}"


def pins(lock: str) -> dict[str, str]:
    r"""Return the version of each library that a lock file pins, without the build's own part.

    >>> pins("torch==2.13.0+cpu \\\n    --hash=sha256:1\nrpds_py==0.1\n")
    {'torch': '2.13.0', 'rpds-py': '0.1'}
    """
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;+]+)", lock, re.MULTILINE)
    return {_plain(name): version for name, version in found}


def _plain(library: str) -> str:
    return re.sub(r"[-_.]+", "-", library).lower()


def in_commit(pieces: Pieces) -> str | None:
    """Say that the version's commit holds the very sources of the model that lineage hashed."""
    held = pieces.get("commit:sources")
    made = shows("package:lineage.json", lambda r: bool(held) and sources(r) == held.document)
    return None if held is None or made(pieces) is None else held.where


def sources(lineage: Any) -> dict[str, Any]:
    """Return the hashes of a workload's own sources, by path, as a version's lineage has them."""
    own = f"workloads/{lineage['workload']}/"
    return {path: said for path, said in lineage["files"].items() if path.startswith(own)}


def passing(document: Any) -> list[str]:
    """Return the names of a verdict's checks if it is one, is consistent and a pass; else none.

    >>> passing({"outcome": "pass", "checks": []}), passing(None)
    ([], [])
    """
    try:
        verdict = Verdict.from_dict(document)
    except (ValueError, OverflowError):  # of another form, or a number that no float can hold
        return []
    return [str(c.name) for c in verdict.checks] if verdict.outcome is Outcome.PASS else []


def _share(body: Record) -> float:
    """Return the percent of users that a step had which an intent leaves forward, 0 of others."""
    action = body.get("action")
    if not isinstance(action, str) or action not in FORWARD:
        return 0
    return FORWARD[action] or _number(body.get("share_percent")) or 0


def _roles(body: Record, checks: list[str]) -> list[str]:
    """Return what the passed checks of an intent's verdict were of."""
    rows = body.get("rows")
    told = map(_mapping, cast("list[Any]", rows)) if isinstance(rows, list) else ()
    return [str(row.get("role")) for row in told if row.get("name") in checks]


def _promotions(pieces: Pieces) -> dict[int, tuple[str, int]]:
    """Return where, and with which number, each version entered PRODUCTION."""
    return {
        entry.version: (where, entry.sequence)
        for where, entry in entries(pieces)
        if entry.kind == MOVED and entry.target == Stage.PRODUCTION
    }


def _body(entry: Any) -> Record:
    return _mapping(entry.body)


def _mapping(value: Any) -> Record:
    """Return a JSON object; of anything else, an empty one."""
    return cast("Record", value) if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """Return a JSON number, or None. JSON's true is Python's 1, and is none."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
