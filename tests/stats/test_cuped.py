"""Laws of the adjustment by what users did before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.cuped import adjusted, theta

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int, known: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers that correlate by 0.8 with the time before, some of it missing."""
    rng = np.random.default_rng(seed)
    before_u = rng.normal(5, 1, n)
    value_u = 0.8 * before_u + 0.6 * rng.normal(0, 1, n)
    return value_u, np.where(rng.random(n) < known, before_u, np.nan)


@given(SEEDS, st.integers(1, 200), st.floats(0, 1))
def test_the_mean_stays(seed: int, n: int, known: float):
    """Whatever is known of before, the mean over both arms is what it was."""
    value_u, before_u = drawn(seed, n, known)

    assert adjusted(value_u, before_u).mean() == pytest.approx(value_u.mean())


@given(SEEDS, st.integers(2, 200))
def test_the_variance_never_grows(seed: int, n: int):
    """With a known pre-period of all, the least squares slope only takes away."""
    value_u, before_u = drawn(seed, n)

    assert adjusted(value_u, before_u).var() <= value_u.var() * (1 + 1e-9) + 1e-12


def test_the_variance_shrinks_by_the_squared_correlation():
    """A correlation of 0.8 leaves 0.36 of the variance."""
    value_u, before_u = drawn(3, 50_000)

    assert adjusted(value_u, before_u).var() / value_u.var() == pytest.approx(0.36, abs=0.01)
    assert theta(value_u, before_u) == pytest.approx(0.8, abs=0.02)


def test_the_difference_of_arms_is_kept():
    """An effect planted in one arm is found again, with less noise than without."""
    plain, quiet = [], []
    for seed in range(300):
        value_u, before_u = drawn(seed, 400, known=0.9)
        value_u[:100] += 0.3
        quieter_u = adjusted(value_u, before_u)
        plain.append(value_u[:100].mean() - value_u[100:].mean())
        quiet.append(quieter_u[:100].mean() - quieter_u[100:].mean())

    assert np.mean(quiet) == pytest.approx(0.3, abs=0.02)
    assert np.var(quiet) < 0.6 * np.var(plain)


def test_of_users_who_were_not_there_before_nothing_changes():
    """A user without a time before keeps the number; where nobody has one, all do."""
    value_u = np.array([1.0, 2.0, 3.0, 9.0])

    assert adjusted(value_u, np.array([1.0, 2.0, 3.0, np.nan]))[3] == 9
    assert adjusted(value_u, np.full(4, np.nan)).tolist() == value_u.tolist()
    assert theta(value_u, np.ones(4)) == 0


def test_what_does_not_fit_is_refused():
    """One number of each user, and none missing of now."""
    with pytest.raises(ValueError, match="give one"):
        adjusted(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="not finite"):
        adjusted(np.array([np.nan, 1.0]), np.ones(2))
