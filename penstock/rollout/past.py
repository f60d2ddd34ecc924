"""The past of a release: its entries of the ledger, and what was in force before each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.ledger.entry import Entry
from penstock.rollout.branches import BACK
from penstock.rollout.drill import DRILL
from penstock.rollout.folding import plan_in_force
from penstock.rollout.kill import CLEARED, KILL
from penstock.rollout.state import IN_FORCE, INTENT, OPENED, Act
from penstock.rollout.table import BUCKETS

PAGED = "paged"
"""Kind of an entry that says that people were called, and why."""

MEANWHILE = frozenset({KILL, CLEARED, DRILL, BACK})
"""Kinds of entries of a workload that name no release: the kill switch, rehearsed rollbacks, and
the return of a market to an earlier version after its release."""

Told = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Past:
    """The entries of one release, as far as they tell its past."""

    release: str
    opened: Entry
    entries: tuple[Entry, ...]
    """All of the release, the opening first, and what was done to its workload meanwhile."""

    intents: tuple[Entry, ...]
    """Every decision that was acted on, in order."""

    backs: Mapping[int, Entry]
    """By the number of an intent: the entry that says that its effect was read back."""

    plan: Mapping[str, Any]
    """The plan that is followed, as plain values."""

    def step_name(self, index: int | None) -> str | None:
        """Return the name of a step; None before the first."""
        return None if index is None else self.plan["steps"][index]["name"]

    def step_before(self, intent: Entry) -> int | None:
        """Return the index of the step that was in force when an intent was decided on."""
        moves = (Act.ENTER, Act.STEP_BACK)
        steps = [e.body["step"] for e in self._done(intent) if e.body["action"] in moves]
        return steps[-1] if steps else None

    def table_before(self, intent: Entry) -> Mapping[str, Any] | None:
        """Return the traffic table that was in force before an intent; None before the first."""
        tables = [t for e in self._done(intent) if (t := e.body.get("table")) is not None]
        return tables[-1] if tables else None

    def _done(self, intent: Entry) -> list[Entry]:
        """Return the intents before one that took effect; others were replaced by a later one."""
        earlier = [e for e in self.intents if e.sequence < intent.sequence]
        return [e for e in earlier if e.body["n"] in self.backs]


def past_of(entries: Sequence[Entry], release: str) -> Past:
    """Return the past of a release.

    Raises:
        LookupError: No entry opens it; the text names those that are opened.
    """
    openings = [e for e in entries if e.kind == OPENED]
    opened = next((e for e in openings if e.body["release"] == release), None)
    if opened is None:
        known = ", ".join(e.body["release"] for e in openings) or "none yet"
        raise LookupError(f"no release {release!r}; in the ledger: {known}.")
    after = [e.sequence for e in openings if _follows(e, opened)]
    end = min(after, default=entries[-1].sequence + 1)
    kept = tuple(e for e in entries if _belongs(e, opened, end))
    return Past(
        release=release,
        opened=opened,
        entries=kept,
        intents=tuple(e for e in kept if e.kind == INTENT),
        backs={e.body["n"]: e for e in reversed(kept) if e.kind == IN_FORCE},
        plan=plan_in_force(kept, release),
    )


def _follows(entry: Entry, opened: Entry) -> bool:
    """Return whether an entry opens a later release of the same market."""
    same = (entry.workload, entry.body["market"]) == (opened.workload, opened.body["market"])
    return same and entry.sequence > opened.sequence


def _belongs(entry: Entry, opened: Entry, end: int) -> bool:
    if entry.kind in MEANWHILE:
        market = entry.body.get("market") or opened.body["market"]
        same = (entry.workload, market) == (opened.workload, opened.body["market"])
        return same and opened.sequence < entry.sequence < end
    return entry.body.get("release") == opened.body["release"]


def share_percent(table: Mapping[str, Any] | None, slot: str) -> float | None:
    """Return the share of users that a slot answers by a table; None without one."""
    if table is None:
        return None
    challenged = 100 * table["buckets"] / BUCKETS if table["challenger"] is not None else 0.0
    if slot == table["champion"]:
        return 100 - challenged
    return challenged if slot == table["challenger"] else 0.0
