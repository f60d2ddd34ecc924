"""What a release is doing, from its ledger entries and the newest look: for screens and programs.

Its past is told by :mod:`penstock.rollout.history`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from penstock.ledger.entry import Entry
from penstock.rollout.asks import acting
from penstock.rollout.drill import DRILL
from penstock.rollout.folding import fold
from penstock.rollout.history import explain, history
from penstock.rollout.past import Past, past_of, share_percent
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.state import State

FORMAT = 1
"""Of the document that :func:`status` returns; it rises when a field changes its meaning."""

STALE = timedelta(seconds=10)
"""A newest look older than this is said to be old: a controller looks several times a second."""

Look = Mapping[str, Any]
Told = dict[str, Any]


def status(
    entries: Sequence[Entry], state: State, *, now: datetime, live: Look | None = None
) -> Told:
    """Return where a release stands, as plain values; ``docs/how-to/follow-a-release.md`` has all.

    Args:
        entries: Of the workload, as the ledger keeps them. The plan is the one declared there.
        live: The newest look of the step in force (:func:`penstock.rollout.looks.look`); without
            it the evidence is that of the last decision, and what stands by is unknown.
    """
    past = past_of(entries, state.release)
    if live is not None and (state.phase in ENDED or live["step"] != past.step_name(state.step)):
        live = None
    # What was seen before the last decision says nothing of what comes after it.
    seen = live if live is not None and _newer(live, past) else None
    told = history(entries, state.release)
    return {
        "format": FORMAT,
        "release": state.release,
        "workload": state.workload,
        "market": state.market,
        "challenger": past.opened.body["challenger"],
        "champion": past.opened.body["champion"],
        "trigger": past.opened.body["trigger"],
        "plan_hash": past.opened.body["plan_hash"],
        "phase": str(state.phase),
        "within": None if state.within is None else str(state.within),
        "ended": state.phase in ENDED,
        "step": past.step_name(state.step),
        "steps": _steps(past, state),
        "share_percent": _share(past, state),
        "opened_at": state.opened_at.isoformat(),
        "entered_at": state.entered_at.isoformat(),
        "ended_at": _ended_at(past, state),
        "time": _time(past, state, now),
        **_evidence(past, live, now),
        "next": _next(past, state, seen, now),
        "must_act": [] if state.phase in ENDED else acting(past, state, seen, now),
        "strikes": [_strike(e) for e in told if e.get("strike")],
        "extensions": {"used": state.extended, "allowed": past.plan["policy"]["extensions"]},
        "standby_ready": None if live is None else live["standby_ready"],
        "drill": _drill(entries, live),
        "killed": _killed(state, live),
        "commands": [_command(c) for c in state.commands],
        "reason": state.reason,
    }


def _newer(live: Look, past: Past) -> bool:
    decided = datetime.fromisoformat((past.intents or (past.opened,))[-1].at)
    return datetime.fromisoformat(live["at"]) >= decided


def listed(entries: Sequence[Entry], release: str) -> Told:
    """Return a release in a few words: where it stands, since when, with how many strikes.

    Raises:
        Unfoldable: There is no such release.
    """
    state, past = fold(entries, release), past_of(entries, release)
    return {
        "release": release,
        "market": state.market,
        "challenger": past.opened.body["challenger"],
        "champion": past.opened.body["champion"],
        "phase": str(state.phase),
        "step": past.step_name(state.step),
        "share_percent": _share(past, state),
        "opened_at": state.opened_at.isoformat(),
        "ended_at": _ended_at(past, state),
        "strikes": state.strikes,
        "reason": state.reason,
    }


def timeline(
    entries: Sequence[Entry], release: str, looks: Sequence[Look], *, now: datetime
) -> Told:
    """Return all that the page of a release is drawn from, as plain values.

    Args:
        entries: Of its workload.
        looks: Of the release, oldest first (:func:`penstock.rollout.looks.read_looks`).

    Raises:
        Unfoldable: There is no such release.
    """
    state, past = fold(entries, release), past_of(entries, release)
    return {
        "status": status(entries, state, now=now, live=looks[-1] if looks else None),
        "history": history(entries, release),
        "decisions": [explain(entries, release, e.body["n"]) for e in past.intents],
        "plan": past.plan,
        "looks": list(looks),
    }


def _steps(past: Past, state: State) -> list[Told]:
    """Return each planned step with where it stands: ``done``, ``now`` or ``to come``."""
    at = -1 if state.step is None else state.step
    return [
        {
            "name": step["name"],
            "percent": step["percent"],
            "soak_s": step["soak"],
            "approve": step["approve"],
            "is": _place(step["index"], at, state.phase),
        }
        for step in past.plan["steps"]
    ]


def _place(index: int, at: int, phase: Phase) -> str:
    if phase is Phase.DONE or index < at:
        return "done"
    if phase in ENDED:
        return "ended here" if index == at else "not reached"
    return "now" if index == at else "to come"


def _share(past: Past, state: State) -> float:
    table = None if state.table is None else state.table.to_dict()
    if state.phase is Phase.KILLED:
        return 0.0
    return share_percent(table, past.opened.body["challenger"]["slot"]) or 0.0


def _ended_at(past: Past, state: State) -> str | None:
    if state.phase not in ENDED:
        return None
    last = past.intents[-1]
    return (past.backs.get(last.body["n"]) or last).at


def _time(past: Past, state: State, now: datetime) -> Told | None:
    """Return soak and deadline of the step in force; None where no step is."""
    if state.step is None or state.phase in ENDED:
        return None
    step = past.plan["steps"][state.step]
    soak = state.entered_at + timedelta(seconds=step["soak"])
    deadline = state.entered_at + timedelta(seconds=step["deadline"])
    return {
        "in_step_s": (now - state.entered_at).total_seconds(),
        "soak_s": step["soak"],
        "soak_left_s": max(0.0, (soak - now).total_seconds()),
        "soak_until": soak.isoformat(),
        "deadline_s": step["deadline"],
        "deadline_left_s": max(0.0, (deadline - now).total_seconds()),
        "deadline_at": deadline.isoformat(),
    }


def _evidence(past: Past, live: Look | None, now: datetime) -> Told:
    """Return the rows of the newest look, or of the last decision where there is none."""
    found, at = live or {}, None if live is None else live["at"]
    step = None if live is None else live["step"]
    if live is None and past.intents:
        last = past.intents[-1]
        found, at, step = last.body, last.at, past.step_name(past.step_before(last))
    rows = list(found.get("rows") or [])
    age = None if at is None else now - datetime.fromisoformat(at)
    return {
        "looked_at": at,
        "looked_s_ago": None if age is None else age.total_seconds(),
        "stale": live is not None and age is not None and age > STALE,
        "outcome": found.get("outcome") or (found.get("verdict") or {}).get("outcome"),
        "effect": found.get("effect"),
        "evidence_reason": found.get("reason") or "",
        "evidence_step": step,
        "evidence": rows,
        "segments": list(found.get("segments") or []),
        "users": _users(rows),
    }


def _users(rows: Sequence[Look]) -> Told | None:
    """Return the users of each arm and how many are needed: of the primary, else the most needy."""
    counted = [row for row in rows if row.get("users")]
    if not counted:
        return None
    primary = [row for row in counted if row.get("role") == "primary"]
    row = (primary or sorted(counted, key=lambda r: r.get("needed") or 0))[-1]
    return {**row["users"], "needed": row.get("needed"), "of": row["name"]}


def _next(past: Past, state: State, live: Look | None, now: datetime) -> Told | None:
    """Return which decision comes next, when it is made at the latest, and what it waits for."""
    if state.phase in ENDED:
        return None
    waits_for = (live or {}).get("waits_for") or _waits(past, state, now)
    return {
        "decision": _decision(past, state),
        "waits_for": waits_for,
        "at": (live or {}).get("until") or _due(past, state, now),
        "why": (live or {}).get("why") or state.reason,
    }


def _decision(past: Past, state: State) -> str:
    if state.pending is not None:
        return f"finish decision {state.pending.n}: {state.pending.act}"
    if state.phase is Phase.PAUSED:
        return "resume, or end"
    if state.awaited is not None:
        return f"enter {past.step_name(state.awaited)}"
    ahead = 0 if state.step is None else state.step + 1
    if ahead < len(past.plan["steps"]):
        return f"enter {past.step_name(ahead)}"
    return "promote: the challenger becomes the champion"


def _waits(past: Past, state: State, now: datetime) -> str:
    """Return what a release waits for as far as the ledger alone can tell."""
    if state.phase is Phase.PAUSED:
        return "person"
    if state.phase is Phase.AWAIT:
        return "approval"
    time = _time(past, state, now)
    if time is None:
        return "server"
    return "soak" if time["soak_left_s"] > 0 else "evidence"


def _due(past: Past, state: State, now: datetime) -> str | None:
    time = _time(past, state, now)
    if time is None or state.phase in (Phase.PAUSED, Phase.AWAIT):
        return None
    return time["soak_until"] if time["soak_left_s"] > 0 else time["deadline_at"]


def _strike(event: Look) -> Told:
    return {name: event[name] for name in ("n", "at", "left", "why")}


def _drill(entries: Sequence[Entry], live: Look | None) -> Told:
    """Return the newest rehearsed rollback, and why one is due where a look has said so."""
    last = next((e for e in reversed(entries) if e.kind == DRILL), None)
    return {
        "due": "" if live is None else live["drilled"],
        "last_at": None if last is None else last.at,
        "last": None if last is None else last.body,
    }


def _killed(state: State, live: Look | None) -> str:
    if state.phase is Phase.KILLED:
        return state.reason
    return "" if live is None else live["killed"]


def _command(command: Any) -> Told:
    return {
        "sequence": command.sequence,
        "command": str(command.ask),
        "actor": command.actor,
        "reason": command.reason,
        "at": command.at.isoformat(),
    }
