"""Decide what a release does next. Only a pass moves traffic forward; silence never does.

:func:`decide` asks each rule below in order and takes the first answer. The order is the priority:
what ends a release, then what moves users back, then what a person asked, then what waits, and
forward only when none of these has anything to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from penstock.rollout.action import MOVES_TRAFFIC, Action, lasting
from penstock.rollout.case import Case
from penstock.rollout.judgement import Seen
from penstock.rollout.plan import ENDED, Phase, Plan
from penstock.rollout.state import Act, Ask, Command, State
from penstock.rollout.table import buckets_for
from penstock.verdict import Outcome


def decide(plan: Plan, state: State, seen: Seen, now: datetime) -> Action:
    """Return the next action of a release.

    It is asked at every tick, so the judgement must hold under repeated looks.

    Args:
        state: Without a pending intent, which is to be finished first.
        seen: What was observed for this state; evidence counts since ``state.entered_at``.
        now: A clock that was set back never shortens a soak: the step has then lasted no time.

    Raises:
        ValueError: An intent is pending, or the plan has no step of the state's index.
    """
    if state.pending is not None:
        raise ValueError(
            f"intent {state.pending.n} of {state.release} is not finished; finish it, then decide."
        )
    if state.phase not in ENDED and state.step is not None and state.step >= len(plan.steps):
        raise ValueError(f"{state.release} is at step {state.step}, which its plan does not have.")
    case = Case(plan, state, seen, now)
    for rule in RULES:
        action = rule(case)
        if action is not None:
            return action
    return _forward(case)


def reconsider(plan: Plan, state: State, seen: Seen, now: datetime) -> Action:
    """Return what becomes of a pending move forward of which nothing was done yet.

    Its writer may have died long ago: the evidence may be gone, a person may have asked otherwise.
    The same act and step: finish it; a hold: leave it; another act: write that in its place. Its
    writer may also be about to put its table in force, so what takes its place has a table too.

    Raises:
        ValueError: No intent is pending.
    """
    if state.pending is None:
        raise ValueError(f"no intent of {state.release} is pending; decide what to do.")
    before = replace(state, pending=None)
    action = decide(plan, before, seen, now)
    if action.act is None or action.act in MOVES_TRAFFIC:
        return action
    if Case(plan, before, seen, now).unrestorable[0]:
        # Whoever took the users home wrote a newer table, so the intent's writer comes too late.
        return action
    if state.table is None:
        return Action(act=state.pending.act, step=state.pending.step, why=state.pending.why)
    why = f"before it is to {action.act}; {action.why}"
    return Action(act=Act.RESTORE, step=state.step, why=why)


def _ended(case: Case) -> Action | None:
    if case.state.phase not in ENDED:
        return None
    return Action(act=None, why=f"the release has ended: {case.state.reason}")


def _killed(case: Case) -> Action | None:
    return Action(act=Act.KILL, why=case.seen.killed) if case.seen.killed else None


def _asked_back(case: Case) -> Action | None:
    command = case.seen.command
    if command is None or command.ask not in (Ask.ROLL_BACK, Ask.ABORT):
        return None
    return Action(act=Act.ROLL_BACK, why=_said(command), answers=command.sequence)


def _archived(case: Case) -> Action | None:
    return Action(act=Act.ROLL_BACK, why=case.seen.lifecycle) if case.seen.lifecycle else None


def _refused(case: Case) -> Action | None:
    """A server that will not be ready ends a release; one that served users, at once."""
    if not case.seen.refused:
        return None
    if case.step is None:
        return Action(act=Act.FAIL, why=case.seen.refused)
    return Action(act=Act.ROLL_BACK, why=case.seen.refused, strike=True, critical=True)


def _harm(case: Case) -> Action | None:
    judged, step = case.seen.judgement, case.step
    if step is None or judged is None:
        return None
    if judged.critical:
        return Action(act=Act.ROLL_BACK, why=judged.critical, strike=True, critical=True)
    if judged.outcome is not Outcome.FAIL:
        return None
    if case.recovering:
        return _anew(case, judged.reason)
    # All users are on it while it bakes: a step lower would be the same share of them.
    if case.state.strikes or step.index == 0 or step.phase is Phase.BAKE:
        return Action(act=Act.ROLL_BACK, why=judged.reason, strike=True)
    return Action(act=Act.STEP_BACK, step=step.index - 1, why=judged.reason, strike=True)


def _anew(case: Case, reason: str) -> Action | None:
    """Count a failure in shadow after a step back only when evidence has begun anew.

    No user is on it there, and what fails while the first strike cools down may be the same
    incident, which may be nobody's fault here.
    """
    if case.waited < case.cooling or case.frozen_by_person:
        return None
    why = _join("the cool-down is over, evidence begins anew", f"put aside: {reason}")
    return Action(act=Act.ENTER, step=case.state.step, why=why)


def _silent(case: Case) -> Action | None:
    silence = case.now - case.seen_at
    if case.step is None or silence <= case.plan.evidence_timeout:
        return None
    if case.displaced and not case.unrestorable[0]:
        # Its users were taken from it, as by a watchdog: no fault of the challenger.
        return None
    return Action(act=Act.ROLL_BACK, why=_join(f"no evidence for {lasting(silence)}", case.reason))


def _displaced(case: Case) -> Action | None:
    if not case.displaced or case.unrestorable[0]:
        return None
    return Action(act=Act.RESTORE, step=case.state.step, why="another table took its place")


def _refusal(case: Case) -> Action | None:
    approval = case.seen.approval
    if case.state.awaited is None or approval is None or approval.granted:
        return None
    why = f"{approval.actor} refused: {approval.reason}"
    return Action(act=Act.ROLL_BACK, why=why, answers=approval.sequence)


def _asked(case: Case) -> Action | None:
    command = case.seen.command
    if command is None or command.ask not in (Ask.PAUSE, Ask.RESUME):
        return None
    act = Act.PAUSE if command.ask is Ask.PAUSE else Act.RESUME
    return Action(act=act, why=_said(command), answers=command.sequence)


def _paused(case: Case) -> Action | None:
    if case.state.phase is not Phase.PAUSED:
        return None
    return Action(act=None, why=_join("paused", case.state.reason), waits_for="person")


def _taken_home(case: Case) -> Action | None:
    """Users who are with the champion stay there until all is as it must be to move them."""
    why, waits_for = case.unrestorable
    if not case.displaced or not why:
        return None
    until = case.seen_at + case.plan.evidence_timeout
    text = _join("another table took its place", why)
    return Action(act=None, why=text, waits_for=waits_for, until=until)


def _preparing(case: Case) -> Action | None:
    if case.step is not None or case.seen.ready:
        return None
    deadline = case.state.opened_at + case.plan.steps[0].deadline
    if case.now > deadline and not case.frozen_by_person:
        return Action(act=Act.FAIL, why=f"not ready within {lasting(case.plan.steps[0].deadline)}")
    return Action(act=None, why="its server is not ready", waits_for="server", until=deadline)


def _unproven(case: Case) -> Action | None:
    """Without a pass it waits, once more where the policy allows it, and then goes back."""
    step = case.step
    if step is None or case.outcome is Outcome.PASS:
        return None
    deadline = case.deadline
    if case.now > deadline and not case.frozen_by_person:
        unclear = case.outcome is Outcome.INCONCLUSIVE
        more = unclear and case.state.extended < case.plan.policy.extensions
        why = _join(f"no pass within {lasting(step.deadline)}", case.reason)
        return Action(act=Act.EXTEND if more else Act.ROLL_BACK, why=why)
    if case.outcome is Outcome.ERROR:
        silence = case.seen_at + case.plan.evidence_timeout
        until = min(silence, deadline)
        return Action(act=None, why=case.reason, waits_for="evidence", until=until)
    if case.outcome is Outcome.FAIL and case.recovering:
        cooled = case.state.entered_at + case.cooling
        return Action(act=None, why=case.reason, waits_for="cool-down", until=cooled)
    return Action(act=None, why=case.reason, waits_for="users", until=deadline)


def _soaking(case: Case) -> Action | None:
    if case.step is None or case.waited >= case.cooling:
        return None
    what = "soak" if case.waited < case.step.soak else "cool-down"
    why = _join(f"{what}, {lasting(case.waited)} of {lasting(case.cooling)}", case.reason)
    return Action(act=None, why=why, waits_for=what, until=case.state.entered_at + case.cooling)


def _useless(case: Case) -> Action | None:
    """A version that is safe and no better ends, unless a person takes it as it is."""
    judged = case.seen.judgement
    if case.step is None or judged is None or not judged.no_value or case.promote:
        return None
    return Action(act=Act.ROLL_BACK, why=judged.reason)


def _unready(case: Case) -> Action | None:
    if case.seen.ready:
        return None
    return Action(act=None, why="the challenger's server is not ready", waits_for="server")


def _undocumented(case: Case) -> Action | None:
    if not case.seen.documents or case.next is None or case.next.shadow:
        return None
    lacking = ", ".join(case.seen.documents)
    return Action(act=None, why=f"before {case.next.name}: {lacking}", waits_for="documents")


def _unapproved(case: Case) -> Action | None:
    if case.next is None or not case.next.approve:
        return None
    if case.state.awaited != case.target:
        why = _join(f"{case.next.name} needs an approval", case.reason)
        return Action(act=Act.AWAIT, step=case.target, why=why)
    if case.seen.approval is not None:
        return None
    return Action(act=None, why=f"{case.next.name} needs an approval", waits_for="approval")


def _frozen(case: Case) -> Action | None:
    """Nobody moves forward where the way back is not known to work."""
    if case.plan.first:
        return None
    if not case.seen.standby_ready:
        return Action(act=None, why="the champion's server is not ready", waits_for="standby")
    shadow = case.next is not None and case.next.shadow
    if case.seen.drilled and not shadow:
        return Action(act=None, why=case.seen.drilled, waits_for="drill")
    return None


RULES: tuple[Callable[[Case], Action | None], ...] = (
    _ended,
    _killed,
    _asked_back,
    _archived,
    _refused,
    _harm,
    _silent,
    _refusal,
    _displaced,
    _asked,
    _paused,
    _taken_home,
    _preparing,
    _unproven,
    _soaking,
    _useless,
    _unready,
    _undocumented,
    _unapproved,
    _frozen,
)
"""In the order in which they are asked."""


def _forward(case: Case) -> Action:
    promote, approval = case.promote, case.seen.approval
    why, answers = case.reason or "ready", None
    if promote is not None:
        why, answers = _join(_said(promote), why), promote.sequence
    elif case.state.awaited == case.target and approval is not None:
        why = _join(f"{approval.actor} approved: {approval.reason}", why)
        answers = approval.sequence
    if case.next is None:
        return Action(act=Act.FINISH, why=why, answers=answers)
    return Action(act=Act.ENTER, step=case.target, why=why, answers=answers)


def replanned(plan: Plan, state: State) -> Action | None:
    """Return what a changed plan asks of a release under way; None before its first step.

    The step restarts where the new plan has the same one; where it has not, users go back, as no
    pass was ever made for what it says instead.
    """
    if state.step is None or state.table is None or state.phase in ENDED:
        return None
    step = plan.steps[state.step] if state.step < len(plan.steps) else None
    held = state.table.buckets
    if step is None or (not plan.first and buckets_for(step.percent) != held):
        why = "the plan was changed and has no such step; open a new release"
        return Action(act=Act.ROLL_BACK, why=why)
    return Action(act=Act.ENTER, step=state.step, why="the plan was changed: the step restarts")


def _said(command: Command) -> str:
    return f"{command.actor} asked to {command.ask}: {command.reason}"


def _join(*parts: str) -> str:
    return "; ".join(p for p in parts if p)
