"""Laws of intervals of shares: they hold the estimate, cover the truth, and turn round with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.intervals import at_least, at_most, exact_net, share_difference, share_ratio

COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
LEVELS = st.floats(0.001, 0.3)


@given(COUNTS, COUNTS, LEVELS)
def test_a_difference_lies_between_its_bounds_and_turns_round(
    one: tuple[int, int], other: tuple[int, int], alpha: float
):
    """What is more here is less there by as much."""
    low, high = share_difference(one, other, alpha=alpha)

    assert -1 - 1e-12 <= low <= one[0] / one[1] - other[0] / other[1] <= high <= 1 + 1e-12
    assert share_difference(other, one, alpha=alpha) == pytest.approx((-high, -low))


@given(COUNTS, COUNTS, LEVELS)
def test_a_ratio_lies_between_its_bounds_and_turns_round(
    one: tuple[int, int], other: tuple[int, int], alpha: float
):
    """The bounds of a over b are one over those of b over a."""
    low, high = share_ratio(one, other, alpha=alpha)

    if not other[0]:
        assert high == math.inf
        return
    ratio = (one[0] / one[1]) / (other[0] / other[1])
    assert 0 <= low <= ratio * (1 + 1e-9)
    assert ratio <= high * (1 + 1e-9)
    if one[0]:
        back_low, back_high = share_ratio(other, one, alpha=alpha)
        assert back_low == pytest.approx(1 / high, rel=1e-6)
        assert back_high == pytest.approx(1 / low, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "m", "share", "ratio"),
    [(2400, 3600, 0.8, 0.8), (50, 3000, 0.7, 0.8), (100, 100, 0.2, 0.8), (1000, 1000, 0.95, 1.0)],
)
def test_bounds_of_two_groups_are_wrong_as_often_as_they_say(
    n: int, m: int, share: float, ratio: float
):
    """Each in 2.5 %, within what 2000 trials can tell and what such approximations give away."""
    rng, alpha = np.random.default_rng(3), 0.05
    drawn = zip(rng.binomial(n, share * ratio, 2000), rng.binomial(m, share, 2000), strict=True)
    pairs = [((int(one), n), (int(other), m)) for one, other in drawn]
    truths = {share_ratio: ratio, share_difference: share * ratio - share}

    for interval, truth in truths.items():
        bounds = np.array([interval(*pair, alpha=alpha) for pair in pairs])
        assert (bounds[:, 0] > truth).mean() <= 0.025 + 0.012
        assert (bounds[:, 1] < truth).mean() <= 0.025 + 0.012
        assert ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean() <= 0.98


@given(COUNTS, LEVELS)
def test_an_exact_bound_is_where_the_count_becomes_rare(counts: tuple[int, int], alpha: float):
    """At the upper bound so few, at the lower so many, have just the chance alpha."""
    from scipy.stats import binom  # noqa: PLC0415 - half a second to import

    count, n = counts
    if count < n:
        assert binom.cdf(count, n, at_most(count, n, alpha=alpha)) == pytest.approx(alpha, rel=1e-6)
    if count:
        rare = binom.sf(count - 1, n, at_least(count, n, alpha=alpha))
        assert rare == pytest.approx(alpha, rel=1e-6)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(60, 400), st.floats(1, 14))
def test_what_one_row_can_change_scales_the_bounds(up: int, down: int, n: int, most: float):
    """And rows that add nothing certain draw no bound in."""
    low, high = exact_net(up, down, n, alpha=0.05, most=most, least=0)
    plain_low, plain_high = exact_net(up, down, n, alpha=0.05, least=0)

    assert (low, high) == pytest.approx((plain_low * most, plain_high * most))
    assert exact_net(up, down, n, alpha=0.05)[1] <= plain_high
