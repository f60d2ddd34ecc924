"""Laws of a metric's drop: its interval holds it, covers the truth, and costs no resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.stats import metrics
from penstock.stats.drops import MANY, accuracy_interval, drop

LOGITS = st.integers(2, 25).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, (n, 2), elements=st.floats(-5, 5)),
        arrays.arrays(np.float64, (n, 2), elements=st.floats(-5, 5)),
        arrays.arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)
METRICS = st.sampled_from(["accuracy", "auc"])


@given(LOGITS, METRICS, st.sampled_from([None, 0.3]))
def test_the_interval_holds_the_drop(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], metric: str, threshold: float | None
):
    """And the drop is the difference of the two metrics."""
    before, after, labels = drawn

    found = drop(metric, before, after, labels, threshold=threshold)

    one, other = (metrics.measured(metric, x, labels, threshold=threshold) for x in (before, after))
    if one is None or other is None:
        assert found is None
        return
    assert found is not None
    assert (found.metric, found.value) == (other, one - other)
    if found.low is None or found.high is None:
        assert min((labels == 0).sum(), (labels == 1).sum()) < 2
    else:
        assert found.low <= found.value <= found.high


@given(LOGITS, METRICS)
def test_the_other_way_round_it_is_a_gain(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], metric: str
):
    """As large as the drop was."""
    before, after, labels = drawn
    one = drop(metric, before, after, labels, threshold=None)
    other = drop(metric, after, before, labels, threshold=None)

    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.value == -other.value


@given(LOGITS, METRICS, st.sampled_from([np.nan, np.inf, -np.inf]), st.booleans())
def test_of_what_is_no_number_there_is_no_drop(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], metric: str, value: float, left: bool
):
    """On either side: a reference of NaN would make any step look like a gain."""
    before, after, labels = drawn
    (before if left else after)[0, 1] = value

    assert drop(metric, before, after, labels, threshold=None) is None


def test_without_labels_there_is_no_drop():
    """There is nothing to be right about."""
    assert drop("accuracy", np.zeros((3, 2)), np.ones((3, 2)), None, threshold=None) is None


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
def test_the_interval_covers_the_true_drop_as_often_as_it_says(metric: str):
    """Nineteen times in twenty, within what 300 trials can tell."""
    rng = np.random.default_rng(5)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = (rng.random(n) < 0.4).astype(np.int64)
        signal = labels[:, None] * np.array([0.0, 1.5]) - np.array([0.0, 0.7])
        before = signal + rng.normal(0, 0.7, (n, 2))
        return before, before + rng.normal(0, 0.8, (n, 2)), labels

    true = drop(metric, *sample(400_000), threshold=None)
    assert true is not None
    held = 0
    for _ in range(300):
        found = drop(metric, *sample(300), threshold=None)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= true.value <= found.high

    assert 0.91 < held / 300 < 0.99


@pytest.mark.parametrize("n", [30, 100, 600])
@pytest.mark.parametrize("rates", [(0.2, 0.0), (1.0, 0.2), (3.0, 0.0), (2.0, 2.0), (0.0, 4.0)])
def test_of_few_rows_lost_and_won_the_interval_covers_the_true_drop(
    n: int, rates: tuple[float, float]
):
    """At least nineteen times in twenty, where a bootstrap sees no row lost and says: none ever."""
    lost, won = (rate / n for rate in rates)
    drawn = np.random.default_rng(7).multinomial(n, [lost, won, 1 - lost - won], size=4000)

    intervals = [accuracy_interval(int(one), int(other), n) for one, other, _ in drawn]

    held = [low <= lost - won <= high for low, high in intervals]
    assert np.mean(held) >= 0.95


@given(st.integers(1, 5000))
def test_without_a_row_lost_the_bound_is_that_of_so_many_successes(n: int):
    """The rate at which n rows all survive with the chance that is left for error; 1 of one row."""
    low, high = accuracy_interval(0, 0, n)

    assert (1 - high) ** n == pytest.approx(0.0225, rel=1e-6)
    assert low == -high
    assert high * n >= 0.97


@given(st.integers(0, MANY - 2), st.integers(0, MANY), st.integers(MANY * 2, 2000))
def test_a_row_more_that_is_lost_never_lowers_the_bounds(lost: int, won: int, n: int):
    """While the bounds are exact."""
    one, more = (accuracy_interval(k, won, n) for k in (lost, lost + 1))

    if lost + 1 + won < MANY:
        assert more[0] >= one[0]
        assert more[1] >= one[1]


def test_an_auc_of_a_single_one_has_no_interval():
    """One row says nothing of how others vary."""
    labels = np.array([1, 0, 0, 0])
    found = drop("auc", np.eye(4)[:, :2], np.eye(4)[:, 1:3], labels, threshold=None)

    assert found is not None
    assert (found.low, found.high) == (None, None)
