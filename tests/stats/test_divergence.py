"""Laws of the always-valid Kolmogorov-Smirnov distance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock.stats.divergence import radius, sequential_ks
from penstock.stats.drift import ks_distance

SAMPLES = arrays(np.float64, st.integers(3, 60), elements=st.floats(-5, 5, width=16))


@given(SAMPLES, SAMPLES)
def test_the_distance_is_the_usual_one(one_n: np.ndarray, other_m: np.ndarray):
    """The estimate is the two-sample statistic, either way round, between its bounds."""
    found = sequential_ks(one_n, other_m, alpha=0.05)

    assert found.estimate == pytest.approx(ks_distance(one_n, other_m).value, abs=1e-9)
    assert found == sequential_ks(other_m, one_n, alpha=0.05)
    assert found.estimate is not None
    assert 0 <= found.low <= found.estimate <= found.high <= 1


@given(st.integers(1, 10_000), st.floats(0.001, 0.2))
def test_more_values_and_a_looser_level_are_narrower(n: int, alpha: float):
    """The radius falls with the number of values and with alpha."""
    assert radius(n + 1, alpha=alpha) <= radius(n, alpha=alpha) <= radius(n, alpha=alpha / 2)


def test_equal_scores_are_never_called_apart():
    """Looked at all the time, samples of one distribution have a lower bound of 0."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        one_n, other_m = rng.normal(size=3000), rng.normal(size=3000)
        assert all(
            sequential_ks(one_n[:n], other_m[:n], alpha=0.05).low == 0 for n in range(50, 3001, 150)
        )


def test_other_scores_are():
    """Moved by half a deviation, 5,000 of each show it."""
    rng = np.random.default_rng(1)

    assert sequential_ks(rng.normal(size=5000), rng.normal(0.5, 1, 5000), alpha=0.05).low > 0.05


def test_nothing_is_anything():
    """An empty sample says nothing; a missing score is refused."""
    found = sequential_ks(np.empty(0), np.ones(3), alpha=0.05)

    assert (found.estimate, found.low, found.high) == (None, 0.0, 1.0)
    with pytest.raises(ValueError, match="missing"):
        sequential_ks(np.array([np.nan]), np.ones(3), alpha=0.05)
    with pytest.raises(ValueError, match="alpha"):
        sequential_ks(np.ones(3), np.ones(3), alpha=1.0)
