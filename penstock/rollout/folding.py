"""Fold a release's ledger entries into its state: what is not in the ledger did not happen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from penstock.ledger import Entry, LedgerError
from penstock.rollout.effects import Effect, paused, took_effect
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.state import (
    APPROVAL,
    COMMAND,
    IN_FORCE,
    INTENT,
    OPENED,
    Act,
    Ask,
    Command,
    Pending,
    State,
)
from penstock.rollout.table import TrafficTable

KINDS = frozenset({OPENED, INTENT, IN_FORCE, COMMAND, APPROVAL})

BACKWARD = frozenset({Act.STEP_BACK, Act.ROLL_BACK, Act.FAIL, Act.KILL})
"""What no other act may take the place of while it is not in force yet."""


class Unfoldable(LedgerError):
    """An entry cannot follow those before it: it was not made by a release controller."""


@dataclass
class _Fold:
    """A state on its way, and what only the fold must know."""

    state: State
    phases: tuple[Phase, ...]
    """Of the plan's steps."""

    latest: datetime
    """Newest time of any entry: the clock of the ledger, which does not go back."""


def release_id(workload: str, version: int, market: str, k: int) -> str:
    """Return the name of the k-th release of a version in a market."""
    return f"{workload}/{version}/{market}/{k}"


def next_release(entries: Iterable[Entry], workload: str, version: int, market: str) -> str:
    """Return the name that the next release of a version in a market gets."""
    stem = release_id(workload, version, market, 0).removesuffix("0")
    opened = sum(name.startswith(stem) for name in releases(entries))
    return release_id(workload, version, market, 1 + opened)


def releases(entries: Iterable[Entry]) -> list[str]:
    """Return the names of all releases, in the order in which they were opened."""
    return [str(e.body["release"]) for e in entries if e.kind == OPENED and "release" in e.body]


def active(
    entries: Iterable[Entry], market: str | None = None, *, ended: set[str] | None = None
) -> list[State]:
    """Return the releases that have not ended, in the order in which they were opened.

    Args:
        market: Of this one alone; None of all.
        ended: Names of releases that are known to have ended; they are passed over, and those that
            are found to have are added.

    Raises:
        Unfoldable: An entry cannot follow those before it.
    """
    kept = [e for e in entries if e.kind in KINDS]
    # Each is folded over its own entries: over those of all it would be quadratic.
    over = set[str]() if ended is None else ended
    own: dict[str, list[Entry]] = {}
    for entry in kept:
        own.setdefault(str(entry.body.get("release")), []).append(entry)
    states = [fold(own[name], name) for name in releases(kept) if name not in over]
    over.update(s.release for s in states if s.phase in ENDED)
    return [s for s in states if s.phase not in ENDED and market in (None, s.market)]


def fold(entries: Iterable[Entry], release: str) -> State:
    """Return where a release stands after these entries; those of others do not count.

    Raises:
        Unfoldable: It was never opened, or an entry cannot follow those before it.
    """
    folded: _Fold | None = None
    for entry in entries:
        if entry.kind not in KINDS or entry.body.get("release") != release:
            continue
        try:
            folded = _opened(entry, folded) if entry.kind == OPENED else _taken(folded, entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
            raise Unfoldable(f"entry {entry.sequence} ({entry.kind}): {e!r} in its body.") from e
    if folded is None:
        raise Unfoldable(
            f"no release {release!r} was opened; list them with: penstock release list"
        )
    return folded.state


def plan_in_force(entries: Iterable[Entry], release: str) -> Mapping[str, Any]:
    """Return the plan that a release follows, as the ledger keeps it.

    Raises:
        Unfoldable: No such release was opened.
    """
    plan: Mapping[str, Any] | None = None
    replans: dict[int, Mapping[str, Any]] = {}
    for entry in entries:
        if entry.body.get("release") != release:
            continue
        if entry.kind == OPENED:
            plan = entry.body["plan"]
        elif entry.kind == INTENT and entry.body.get("plan") is not None:
            replans[entry.body["n"]] = entry.body["plan"]
        elif entry.kind == IN_FORCE:
            plan = replans.pop(entry.body["n"], plan)
    if plan is None:
        raise Unfoldable(f"no release {release!r} was opened.")
    return plan


def _opened(entry: Entry, folded: _Fold | None) -> _Fold:
    _refuse_unless(folded is None, entry, "the release was opened before")
    body, at = entry.body, datetime.fromisoformat(entry.at)
    state = State(
        release=str(body["release"]),
        workload=entry.workload,
        market=str(body["market"]),
        phase=Phase.PREPARE,
        step=None,
        opened_at=at,
        entered_at=at,
        last=entry.sequence,
    )
    return _Fold(state, _phases(body["plan"]), at)


def _taken(folded: _Fold | None, entry: Entry) -> _Fold:
    if folded is None:
        raise Unfoldable(f"entry {entry.sequence} ({entry.kind}): the release was not opened.")
    folded.latest = max(folded.latest, datetime.fromisoformat(entry.at))
    _TAKERS[entry.kind](folded, entry)
    folded.state = replace(folded.state, last=entry.sequence)
    return folded


def _take_command(folded: _Fold, entry: Entry) -> None:
    """Note what a person asked; to go on is asked only until something else is.

    What asks nothing that is known is passed over: no person's entry may stop a controller, and
    with it the way back.
    """
    state, body = folded.state, entry.body
    if state.phase in ENDED or body.get("command") not in tuple(Ask):
        return
    command = Command(
        sequence=entry.sequence,
        ask=Ask(body["command"]),
        reason=str(body.get("reason", "")),
        actor=entry.actor,
        key_id=entry.key_id,
        at=datetime.fromisoformat(entry.at),
    )
    open_ = tuple(c for c in state.commands if c.ask is not Ask.PROMOTE)
    folded.state = replace(state, commands=(*open_, command))


def _take_approval(folded: _Fold, entry: Entry) -> None:
    """An approval changes nothing by itself; an intent heeds it."""


def _take_intent(folded: _Fold, entry: Entry) -> None:
    """Note what is about to be done; in the place of an intent that could not be."""
    state, body = folded.state, entry.body
    act, step = Act(body["action"]), body.get("step")
    _refuse_unless(state.phase not in ENDED, entry, f"the release has ended: {state.phase}")
    _refuse_unless(body["n"] == state.n + 1, entry, f"intent {body['n']} after {state.n}")
    held = state.pending
    _refuse_unless(
        held is None or held.act not in BACKWARD or act in (held.act, Act.ROLL_BACK, Act.KILL),
        entry,
        f"{act} in the place of {'' if held is None else held.act}, which was decided",
    )
    wrong = _misstep(folded, act, step, body)
    _refuse_unless(not wrong, entry, wrong)
    document = body.get("table")
    pending = Pending(
        n=body["n"],
        act=act,
        step=step,
        table=None if document is None else TrafficTable.from_dict(document),
        why=str(body["why"]),
        body=body,
    )
    folded.state = replace(state, n=pending.n, pending=pending)


def _misstep(folded: _Fold, act: Act, step: int | None, body: Mapping[str, Any]) -> str:
    """Return why an act cannot follow from where the release stands; empty where it can."""
    here, last = folded.state.step, len(folded.phases) - 1
    following = 0 if here is None else here + 1
    # With another plan, or in shadow when the cool-down after a strike is over.
    cooled = folded.state.phase is Phase.STEPPED_BACK and here == 0
    restarts = step is not None and step == here and (cooled or body.get("plan") is not None)
    allowed: Mapping[Act, bool] = {
        Act.ENTER: restarts or (step == following and following <= last),
        Act.AWAIT: step == following and following <= last,
        Act.STEP_BACK: here is not None and here > 0 and step == here - 1,
        Act.FINISH: here == last,
        Act.EXTEND: here is not None,
        Act.RESTORE: folded.state.table is not None,
        Act.FAIL: here is None,
    }
    forward = act in (Act.ENTER, Act.FINISH, Act.AWAIT) and not restarts
    if allowed.get(act, True) and not (forward and paused(folded.state)):
        return ""
    return f"{act} of step {step} from {folded.state.phase} at step {here} of {last + 1}"


def _take_in_force(folded: _Fold, entry: Entry) -> None:
    """Take the effect of the pending intent; that of an earlier one changes nothing again."""
    state, n = folded.state, entry.body["n"]
    _refuse_unless(n <= state.n, entry, f"intent {n} was never written")
    pending = state.pending
    if pending is None or pending.n != n:
        return
    if pending.body.get("plan") is not None:
        folded.phases = _phases(pending.body["plan"])
    strikes = state.strikes + bool(pending.act is Act.STEP_BACK or pending.body.get("strike"))
    answered = pending.body.get("answers")
    folded.state = replace(
        took_effect(state, Effect(pending=pending, at=folded.latest, phases=folded.phases)),
        pending=None,
        reason=pending.why,
        strikes=strikes,
        table=pending.table or state.table,
        commands=tuple(
            c for c in state.commands if c.sequence != answered and not _over(c, pending)
        ),
    )


def _over(command: Command, pending: Pending) -> bool:
    """Return whether a wish to go on was for a step that the release has left."""
    return command.ask is Ask.PROMOTE and pending.act in (Act.ENTER, Act.STEP_BACK)


def _phases(plan: Mapping[str, Any]) -> tuple[Phase, ...]:
    return tuple(Phase(step["phase"]) for step in plan["steps"])


def _refuse_unless(allowed: bool, entry: Entry, why: str) -> None:
    if not allowed:
        raise Unfoldable(
            f"entry {entry.sequence} ({entry.kind} of {entry.body.get('release')}): {why}; it was "
            "not made by a release controller. Look at it with: penstock ledger show"
        )


_TAKERS: Mapping[str, Callable[[_Fold, Entry], None]] = {
    INTENT: _take_intent,
    IN_FORCE: _take_in_force,
    COMMAND: _take_command,
    APPROVAL: _take_approval,
}
