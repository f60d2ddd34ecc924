"""Laws of means: bounds are wrong as often as they say, also of few, rare and skewed values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.stats.means import CELLS, Draws, Values

DRAWS = Draws(300, rng=np.random.default_rng(1))
RUNS = 400
SLACK = 3 * np.sqrt(0.025 * 0.975 / RUNS)


def shares(up: float, down: float, rng: np.random.Generator) -> np.ndarray:
    """Return 300 values of 1, -1 and 0."""
    chance = rng.random(300)
    return (chance < up).astype(float) - (chance > 1 - down)


@pytest.mark.parametrize(("up", "down"), [(4, 0), (25, 10), (31, 0), (40, 5), (90, 80), (0, 300)])
def test_the_bounds_of_paired_shares_are_wrong_as_rarely_as_they_say(up: int, down: int):
    """Each in 2.5 % at most, whether few rows differ, all one way, or all."""
    rng, truth, wrong = np.random.default_rng(5), (up - down) / 300, np.zeros(2)
    for _ in range(RUNS):
        values = Values(values_n=shares(up / 300, down / 300, rng), lowest=-1, highest=1, step=1)
        found = DRAWS.mean(values)
        assert found is not None
        wrong += found.low > truth, found.high < truth

    assert (wrong / RUNS <= 0.025 + SLACK).all()


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_the_bounds_of_skewed_losses_are_wrong_as_rarely_as_they_say(sigma: float):
    """And no interval is so wide that it is never wrong."""
    rng, wrong = np.random.default_rng(6), np.zeros(2)
    truth = np.minimum(np.exp(rng.normal(0, sigma, 1_000_000)), 14).mean()
    for _ in range(RUNS):
        losses = np.minimum(np.exp(rng.normal(0, sigma, 300)), 14)
        found = DRAWS.mean(Values(values_n=losses, lowest=0, highest=14))
        assert found is not None
        wrong += found.low > truth, found.high < truth

    assert (wrong / RUNS <= 0.025 + SLACK).all()
    assert wrong.sum() / RUNS >= 0.02


@given(
    arrays.arrays(np.float64, 300, elements=st.floats(0, 14)),
    arrays.arrays(np.bool_, 300),
    st.floats(0.01, 0.2),
)
def test_a_mean_of_a_part_is_that_of_its_rows_alone(
    values_n: np.ndarray, where_n: np.ndarray, alpha: float
):
    """Its bounds hold it, lie where values can, and a stricter level never narrows them."""
    found = DRAWS.mean(Values(values_n=values_n, lowest=0, highest=14), where_n)

    if not where_n.any():
        assert found is None
        return
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(values_n[where_n].mean()), where_n.sum())
    (low, high), (lower, higher) = found.at(alpha), found.at(alpha / 5)
    assert 0 <= lower <= low <= high <= higher <= 14


@given(st.integers(10, 300))
def test_rows_that_are_all_equal_are_no_certainty(n: int):
    """Without any variation the interval is that of so many successes, never of no width."""
    where_n = np.arange(300) < n
    found = DRAWS.mean(Values(values_n=np.zeros(300), lowest=-1, highest=1, step=1), where_n)

    assert found is not None
    assert found.high >= 3 / n
    assert found.low == -found.high


def test_below_the_level_that_resamples_can_tell_the_bounds_are_all_there_is():
    """Of 1999 resamples none speaks of one in a million."""
    values_n = np.random.default_rng(2).random(300)
    found = DRAWS.mean(Values(values_n=values_n, lowest=0, highest=1))

    assert found is not None
    assert found.at(1e-6) == (0, 1)


def test_more_rows_than_cells_give_the_interval_of_their_number():
    """Within a tenth of the normal one's width, on slices too."""
    rng, n = np.random.default_rng(3), 3 * CELLS
    draws, values_n = Draws(n, rng=rng), rng.random(n)
    for where_n in (np.ones(n, bool), rng.random(n) < 0.2):
        found = draws.mean(Values(values_n=values_n, lowest=0, highest=1), where_n)

        assert found is not None
        width = 2 * 1.96 * values_n[where_n].std() / np.sqrt(where_n.sum())
        assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_weights_are_those_of_a_poisson_of_mean_one():
    """Mean, variance and third central moment are 1."""
    weights = Draws(2000, rng=np.random.default_rng(9))._weights_cb.astype(float)

    assert weights.mean() == pytest.approx(1, abs=0.003)
    assert weights.var() == pytest.approx(1, abs=0.005)
    assert ((weights - 1) ** 3).mean() == pytest.approx(1, abs=0.02)


def test_the_same_seed_gives_the_same_bounds():
    """Chance comes in by the front door."""
    values = Values(values_n=np.random.default_rng(2).random(50), lowest=0, highest=1)
    one, other, third = (Draws(50, rng=np.random.default_rng(s)).mean(values) for s in (1, 1, 2))

    assert one is not None
    assert other is not None
    assert third is not None
    assert (one.low, one.high) == (other.low, other.high) != (third.low, third.high)


def test_values_of_other_rows_are_refused():
    """They cannot be paired."""
    one, other = (Values(values_n=np.ones(n), lowest=0, highest=1) for n in (3, 4))

    with pytest.raises(ValueError, match="same holdout revision"):
        one.less(other)
