"""How a release ended, by its entries in the ledger: for the report and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.ledger import Entry
from penstock.rollout.folding import fold, plan_in_force
from penstock.rollout.opened import opened_of
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.state import IN_FORCE, INTENT, Act, State

PROMOTED, ROLLED_BACK, FAILED, WAITING, UNCHANGED = (
    "promoted",
    "rolled back",
    "failed",
    "waiting",
    "unchanged",
)

WORST = (ROLLED_BACK, FAILED, WAITING, PROMOTED, UNCHANGED)
"""Outcomes of markets, the one first that the run has."""

_OUTCOMES = {
    Phase.DONE: PROMOTED,
    Phase.FAILED: FAILED,
    Phase.ROLLED_BACK: ROLLED_BACK,
    Phase.KILLED: ROLLED_BACK,
}

_LEAVES = frozenset({Act.ENTER, Act.STEP_BACK, Act.ROLL_BACK, Act.FINISH, Act.KILL})
"""What ends a step."""

_PASSED = frozenset({Act.ENTER, Act.FINISH})

Told = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Branch:
    """How a release stands in one market."""

    id: str
    market: str
    outcome: str
    phase: str
    reason: str
    seconds: float
    steps: tuple[Told, ...]
    """Each step that was left: name, percent, seconds, verdict, outcome."""

    told: Told
    """Its timeline, as the report draws it."""

    detected_s: float | None = None
    """From the beginning of the step to the decision to roll back."""

    rollback_ms: float | None = None
    """From the decision until every user was back on the champion."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a release ended; of several markets the worst, and each of them."""

    outcome: str
    version: int
    reason: str
    seconds: float
    steps: tuple[Told, ...] = ()
    told: Told | None = None
    """Timeline of the release that the outcome is of."""

    id: str = ""
    market: str = ""
    markets: tuple[Told, ...] = ()
    """Each market as a :class:`Branch`, as plain values."""

    ready_s: float | None = None
    """From start of the slot to ready."""

    detected_s: float | None = None
    rollback_ms: float | None = None


def branch_of(entries: Sequence[Entry], release: str, told: Told, why: str) -> Branch:
    """Return how a release stands.

    Args:
        told: Its timeline, for the report.
        why: What it waits for, where it goes on.
    """
    state, steps = fold(entries, release), steps_of(entries, release)
    last = _last(entries, release)
    back = bool(steps) and state.phase in (Phase.ROLLED_BACK, Phase.KILLED)
    ended = datetime.fromisoformat(last.at)
    return Branch(
        id=release,
        market=state.market,
        outcome=_OUTCOMES.get(state.phase, WAITING),
        phase=str(state.phase),
        reason=_reason(entries, state, why),
        seconds=round((ended - state.opened_at).total_seconds(), 2),
        steps=tuple(steps),
        told=told,
        detected_s=steps[-1]["seconds"] if back else None,
        rollback_ms=last.body.get("milliseconds") if back else None,
    )


def worst(branches: Sequence[Branch]) -> Branch:
    """Return the branch that a run's outcome is.

    Raises:
        ValueError: There is none.
    """
    return min(branches, key=lambda branch: WORST.index(branch.outcome))


def steps_of(entries: Sequence[Entry], release: str) -> list[dict[str, Any]]:
    """Return each step that was left: name, percent, seconds in it, verdict, how it ended."""
    plan = plan_in_force(entries, release)["steps"]
    found: list[dict[str, Any]] = []
    intents: dict[int, Entry] = {}
    held: tuple[int, datetime] | None = None
    for entry in entries:
        body = entry.body
        if body.get("release") != release:
            continue
        if entry.kind == INTENT:
            intents[body["n"]] = entry
        elif entry.kind == IN_FORCE and body["n"] in intents:
            intent = intents.pop(body["n"])
            act = Act(intent.body["action"])
            if held is not None and act in _LEAVES:
                found.append(_left(plan[held[0]], held[1], intent, act))
            if act in (Act.ENTER, Act.STEP_BACK):
                held = intent.body["step"], datetime.fromisoformat(entry.at)
    return found


def _left(step: Told, since: datetime, intent: Entry, act: Act) -> dict[str, Any]:
    seconds = (datetime.fromisoformat(intent.at) - since).total_seconds()
    ended = "passed" if act in _PASSED else "strike" if act is Act.STEP_BACK else str(act)
    return {
        "name": step["name"],
        "percent": step["percent"],
        "seconds": round(max(0.0, seconds), 2),
        "verdict": intent.body["verdict"],
        "line": intent.body["why"],
        "outcome": "rolled back" if act is Act.ROLL_BACK else ended,
    }


def _reason(entries: Sequence[Entry], state: State, why: str) -> str:
    if state.phase is Phase.DONE:
        version = opened_of(entries, state.release).challenger.version
        whom = "every user" if state.market == "all" else f"every user of {state.market}"
        return f"version {version} answers {whom}; each step passed"
    if state.phase in ENDED:
        return state.reason
    return why or state.reason


def _last(entries: Sequence[Entry], release: str) -> Entry:
    return next(e for e in reversed(entries) if e.body.get("release") == release)
