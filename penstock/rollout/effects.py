"""What an intent makes of a release's state once its effect is read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstock.rollout.plan import Phase
from penstock.rollout.state import Act, Pending, State

_ENDS = {
    Act.ROLL_BACK: Phase.ROLLED_BACK,
    Act.FINISH: Phase.DONE,
    Act.FAIL: Phase.FAILED,
    Act.KILL: Phase.KILLED,
}


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An intent in force."""

    pending: Pending
    at: datetime
    """When it was read back, by the clock of the ledger."""

    phases: Sequence[Phase]
    """Of the plan's steps."""


def took_effect(state: State, effect: Effect) -> State:
    """Return the state after an intent; what only the ledger's grammar asks is checked already."""
    return _EFFECTS[effect.pending.act](state, effect)


def base(state: State) -> Phase:
    """Return the phase below a pause and below waiting for an approval."""
    return state.within or state.phase


def paused(state: State) -> bool:
    """Return whether a person stopped the release."""
    return state.phase is Phase.PAUSED


def _enter(state: State, effect: Effect) -> State:
    """Begin a step; the same one again, under another plan, stays stepped back and paused."""
    step = effect.pending.step
    assert step is not None
    if step == state.step and effect.pending.body.get("plan") is not None:
        here = base(state) if base(state) is Phase.STEPPED_BACK else effect.phases[step]
        within = None if state.within is None else here
        return _again(replace(state, within=within, phase=state.phase if within else here), effect)
    return _begun(replace(state, step=step, phase=effect.phases[step], within=None), effect)


def _step_back(state: State, effect: Effect) -> State:
    """Begin the step below; a release that a person paused stays paused there."""
    lower = replace(state, step=effect.pending.step)
    if paused(state):
        return _begun(replace(lower, within=Phase.STEPPED_BACK), effect)
    return _begun(replace(lower, phase=Phase.STEPPED_BACK, within=None), effect)


def _restore(state: State, effect: Effect) -> State:
    """Begin the step again: other versions answered some of its users meanwhile."""
    return replace(_again(state, effect), extended=state.extended)


def _again(state: State, effect: Effect) -> State:
    if not paused(state):
        state = replace(state, phase=base(state), within=None)
    return _begun(state, effect)


def _begun(state: State, effect: Effect) -> State:
    cleared = replace(state, extended=0, awaited=None, asked_at=None, fingerprint="")
    return replace(cleared, entered_at=effect.at)


def _await(state: State, effect: Effect) -> State:
    return replace(
        state,
        phase=Phase.AWAIT,
        within=base(state),
        awaited=effect.pending.step,
        asked_at=effect.at,
        fingerprint=str(effect.pending.body.get("fingerprint") or ""),
    )


def _pause(state: State, _effect: Effect) -> State:
    return replace(state, phase=Phase.PAUSED, within=base(state))


def _resume(state: State, _effect: Effect) -> State:
    """Go back to what was paused, which may be waiting for an approval."""
    if not paused(state):
        return state
    if state.awaited is not None:
        return replace(state, phase=Phase.AWAIT)
    return replace(state, phase=base(state), within=None)


def _extend(state: State, _effect: Effect) -> State:
    return replace(state, extended=state.extended + 1)


def _end(state: State, effect: Effect) -> State:
    ended = replace(state, phase=_ENDS[effect.pending.act], within=None)
    return replace(ended, awaited=None, asked_at=None, fingerprint="")


_EFFECTS: Mapping[Act, Callable[[State, Effect], State]] = {
    Act.ENTER: _enter,
    Act.STEP_BACK: _step_back,
    Act.ROLL_BACK: _end,
    Act.AWAIT: _await,
    Act.PAUSE: _pause,
    Act.RESUME: _resume,
    Act.EXTEND: _extend,
    Act.FINISH: _end,
    Act.FAIL: _end,
    Act.KILL: _end,
    Act.RESTORE: _restore,
}
