"""The traffic table that an action puts in force."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penstock.release import Fallback
from penstock.rollout.action import GIVES_BACK, MOVES_TRAFFIC, Action
from penstock.rollout.plan import Phase, Plan, Step
from penstock.rollout.state import Act, State
from penstock.rollout.table import BUCKETS, RULES, TrafficTable, buckets_for


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Where the versions of a release run."""

    champion: str | None
    """None of a first version: nobody else answers."""

    challenger: str


def table_for(
    action: Action, plan: Plan, state: State, slots: Slots, *, sequence: int, salt: str
) -> TrafficTable | None:
    """Return the table of an action, or None where it changes no traffic.

    Args:
        sequence: One above that of the table that was written last in the market.
        salt: The same during one release, so that a growing share moves nobody back.

    A first version that is given up leaves its users to the rules, where the policy falls back on
    them. It has None where not: there is nobody whom they could go to.

    Raises:
        ValueError: The action leads to a step that the plan does not have, or restores nothing.
    """
    if action.act not in MOVES_TRAFFIC:
        return None
    if action.act is Act.RESTORE:
        if state.table is None:
            raise ValueError(f"{state.release} has no table yet, so there is none to restore.")
        return replace(state.table, sequence=sequence)
    if action.act in GIVES_BACK:
        return _back(plan, state, slots, sequence, salt)
    if action.act is Act.FINISH:
        return _finished(plan, state, slots, sequence, salt)
    if action.step is None or not 0 <= action.step < len(plan.steps):
        raise ValueError(f"{action.act} leads to step {action.step}; there are {len(plan.steps)}.")
    return _at(plan.steps[action.step], plan, state, slots, sequence, salt)


def _at(
    step: Step, plan: Plan, state: State, slots: Slots, sequence: int, salt: str
) -> TrafficTable:
    """Return the table of a step; whom nobody asks any more gets a trickle, to be known to work."""
    if slots.champion is None:
        return _all_on(slots.challenger, plan, state, sequence, salt, fallback=None)
    buckets = buckets_for(step.percent)
    return TrafficTable(
        sequence=sequence,
        salt=salt,
        market=state.market,
        champion=slots.champion,
        challenger=None if step.phase is Phase.SHADOW else slots.challenger,
        buckets=buckets,
        mirror=slots.challenger if step.phase is Phase.SHADOW else None,
        trickle=slots.champion if buckets == BUCKETS else None,
        fallback=_fallback(plan, slots.champion),
    )


def _back(plan: Plan, state: State, slots: Slots, sequence: int, salt: str) -> TrafficTable | None:
    champion = slots.champion or _fallback(plan, None)
    if champion is None:
        return None
    return _all_on(champion, plan, state, sequence, salt, fallback=None)


def _finished(plan: Plan, state: State, slots: Slots, sequence: int, salt: str) -> TrafficTable:
    """Return the table of a challenger that became champion; the one before it stands by."""
    table = _all_on(slots.challenger, plan, state, sequence, salt, fallback=slots.champion)
    return replace(table, trickle=slots.champion)


def _all_on(
    slot: str, plan: Plan, state: State, sequence: int, salt: str, *, fallback: str | None
) -> TrafficTable:
    return TrafficTable(
        sequence=sequence,
        salt=salt,
        market=state.market,
        champion=slot,
        challenger=None,
        buckets=0,
        mirror=None,
        fallback=_fallback(plan, fallback),
    )


def _fallback(plan: Plan, previous: str | None) -> str | None:
    return RULES if plan.policy.kill_to is Fallback.RULES else previous
