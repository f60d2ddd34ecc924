"""Laws of judging a release step."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rollout.evidence import Arm, Evidence
from penstock.rollout.judge import PROCESS, REFUSED, at_most, at_most_more, critical, judge
from penstock.verdict import Outcome
from penstock.workload import Rollout

POLICY = Rollout(canary_percents=(10, 100), soak=timedelta(1), deadline=timedelta(2))


def arm(n: int = 400, *, errors: int = 0, refused: int = 0, slow: int = 0, wrong: int = 10) -> Arm:
    """Return an arm of n requests, all labelled."""
    answered = n - errors - refused
    return Arm(
        requests=n,
        errors=errors,
        refused=refused,
        slow=slow,
        answered=answered,
        labelled=answered,
        wrong=wrong,
    )


def evidence(challenger: Arm, *, compared: int = 400, disagreed: int = 0, alive: bool = True):
    """Return a step's evidence with a healthy champion."""
    return Evidence(
        champion=arm(),
        challenger=challenger,
        compared=compared,
        disagreed=disagreed,
        slow_limit_ms=20.0,
        newest_at=0.0,
        alive=alive,
    )


def test_a_healthy_challenger_passes():
    """Enough good answers pass every check."""
    assert judge(POLICY, evidence(arm()), shadow=True).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (arm(errors=60), "errors"),
        (arm(slow=120), "slower"),
        (arm(wrong=200), "wrong"),
        (arm(refused=200), "refused"),
    ],
)
def test_each_fault_fails_its_own_check(broken: Arm, named: str):
    """Errors, latency and wrong answers each fail, and the reason names which."""
    verdict = judge(POLICY, evidence(broken), shadow=False)

    assert verdict.outcome is Outcome.FAIL
    assert named in verdict.reason


NONE = Arm()


def refusals(challenger: Arm, champion: Arm, before: Arm = NONE):
    """Return the check of refused requests."""
    found = Evidence(champion=champion, challenger=challenger, before=before)
    (check,) = [c for c in judge(POLICY, found, shadow=False).checks if c.name == REFUSED]
    return check


def test_what_the_champion_refuses_too_is_not_held_against_the_challenger():
    """Clients that send wrong requests send them to both, and at the last step to one alone."""
    wrong = arm(4000, refused=400)

    assert refusals(wrong, champion=wrong).outcome is Outcome.PASS
    assert refusals(wrong, champion=NONE, before=wrong).outcome is Outcome.PASS
    assert refusals(wrong, champion=arm(4000)).outcome is Outcome.FAIL
    assert refusals(wrong, champion=NONE, before=arm(4000)).outcome is Outcome.FAIL


def test_a_first_version_may_refuse_what_the_policy_says():
    """Without a champion the share itself has a limit."""
    assert refusals(arm(400, refused=0), champion=NONE).outcome is Outcome.PASS
    assert refusals(arm(400, refused=60), champion=NONE).outcome is Outcome.FAIL
    assert refusals(Arm(), champion=arm()).outcome is Outcome.ERROR


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 300), st.integers(1, 300))
def test_held_against_another_share_nothing_is_clearer_than_held_against_its_estimate(
    events: int, trials: int, others: int, of: int
):
    """That the usual share is not known either can only take away from a pass or a fail."""
    events, others = min(events, trials), min(others, of)
    limit = min(0.05 + others / of, 0.999)
    alone = at_most("x", events, trials, limit, 1, 0.01).outcome
    found = at_most_more("x", (events, trials), (others, of), limit - others / of, 1, 0.01).outcome

    assert found in (alone, Outcome.INCONCLUSIVE)


def test_requests_left_out_for_their_ids_are_told():
    """Who waits in vain for comparisons reads why there are none."""
    repeats = Arm(requests=400, answered=400, repeated=400)
    verdict = judge(POLICY, evidence(repeats, compared=0), shadow=True)

    assert verdict.outcome is Outcome.ERROR
    assert sum("400 requests left out" in c.reason for c in verdict.checks) == 2


def test_disagreement_counts_in_shadow_only():
    """Other decisions than the champion's fail shadow; no mirrored pair exists afterwards."""
    apart = evidence(arm(), disagreed=100)

    assert judge(POLICY, apart, shadow=True).outcome is Outcome.FAIL
    assert judge(POLICY, apart, shadow=False).outcome is Outcome.PASS


def test_nothing_measured_is_an_error():
    """A step without a single request is no pass."""
    assert judge(POLICY, evidence(Arm(), compared=0), shadow=True).outcome is Outcome.ERROR


def test_a_dead_process_is_critical():
    """A challenger that is down fails whatever its answers were."""
    verdict = judge(POLICY, evidence(arm(), alive=False), shadow=False)

    assert verdict.outcome is Outcome.FAIL
    assert critical(verdict)
    assert PROCESS in verdict.reason


def test_too_few_requests_cannot_pass():
    """However good, fewer requests than the policy asks for are inconclusive."""
    few = at_most("errors", 0, 49, 0.5, 50, 0.01)

    assert few.outcome is Outcome.INCONCLUSIVE


def test_a_harmless_challenger_looked_at_all_the_time_is_rarely_failed():
    """A share exactly at its limit fails in at most alpha of releases, looking at every request."""
    rng = np.random.default_rng(7)
    alpha, limit, releases, requests = 0.05, 0.05, 400, 400

    failed = 0
    for _ in range(releases):
        events = np.cumsum(rng.random(requests) < limit)
        looks = range(1, requests, 5)
        failed += any(
            at_most("errors", int(events[n]), n + 1, limit, 50, alpha).outcome is Outcome.FAIL
            for n in looks
        )

    assert failed / releases <= alpha


def test_refusals_looked_at_all_the_time_are_rarely_judged_wrongly():
    """A share just at its limit above the champion's, of whom little is known, stays undecided."""
    rng = np.random.default_rng(11)
    alpha, usual, above, releases, looks = 0.1, 0.1, 0.05, 150, range(20, 600, 20)

    judged = 0
    for _ in range(releases):
        one, other = rng.random(600) < usual, rng.random(600) < usual + above
        n_one, n_other = np.cumsum(one).tolist(), np.cumsum(other).tolist()
        judged += any(
            at_most_more(
                "x", (n_other[n], n + 1), (n_one[n // 10], n // 10 + 1), above, 1, alpha
            ).outcome
            is not Outcome.INCONCLUSIVE
            for n in looks
        )

    assert judged / releases <= alpha
