"""Laws of the always-valid difference of two means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock.stats.confseq import Difference, difference

NUMBERS = arrays(np.float64, st.integers(2, 40), elements=st.floats(-100, 100, width=32))


def missed(draw, rng: np.random.Generator, *, runs: int, **told) -> tuple[float, float]:
    """Return how often a bound is ever wrong without any difference, below and above."""
    low = high = 0
    for _ in range(runs):
        one_u, other_u = draw(rng, 300), draw(rng, 2700)
        found = [
            difference(one_u[:n], other_u[: 9 * n], alpha=0.02, least=50, **told)
            for n in range(50, 301, 10)
        ]
        low += any(f.low > 0 for f in found)
        high += any(f.high < 0 for f in found)
    return low / runs, high / runs


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.binomial(8, rng.beta(1, 9, n)) / 8,  # clicks of users unlike each other
        lambda rng, n: rng.normal(0, 1, n),
        lambda rng, n: rng.standard_t(3, n),
    ],
)
def test_bounds_hold_at_every_look_at_once(draw):
    """With one in ten users on the challenger, each bound holds at 26 looks as often as asked."""
    low, high = missed(draw, np.random.default_rng(5), runs=500)

    assert max(low, high) <= 0.02


def test_revenue_is_safe_when_cut_off():
    """Heavy tails are no false alarm when cut off at a number fixed beforehand."""
    low, high = missed(
        lambda rng, n: rng.lognormal(0, 2, n), np.random.default_rng(6), runs=400, cap=20.0
    )

    assert max(low, high) <= 0.03


def test_users_who_come_back_do_not_break_it():
    """The same users click on and on, their means change, and the bounds hold at every look."""
    rng, wrong, runs = np.random.default_rng(7), 0, 400
    for _ in range(runs):
        taste_u = np.repeat(rng.beta(2, 18, 1100)[:, None], 1, axis=1)
        clicks_ut = np.cumsum(rng.random((1100, 40)) < taste_u, axis=1) / np.arange(1, 41)
        wrong += any(
            difference(c[:100], c[100:], alpha=0.02, least=100, deviation=0.3).low > 0
            for c in clicks_ut.T
        )

    assert wrong / runs <= 0.02


def test_the_width_is_known():
    """Of 100 and 900 users with deviation a half, at 5 % and narrowest there: 2.78 errors."""
    found = difference(np.tile([0.0, 1], 50), np.tile([0.0, 1], 450), alpha=0.05, least=100)

    assert found.high == pytest.approx(0.14713, abs=1e-5)


def test_a_real_difference_is_found():
    """Of half a standard deviation, with 400 users on the challenger, nearly always."""
    rng = np.random.default_rng(8)
    found = [
        difference(rng.normal(0.5, 1, 400), rng.normal(0, 1, 3600), alpha=0.01, least=100).low > 0
        for _ in range(100)
    ]

    assert np.mean(found) >= 0.99


@given(NUMBERS, NUMBERS, st.floats(0.001, 0.4))
def test_bounds_hold_the_estimate_and_swap(one_u: np.ndarray, other_u: np.ndarray, alpha: float):
    """The estimate lies between the bounds; with the arms swapped everything changes its sign."""
    found = difference(one_u, other_u, alpha=alpha, least=2)
    swapped = difference(other_u, one_u, alpha=alpha, least=2)

    assert found.estimate is not None
    assert found.low <= found.estimate <= found.high
    assert swapped.low == pytest.approx(-found.high)
    assert swapped.high == pytest.approx(-found.low)


@given(NUMBERS, NUMBERS)
def test_a_stricter_level_is_wider(one_u: np.ndarray, other_u: np.ndarray):
    """A smaller alpha never narrows the bounds."""
    loose, strict = (difference(one_u, other_u, alpha=a, least=2) for a in (0.1, 0.001))

    assert strict.low <= loose.low
    assert strict.high >= loose.high


@given(NUMBERS, NUMBERS, st.floats(-50, 50))
def test_both_moved_alike_is_no_difference(one_u: np.ndarray, other_u: np.ndarray, by: float):
    """What happens to both arms alike moves nothing."""
    found = difference(one_u, other_u, alpha=0.05, least=2)
    moved = difference(one_u + by, other_u + by, alpha=0.05, least=2)

    assert moved.estimate == pytest.approx(found.estimate, abs=1e-9)
    # Of numbers that do not vary, rounding alone says whether anything is known.
    if math.isfinite(found.low) and found.high - found.low > 1e-6:
        assert moved.low == pytest.approx(found.low, abs=1e-6)


def test_an_outlier_counts_no_more_than_the_cap():
    """With a cap, a million is the cap."""
    one_u, other_u = np.array([1.0, 2, 3, 1e6]), np.array([1.0, 2, 3, 1])

    assert difference(one_u, other_u, alpha=0.1, least=2, cap=10.0) == difference(
        np.array([1.0, 2, 3, 10]), other_u, alpha=0.1, least=2
    )


def test_few_users_know_nothing():
    """Below the least number in either arm, bounds are infinite; without any, so is everything."""
    few = difference(np.ones(9), np.arange(100.0), alpha=0.1, least=10)

    assert (few.low, few.high, few.n, few.m) == (-math.inf, math.inf, 9, 100)
    none = difference(np.empty(0), np.arange(3.0), alpha=0.1, least=1)
    assert none == Difference(estimate=None, low=-math.inf, high=math.inf, n=0, m=3)
    assert "no users" in str(none)


def test_what_never_varies_is_no_certainty():
    """A hundred users without a click do not show that nobody ever clicks."""
    zeros = np.zeros(100)

    assert difference(zeros, zeros, alpha=0.1, least=10).high == math.inf
    assert 0 < difference(zeros, zeros, alpha=0.1, least=10, deviation=0.2).high < math.inf


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"least": 0}, {"cap": 0.0}, {"deviation": -1.0}])
def test_what_cannot_be_is_refused(wrong: dict):
    """A level that is none, no least users, a cap or deviation that is not above 0."""
    with pytest.raises(ValueError, match="give"):
        difference(np.ones(3), np.ones(3), **{"alpha": 0.1, "least": 2, **wrong})


def test_a_missing_number_is_refused():
    """A NaN would make every comparison false, which is how harm passes."""
    with pytest.raises(ValueError, match="not finite"):
        difference(np.array([1.0, math.nan]), np.ones(3), alpha=0.1, least=2)
