"""Laws of the latency budget: parts add up, a faster part helps by its share, evidence decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.budget import TOGETHER, Budget, compare
from penstock.verdict import Outcome

EXAMPLE = Budget(
    {
        "network": 15.0,
        "features": 25.0,
        "parse": 5.0,
        "inference": 45.0,
        "post-processing": 5.0,
        "serialisation": 5.0,
    }
)
"""A budget of 100 ms at p99."""

budgets = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1000), min_size=1).map(Budget)


def test_the_example_adds_up_to_its_shares():
    """15, 25, 5, 45, 5 and 5 ms are 100 ms, and so many percent of it."""
    assert EXAMPLE.total_ms == 100
    assert [round(share, 9) for share in EXAMPLE.shares.values()] == [
        0.15, 0.25, 0.05, 0.45, 0.05, 0.05,
    ]  # fmt: skip


def test_a_model_twice_as_fast_makes_the_example_a_quarter_faster():
    """Twice as fast inference gives 77.5 ms: 1.29 times as fast, not 2."""
    assert EXAMPLE.faster("inference", 2).total_ms == 77.5
    assert EXAMPLE.gain("inference", 2) == pytest.approx(1.290, abs=5e-4)


@given(budgets, st.floats(1, 1e6))
def test_a_faster_part_helps_by_no_more_than_its_share(budget: Budget, times: float):
    """However fast a part becomes, the others stay (Amdahl's law)."""
    for part, share in budget.shares.items():
        gain = budget.gain(part, times)
        assert 1 - 1e-9 <= gain <= times * (1 + 1e-9)
        assert gain == pytest.approx(1 / (1 - share + share / times), rel=1e-6)


@given(budgets)
def test_shares_add_up_to_one(budget: Budget):
    """Nothing of the whole is outside the parts."""
    assert sum(budget.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("parts", [{}, {"a": 0.0}, {"a": -1.0}, {"a": float("nan")}])
def test_a_budget_without_time_is_refused(parts: dict[str, float]):
    """No part, or one that may take nothing, is a mistake in the declaration."""
    with pytest.raises(ValueError, match="a latency budget names parts"):
        Budget(parts)


def test_a_part_that_there_is_not_is_refused():
    """A misspelt part says what there is."""
    with pytest.raises(ValueError, match="no part 'model'; the budget has network, features"):
        EXAMPLE.faster("model", 2)
    with pytest.raises(ValueError, match="give more than 0"):
        EXAMPLE.faster("inference", 0)


def outcomes(budget: Budget, spent: dict[str, list[float]], whole: list[float]) -> dict[str, str]:
    """Return the outcome of each check."""
    verdict = compare(budget, {p: np.array(v) for p, v in spent.items()}, np.array(whole))
    return {check.name: str(check.outcome) for check in verdict.checks}


def test_a_part_passes_fails_or_has_too_few_requests():
    """Of 1000 requests 0 over is a pass and 40 a failure; of 50 none over shows nothing."""
    budget = Budget({"read": 5.0, "features": 25.0, "inference": 45.0})
    spent = {
        "read": [1.0] * 1000,
        "features": [1.0] * 960 + [30.0] * 40,
        "inference": [1.0] * 50,
    }

    assert outcomes(budget, spent, [10.0] * 1000) == {
        "read": "pass",
        "features": "fail",
        "inference": "inconclusive",
        TOGETHER: "pass",
    }


def test_what_nobody_measured_is_no_pass():
    """A part of the budget that is not in the measurements leaves the whole undecided."""
    budget, spent = Budget({"network": 15.0, "read": 5.0}), {"read": np.full(1000, 1.0)}

    verdict = compare(budget, spent, np.full(1000, 1.0))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    network, _, together = verdict.checks
    assert network.reason == "not measured, at most 15 ms"
    assert together.limit == 5.0


def test_a_part_that_no_request_needed_took_no_time():
    """Of enough requests it passes, of few it is not known, and the whole has less time then."""
    budget = Budget({"features": 25.0, "read": 5.0})
    outcomes = []
    for n in (1000, 50, 0):
        taken_n = np.full(n, 1.0)
        verdict = compare(budget, {"read": taken_n}, taken_n, avoidable=("features",))
        outcomes.append(str(verdict.checks[0].outcome))
        assert verdict.checks[-1].limit == (5.0 if n else 30.0)

    assert outcomes == ["pass", "inconclusive", "inconclusive"]


def test_a_part_without_a_budget_is_an_error():
    """Time that was spent where none was planned is said with its p99."""
    spent = {"read": [1.0] * 1000, "queue": [7.0] * 1000}

    held = outcomes(Budget({"read": 5.0}), spent, [2.0] * 1000)

    assert held["queue"] == "error"


def test_the_screen_says_how_many_times_a_limit_was_taken():
    """A model of 200 ms behind a limit of 20 ms reads as ten times too slow."""
    taken_n = np.full(1000, 200.0)
    verdict = compare(Budget({"inference": 20.0}), {"inference": taken_n}, taken_n)

    assert "p99 200 ms, at most 20 ms (10x); 1,000 of 1,000 over" in str(verdict)
    assert verdict.outcome is Outcome.FAIL


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(wrong: float):
    """A clock that went back, or none, is a mistake and no fast request."""
    with pytest.raises(ValueError, match="read: a time is negative or not finite"):
        compare(Budget({"read": 5.0}), {"read": np.array([wrong])}, np.array([1.0]))


@given(st.integers(0, 400), st.integers(1, 3000))
def test_more_requests_over_a_limit_never_make_it_better(over: int, within: int):
    """With one request more over its limit, a part is judged the same or worse."""
    order = ["pass", "inconclusive", "fail"]
    budget, taken = Budget({"a": 1.0}), [0.5] * within
    less, more = (outcomes(budget, {"a": taken + [2.0] * n}, [0.5])["a"] for n in (over, over + 1))

    assert order.index(less) <= order.index(more)
