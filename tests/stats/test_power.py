"""Laws of the number of users that a comparison needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.power import detectable, users, users_of_shares

CLICKS = math.sqrt(0.05 * 0.95)
LEVELS = {"alpha": 0.05, "beta": 0.2}


def test_the_example_of_the_sources_needs_exactly_so_many():
    """From 5 % to 5.1 % at 95 % and 80 %: 745,644 of each, with exact quantiles alone."""
    assert users(CLICKS, 0.001, **LEVELS) == 745_644
    assert math.ceil(2 * (1.96 + 0.84) ** 2 * 0.0475 / 0.001**2) == 744_800
    assert users_of_shares(0.05, 0.051, **LEVELS) == 752_700


def test_25_000_users_show_half_a_point():
    """So many tell 5 % from 5.55 % and no less."""
    assert round(100 * detectable(CLICKS, 25_000, **LEVELS), 2) == 0.55


def test_432_of_each_tell_95_from_90_percent():
    """Where a thousand samples are asked for by rule of thumb, 432 have the power."""
    assert users_of_shares(0.95, 0.90, **LEVELS) == 432


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.001, 0.4), st.floats(0.001, 0.4))
def test_what_is_needed_is_what_can_be_detected(
    deviation: float, difference: float, alpha: float, beta: float
):
    """With so many users the difference is detectable, with one fewer it is not."""
    n = users(deviation, difference, alpha=alpha, beta=beta)

    assert detectable(deviation, n, alpha=alpha, beta=beta) <= difference * (1 + 1e-9)
    if n > 1:
        assert detectable(deviation, n - 1, alpha=alpha, beta=beta) >= difference * (1 - 1e-9)


@given(st.floats(0.01, 10), st.floats(0.1, 10), st.floats(1, 3))
def test_half_the_difference_needs_four_times_as_many(
    deviation: float, difference: float, more: float
):
    """The number falls with the square of the difference, whatever its sign."""
    n = users(deviation, difference, **LEVELS)

    assert users(deviation, -difference, **LEVELS) == n
    assert users(deviation, difference / 2, **LEVELS) == pytest.approx(4 * n, abs=4)
    assert users(deviation * more, difference, **LEVELS) >= n


def test_the_formula_has_the_power_it_promises():
    """With so many users a z-test finds the difference in 80 of 100 and a nothing in 5."""
    rng, n = np.random.default_rng(1), users(1.0, 0.25, **LEVELS)
    noise = rng.normal(0, math.sqrt(2 / n), 20_000)
    reach = 1.959964 * math.sqrt(2 / n)

    assert np.mean(np.abs(noise + 0.25) > reach) == pytest.approx(0.8, abs=0.01)
    assert np.mean(np.abs(noise) > reach) == pytest.approx(0.05, abs=0.006)


def test_what_cannot_be_is_refused():
    """No difference, no deviation, no users, no share."""
    with pytest.raises(ValueError, match="neither may be 0"):
        users(1.0, 0.0, **LEVELS)
    with pytest.raises(ValueError, match="between 0 and 1"):
        users(1.0, 1.0, alpha=1.0, beta=0.2)
    with pytest.raises(ValueError, match="more than 0"):
        detectable(1.0, 0, **LEVELS)
    with pytest.raises(ValueError, match="two different"):
        users_of_shares(0.1, 0.1, **LEVELS)
