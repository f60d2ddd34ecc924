"""The smallest loop over the pure parts, which may die or be overtaken between any two effects.

Each ``yield`` is a point at which its process may end or another controller may act.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from penstock.ledger import Conflict, LedgerError, Stage
from penstock.rollout.action import Action
from penstock.rollout.decide import decide, reconsider, replanned
from penstock.rollout.folding import BACKWARD, fold, plan_in_force
from penstock.rollout.judgement import Seen
from penstock.rollout.plan import Phase, Plan
from penstock.rollout.ports import Stale
from penstock.rollout.state import IN_FORCE, INTENT, Act, Pending, State
from penstock.rollout.tables import table_for
from tests.rollout.machine import VERSION, WORKLOAD, Decision, World

FORWARD = frozenset({Act.ENTER, Act.FINISH})
AGAIN = FORWARD | {Act.RESTORE}
_ENDS_BADLY = frozenset({Act.ROLL_BACK, Act.FAIL, Act.KILL})


def tick(world: World, market: str, who: str) -> Iterator[None]:
    """Observe, decide, write the intent, act, read back, confirm; once."""
    head, state = _read(world, market)
    if state.pending is not None:
        yield from _resume(world, market, who, state, head)
        return
    action, made = _decided(world, market, who, state)
    yield
    if action.act is not None:
        body = _body(world, market, state, action, made)
        yield from _written(world, market, who, body, head, made)


def _written(
    world: World, market: str, who: str, body: dict[str, Any], head: int, made: Decision
) -> Iterator[None]:
    """Write an intent, unless somebody was faster, and do what it says."""
    yield
    if not _appended(world, who, INTENT, body, head):
        return
    world.behind[world.ledger.head().sequence] = made
    yield
    pending = _read(world, market)[1].pending
    if pending is not None and pending.n == body["n"]:
        yield from _finish(world, market, who, pending)


def _resume(world: World, market: str, who: str, state: State, head: int) -> Iterator[None]:
    """Finish what another process began; what it only intended must be right still."""
    pending = state.pending
    assert pending is not None
    if pending.act not in AGAIN or _begun(world, market, pending):
        yield from _finish(world, market, who, pending)
        return
    action, made = _decided(world, market, who, state)
    yield
    if (action.act, action.step) == (pending.act, pending.step):
        yield from _finish(world, market, who, pending)
    elif action.act is not None:
        body = _body(world, market, state, action, made)
        yield from _written(world, market, who, body, head, made)


def _begun(world: World, market: str, pending: Pending) -> bool:
    if pending.act is Act.FINISH and world.stage() is Stage.PRODUCTION:
        return True
    return world.plane.written(market) == pending.table


def _read(world: World, market: str) -> tuple[int, State]:
    entries = world.ledger.entries()
    return entries[-1].sequence, fold(entries, world.release(market))


def _decided(world: World, market: str, who: str, state: State) -> tuple[Action, Decision]:
    """Return what is to be done, and all that it was decided by."""
    seen, now = world.look(market, state, who), world.clock(who)
    plan = world.plans[market]
    action = _action(plan, state, seen, now, changed=_changed(world, market))
    made = Decision(state=state, seen=seen, now=now, act=action.act, plan=plan)
    world.decisions.append(made)
    return action, made


def _changed(world: World, market: str) -> bool:
    return plan_in_force(world.ledger.entries(), world.release(market)) != world.declared[market]


def _action(plan: Plan, state: State, seen: Seen, now: datetime, *, changed: bool) -> Action:
    anew = replanned(plan, replace(state, pending=None)) if changed else None
    if anew is not None and anew.act is Act.ROLL_BACK:
        return anew
    asked = decide if state.pending is None else reconsider
    action = asked(plan, state, seen, now)
    return action if anew is None or action.act in BACKWARD else anew


def _body(
    world: World, market: str, state: State, action: Action, made: Decision
) -> dict[str, Any]:
    table = table_for(
        action,
        world.plans[market],
        state,
        world.slots,
        sequence=world.plane.written(market).sequence + 1,
        salt=state.release,
    )
    judgement = made.seen.judgement
    restarts = action.act is Act.ENTER and action.step == state.step
    plan = {"plan": world.declared[market], "plan_hash": ""}
    return {
        "release": state.release,
        "n": state.n + 1,
        "action": str(action.act),
        "step": action.step,
        "why": action.why,
        "table": None if table is None else table.to_dict(),
        "verdict": None if judgement is None else judgement.verdict.to_dict(),
        "fingerprint": f"evidence of step {state.step} since {state.entered_at.isoformat()}",
        "answers": action.answers,
        "strike": action.strike,
        **(plan if restarts else {}),
    }


def _appended(world: World, who: str, kind: str, body: dict[str, Any], head: int) -> bool:
    """Append, unless somebody did since the head that it was decided on."""
    try:
        world.ledger.append(
            workload=WORKLOAD,
            version=VERSION,
            kind=kind,
            body=body,
            actor=world.actor,
            now=world.clock(who),
            expect=head,
        )
    except Conflict:
        return False
    return True


def _finish(world: World, market: str, who: str, pending: Pending) -> Iterator[None]:
    """Do what an intent says, whoever wrote it: each effect may have been there before."""
    yield from _moved(world, market, who, pending)
    yield
    if pending.table is not None:
        try:
            world.plane.apply(pending.table)
        except Stale:
            yield from _again(world, market, who, pending)
            return
        yield
        world.plane.wait_applied(pending.table, timeout_s=1)
    yield
    while True:
        head, state = _read(world, market)
        if state.pending is None or state.pending.n != pending.n:
            return
        yield
        body = {"release": state.release, "n": pending.n, "milliseconds": 1.0}
        if _appended(world, who, IN_FORCE, body, head):
            return
        yield


def _again(world: World, market: str, who: str, pending: Pending) -> Iterator[None]:
    """Write another intent in the place of one whose table came too late."""
    head, state = _read(world, market)
    if state.pending is None or state.pending.n != pending.n:
        return
    yield
    if pending.act in BACKWARD and pending.table is not None:
        made = _behind(world, market, pending.n)
        body = _repeated(world, market, state, pending)
    else:
        action, made = _decided(world, market, who, state)
        if action.act is None:
            return
        body = _body(world, market, state, action, made)
    yield from _written(world, market, who, body, head, made)


def _behind(world: World, market: str, n: int) -> Decision:
    written = {e.body["n"]: e.sequence for e in world.ledgered(market)}
    return world.behind[written[n]]


def _repeated(world: World, market: str, state: State, pending: Pending) -> dict[str, Any]:
    assert pending.table is not None
    sequence = world.plane.written(market).sequence + 1
    table = replace(pending.table, sequence=sequence)
    return {**pending.body, "n": state.n + 1, "table": table.to_dict()}


def _moved(world: World, market: str, who: str, pending: Pending) -> Iterator[None]:
    """Move the version as far through its lifecycle as the intent stands for."""
    for stage in _stages(world, market, pending):
        yield
        # Somebody else may be faster, or archive the version: the next tick sees it.
        with suppress(LedgerError):
            world.move(stage, pending.why)


def _stages(world: World, market: str, pending: Pending) -> tuple[Stage, ...]:
    if pending.act in _ENDS_BADLY:
        return () if world.elsewhere(market) else (Stage.ARCHIVED,)
    if pending.act is Act.FINISH:
        return (Stage.PRODUCTION,)
    if pending.act is not Act.ENTER or pending.step is None:
        return ()
    shadow = world.plans[market].steps[pending.step].phase is Phase.SHADOW
    return (Stage.SHADOW,) if shadow else (Stage.SHADOW, Stage.CANARY)
