"""Laws of areas under the ROC curve: bounds that hold at their level and are never of no width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import norm

from penstock.stats import metrics
from penstock.stats.areas import area, area_difference, components, freedom

RUNS = 500
MOST = 0.025 + 3 * np.sqrt(0.025 * 0.975 / RUNS)
SCORES = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, n, elements=st.integers(-3, 3).map(float)),
        arrays.arrays(np.float64, n, elements=st.integers(-3, 3).map(float)),
        arrays.arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)


@given(SCORES, st.floats(0.001, 0.3))
def test_areas_are_those_of_pairs_and_lie_between_their_bounds(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], alpha: float
):
    """And there is none of rows of one label."""
    one_n, other_n, labels_n = drawn
    found, less = area(one_n, labels_n), area_difference(one_n, other_n, labels_n)

    if len(set(labels_n)) < 2:
        assert (found, less) == (None, None)
        return
    assert found is not None
    assert less is not None
    one, other = (metrics.auc(scores_n, labels_n) for scores_n in (one_n, other_n))
    assert one is not None
    assert other is not None
    assert found.value == pytest.approx(one)
    assert less.value == pytest.approx(one - other)
    for estimate, least in ((found, 0), (less, -1)):
        low, high = estimate.at(alpha)
        assert least - 1e-9 <= low <= estimate.value + 1e-9
        assert estimate.value - 1e-9 <= high <= 1 + 1e-9
        assert low < high


@given(SCORES)
def test_components_are_each_rows_share_of_pairs_won(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray],
):
    """Counted pair by pair, a tie as half."""
    scores_n, _, labels_n = drawn
    if len(set(labels_n)) < 2:
        return
    pairs = (np.sign(scores_n[labels_n == 1][:, None] - scores_n[labels_n == 0]) + 1) / 2
    ones, zeros = components(scores_n, labels_n)

    assert ones == pytest.approx(pairs.mean(axis=1))
    assert zeros == pytest.approx(pairs.mean(axis=0))


@pytest.mark.parametrize(
    ("n", "rate", "apart"), [(600, 0.22, 1.1), (300, 0.15, 1.1), (600, 0.03, 1.1), (300, 0.3, 4.0)]
)
def test_the_bounds_are_wrong_as_rarely_as_they_say(n: int, rate: float, apart: float):
    """Of normal scores, whose areas are known: many rows, few 1s, and almost no overlap."""
    rng, wrong = np.random.default_rng(3), np.zeros(4)
    ours, theirs = norm.cdf(apart / np.sqrt([2.4, 2.0]))
    for _ in range(RUNS):
        labels_n = (rng.random(n) < rate).astype(np.int64)
        labels_n[:2] = 0, 1
        theirs_n = rng.normal(size=n) + apart * labels_n
        ours_n = theirs_n + rng.normal(0, np.sqrt(0.2), n)
        one = area(theirs_n, labels_n)
        less = area_difference(ours_n, theirs_n, labels_n)
        assert one is not None
        assert less is not None
        true = ours - theirs
        wrong += one.low > theirs, one.high < theirs, less.low > true, less.high < true

    assert (wrong / RUNS <= MOST).all()


@pytest.mark.parametrize(("ones", "zeros", "auc"), [(60, 2000, 0.97), (32, 600, 0.95),
                                                    (600, 35, 0.95)])  # fmt: skip
def test_a_label_whose_few_rows_decide_seldom_passes_what_is_not_so(
    ones: int, zeros: int, auc: float
):
    """Of 60 ones at 0.97 two or three decide; a normal interval passes the truth in 7 %."""
    rng, runs, passed = np.random.default_rng(3), 600, np.zeros(2)
    apart = norm.ppf(auc) * np.sqrt(2)
    labels_n = np.repeat([1, 0], [ones, zeros]).astype(np.int64)
    true = norm.cdf(apart / np.sqrt(2.3)) - auc
    for _ in range(runs):
        theirs_n = rng.normal(size=len(labels_n)) + apart * labels_n
        ours_n = theirs_n + rng.normal(0, np.sqrt(0.15), len(labels_n))
        one, less = area(theirs_n, labels_n), area_difference(ours_n, theirs_n, labels_n)
        assert one is not None
        assert less is not None
        passed += one.low > auc, less.low > true

    assert (passed / runs <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs)).all()


def test_the_variance_of_a_few_far_rows_is_hardly_known():
    """Of normal values as well as their number says; of one that stands out, not at all."""
    rng = np.random.default_rng(1)
    usual, apart = rng.normal(size=10_000), np.eye(200)[0]

    assert freedom(usual, usual) == pytest.approx(20_000, rel=0.05)
    assert freedom(apart, 0 * apart) == pytest.approx(2, rel=0.05)
    assert freedom(0 * apart, 0 * apart) == 0


@pytest.mark.parametrize("n", [60, 600])
def test_perfect_separation_and_equal_scores_are_no_certainty(n: int):
    """DeLong's variance is 0 there; the bounds are those of as many pairs as there are 1s."""
    labels_n = (np.arange(n) % 2).astype(np.int64)
    apart, same = area(labels_n * 1.0, labels_n), area_difference(*[labels_n * 1.0] * 2, labels_n)

    assert apart is not None
    assert same is not None
    assert (apart.value, apart.high) == (1, 1)
    assert apart.low == pytest.approx(0.025 ** (2 / n))
    assert -same.low == same.high >= 3.6 * 2 / n * 0.9
    assert same.value == 0
