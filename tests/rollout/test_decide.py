"""Laws of the release decision: only a pass moves forward, harm always moves back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.rollout.decide import (
    Advance,
    Hold,
    Plan,
    Progress,
    Promote,
    RollBack,
    Step,
    decide,
    plan_of,
)
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Rollout

POLICY = Rollout(
    canary_percents=(10, 25, 50, 100),
    soak=timedelta(days=1),
    deadline=timedelta(days=14),
    time_scale=1 / 86_400,  # a day becomes a second
    evidence_timeout=timedelta(days=3),
)
PLAN = plan_of(POLICY)
START = datetime(2026, 1, 5, tzinfo=UTC)


def verdict(outcome: Outcome) -> Verdict:
    """Return a verdict of one check that ended so."""
    return Verdict((Check(name="errors", outcome=outcome, reason="seen"),))


def at(step: int, *, silent: timedelta = timedelta(0), waited: timedelta) -> Progress:
    """Return progress of a step entered so long before START."""
    return Progress(step=step, entered_at=START - waited, evidence_at=START - silent)


def test_a_policy_becomes_shadow_and_its_shares_in_order():
    """A plan is shadow first, then every declared share, with times scaled once."""
    assert [s.percent for s in PLAN.steps] == [0, 10, 25, 50, 100]
    assert PLAN.soak == timedelta(seconds=1)


@given(st.integers(0, 4), st.sampled_from(Outcome), st.floats(0, 30), st.floats(0, 30))
def test_only_a_pass_after_the_soak_moves_forward(
    step: int, outcome: Outcome, waited_s: float, silent_s: float
):
    """Whatever the clock and the step, a forward move needs a pass and a whole soak."""
    waited, silent = timedelta(seconds=waited_s), timedelta(seconds=silent_s)

    action = decide(PLAN, at(step, waited=waited, silent=silent), verdict(outcome), START)

    if isinstance(action, Advance | Promote):
        assert outcome is Outcome.PASS
        assert waited >= PLAN.soak
        assert silent <= PLAN.evidence_timeout


@given(st.integers(0, 4), st.floats(0, 30))
def test_a_failure_never_waits(step: int, waited_s: float):
    """A failing check rolls back at once, soak or not."""
    progress = at(step, waited=timedelta(seconds=waited_s))

    assert isinstance(decide(PLAN, progress, verdict(Outcome.FAIL), START), RollBack)


@given(st.integers(0, 4))
def test_an_empty_verdict_never_moves_forward(step: int):
    """Nothing checked is an error, which holds and then falls back, never a pass."""
    progress = at(step, waited=timedelta(seconds=5))

    assert isinstance(decide(PLAN, progress, Verdict(()), START), Hold)


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.ERROR])
def test_silence_returns_users_to_the_champion(outcome: Outcome):
    """Evidence that stopped arriving rolls back, even when what came before was a pass."""
    progress = at(2, waited=timedelta(seconds=5), silent=timedelta(seconds=3.1))

    action = decide(PLAN, progress, verdict(outcome), START)

    assert isinstance(action, RollBack)
    assert "no evidence" in action.reason


def test_no_pass_by_the_deadline_rolls_back():
    """A step that stays inconclusive ends at its deadline."""
    progress = at(1, waited=PLAN.deadline + timedelta(seconds=1))

    assert isinstance(decide(PLAN, progress, verdict(Outcome.INCONCLUSIVE), START), RollBack)


def test_a_clock_set_back_does_not_shorten_the_soak():
    """A step that seems to begin in the future holds."""
    progress = at(1, waited=timedelta(seconds=-3600), silent=timedelta(seconds=-3600))

    assert isinstance(decide(PLAN, progress, verdict(Outcome.PASS), START), Hold)


class ReleaseMachine(RuleBasedStateMachine):
    """Walks a release through random verdicts and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.begin()

    def begin(self) -> None:
        """Start at shadow with nothing passed."""
        self.now = START
        self.step = 0
        self.entered = START
        self.live: list[int] = [0]
        self.passed: list[int] = []
        self.finished = ""

    @precondition(lambda self: self.finished)
    @rule()
    def next_release(self) -> None:
        """A finished release stays finished; the next one is a new one."""
        self.begin()

    @precondition(lambda self: not self.finished)
    @rule(outcome=st.sampled_from(Outcome), waited=st.floats(0.0, 2.5))
    def tick(self, outcome: Outcome, waited: float) -> None:
        """Let time pass, look, act."""
        self.now += timedelta(seconds=waited)
        progress = Progress(step=self.step, entered_at=self.entered, evidence_at=self.now)
        action = decide(PLAN, progress, verdict(outcome), self.now)
        if outcome is Outcome.PASS and not isinstance(action, Hold):
            self.passed.append(PLAN.steps[self.step].percent)
        if isinstance(action, Advance):
            self.step, self.entered = action.step, self.now
            self.live.append(PLAN.steps[action.step].percent)
        elif isinstance(action, Promote):
            self.finished = "promoted"
        elif isinstance(action, RollBack):
            self.finished = "rolled back"

    @invariant()
    def promotion_needs_a_pass_at_every_step(self) -> None:
        """Nothing is promoted but by a pass at shadow and at each share, in order."""
        if self.finished == "promoted":
            assert self.passed == [step.percent for step in PLAN.steps]

    @invariant()
    def shares_only_grow(self) -> None:
        """Across forward steps the challenger's share only grows."""
        assert self.live == sorted(set(self.live))


TestRelease = ReleaseMachine.TestCase


def test_a_plan_of_one_step_promotes_from_it():
    """The first version has one step and is promoted from it."""
    plan = Plan(
        steps=(Step(name="first version", percent=100),),
        soak=PLAN.soak,
        deadline=PLAN.deadline,
        evidence_timeout=PLAN.evidence_timeout,
    )

    action = decide(plan, at(0, waited=timedelta(seconds=2)), verdict(Outcome.PASS), START)

    assert action == Promote()
