"""Laws of calibration: what happens as often as predicted has no error beyond chance."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.calibration import chance_error, expected_error, reliability

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=200)


def outcomes(n: int, seed: int) -> np.ndarray:
    """Return made-up outcomes."""
    return np.random.default_rng(seed).random(n) < 0.3


@given(probabilities, st.integers(0, 99), st.integers(1, 20))
def test_bins_hold_every_prediction_once_and_in_order(values: list[float], seed: int, bins: int):
    """Counts add up, means rise, and no bin is empty."""
    p = np.array(values)
    found = reliability(p, outcomes(len(p), seed), bins=bins)

    assert sum(b.n for b in found) == len(p)
    assert all(b.n > 0 for b in found)
    assert len(found) <= bins
    means = [b.predicted for b in found]
    assert all(one <= other + 1e-12 for one, other in pairwise(means))


@given(probabilities, st.integers(0, 99))
def test_the_error_is_a_share_and_does_not_depend_on_the_order_of_rows(
    values: list[float], seed: int
):
    """It is between 0 and 1."""
    p, y = np.array(values), outcomes(len(values), seed)
    order = np.random.default_rng(seed).permutation(len(p))
    one = expected_error(reliability(p, y))

    assert 0 <= one <= 1
    # Equal predictions lie in one bin, so their order cannot matter.
    assert expected_error(reliability(p[order], y[order])) == pytest.approx(one)


def test_calibrated_predictions_err_as_much_as_chance_does():
    """Over many draws the mean error is what the formula says, within a tenth."""
    rng = np.random.default_rng(3)
    p = rng.beta(2, 5, 2000)
    errors, chances = [], []
    for _ in range(200):
        bins = reliability(p, rng.random(len(p)) < p)
        errors.append(expected_error(bins))
        chances.append(chance_error(bins))

    assert np.mean(errors) == pytest.approx(np.mean(chances), rel=0.1)


def test_overconfidence_is_seen():
    """Predictions moved away from what happens have an error of about that size."""
    rng = np.random.default_rng(3)
    p = rng.uniform(0.1, 0.8, 5000)
    happened = rng.random(len(p)) < p

    bins = reliability(p + 0.15, happened)

    assert expected_error(bins) == pytest.approx(0.15, abs=0.02)
    assert expected_error(bins) > 5 * chance_error(bins)


def test_of_no_prediction_nothing_is_known():
    """An error of nothing is not zero."""
    none = reliability(np.array([]), np.array([], bool))

    assert none == []
    assert expected_error(none) == math.inf
    assert chance_error(none) == math.inf


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(value: float):
    """Logits, say."""
    with pytest.raises(ValueError, match="outside 0 to 1"):
        reliability(np.array([0.5, value]), np.array([True, False]))
    with pytest.raises(ValueError, match="one each"):
        reliability(np.array([0.5]), np.array([True, False]))
