"""Where the kill switch leads, and which versions it kills, by the files of the servers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.rollout import written
from penstock.rollout.killnotes import Request
from penstock.rollout.ports import Stale
from penstock.rollout.table import RULES, TrafficTable
from penstock.rollout.watchdog import exposed, returned


def noted(
    serving: Path, to: str, gone: Collection[str], *, reason: str, by: str, how: str, now: datetime
) -> Request:
    """Return a request with what it does: every version but the slot's own is killed.

    Args:
        gone: Versions that were killed before.
    """
    slots, at = _slots(serving), now.astimezone(UTC)
    answers = slots.get(to)
    version = None if answers is None else answers["version"]
    others = {s["version"] for s in slots.values() if s is not None}
    return Request(
        id=f"{at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        to=to,
        reason=reason,
        by=by,
        how=how,
        at=at.isoformat(),
        version=version,
        killed=tuple(sorted((others | set(gone)) - {version, RULES})),
        serving=answers,
    )


def fallback_of(found: Mapping[str, TrafficTable]) -> str:
    """Return where the switch leads: rules where any market declares them, else a slot.

    Of two markets that name different slots the one counts that nobody tries out, and then the one
    that most name: the switch is for everybody at once. A table whose fallback is tried out in
    another market leads to its champion.
    """
    tried = {table.challenger for table in found.values() if table.buckets}
    tried |= {table.mirror for table in found.values()}
    named = [
        table.champion if table.fallback is None or table.fallback in tried else table.fallback
        for table in found.values()
    ]
    if not named:
        raise ValueError("no table says where the kill switch leads; name a slot with --to.")
    if RULES in named:
        return RULES
    return min(named, key=lambda slot: (slot in tried, -named.count(slot), slot))


def tables(serving: Path) -> dict[str, TrafficTable]:
    """Return the table of each market that was written last; none where that cannot be read."""
    try:
        return written.tables(serving / "routes" / "table.json")
    except (OSError, ValueError, LookupError):
        return {}


def brought_home(serving: Path) -> list[TrafficTable]:
    """Return the tables that give the users of releases under way to their champions."""
    return [returned(table) for table in tables(serving).values() if exposed(table)]


def bring_home(serving: Path) -> None:
    """Let nobody be on what was killed when tables count again; no controller may be up."""
    for table in brought_home(serving):
        # Whoever wrote a newer one knew of the switch.
        with suppress(Stale):
            written.apply(serving / "routes" / "table.json", table)


def exposing(serving: Path, request: Request) -> str:
    """Return which table leads to a version that was killed; empty where none does."""
    slots = _slots(serving)
    for table in tables(serving).values():
        served = slots.get(table.champion)
        if served is not None and served["version"] in request.killed:
            return (
                f"the table of market {table.market} leads to slot {table.champion}, version "
                f"{served['version']}, which was killed"
            )
    return ""


def _slots(serving: Path) -> dict[str, Any]:
    try:
        text = (serving / "desired.json").read_text(encoding="utf-8")
        return json.loads(text)["slots"]
    except (OSError, ValueError, KeyError):
        return {}
