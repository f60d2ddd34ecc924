"""Laws of judging a release step."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from penstock.rollout.evidence import Arm, Evidence
from penstock.rollout.judge import PROCESS, at_most, critical, judge
from penstock.verdict import Outcome
from penstock.workload import Rollout

POLICY = Rollout(canary_percents=(10, 100), soak=timedelta(1), deadline=timedelta(2))


def arm(n: int = 400, *, errors: int = 0, slow: int = 0, wrong: int = 10) -> Arm:
    """Return an arm of n requests, all labelled."""
    answered = n - errors
    return Arm(
        requests=n, errors=errors, slow=slow, answered=answered, labelled=answered, wrong=wrong
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
    ],
)
def test_each_fault_fails_its_own_check(broken: Arm, named: str):
    """Errors, latency and wrong answers each fail, and the reason names which."""
    verdict = judge(POLICY, evidence(broken), shadow=False)

    assert verdict.outcome is Outcome.FAIL
    assert named in verdict.reason


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
