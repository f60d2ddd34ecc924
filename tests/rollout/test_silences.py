"""Laws of silences: a server that is down makes no table wrong, and a wrong table is still seen."""

from __future__ import annotations

import pytest

from penstock.rollout import judge
from penstock.rollout.evidence import Answers, Evidence
from penstock.verdict import Outcome
from tests.rollout.simulated import T0, step_of
from tests.rollout.test_judge import CANARY, judged, outcomes


def without(evidence: Evidence, silent: str, begin: float, end: float) -> Evidence:
    """Return evidence in which one arm left no record for some seconds."""
    arm: Answers = getattr(evidence, silent)
    kept = (arm.at_n < T0 + begin) | (arm.at_n >= T0 + end)
    return type(evidence)(**{**vars(evidence), silent: arm.where(kept)})


@pytest.mark.parametrize("silent", ["challenger", "champion"])
@pytest.mark.parametrize("begin", [0.0, 10.0, 20.0])
def test_an_arm_that_was_down_makes_no_table_wrong(silent: str, begin: float):
    """At the beginning of a step, in its middle or until now; as long as it lasts."""
    evidence = step_of(CANARY, seconds=30, users=60_000)

    found = outcomes(judged(without(evidence, silent, begin, begin + 10), after=31.0))

    assert found[judge.SPLIT] is Outcome.PASS


@pytest.mark.parametrize("silent", ["challenger", "champion"])
def test_a_table_that_divides_otherwise_is_still_seen(silent: str):
    """Half of an arm's answers are another's all the time: no silence explains it."""
    evidence = step_of(CANARY, seconds=30, users=60_000)
    arm = getattr(evidence, silent)
    halved = {**vars(evidence), silent: arm.where(arm.user_n % 2 == 0)}

    assert outcomes(judged(Evidence(**halved), after=31.0))[judge.SPLIT] is Outcome.FAIL
