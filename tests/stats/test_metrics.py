"""Laws of a task's metrics: what they count, and that nothing is made of what is no number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.stats import metrics

SCORES = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, n, elements=st.integers(-3, 3).map(float)),
        arrays.arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)
"""Few different scores, so that many are tied."""


@given(SCORES)
def test_auc_is_how_often_a_one_ranks_above_a_zero(drawn: tuple[np.ndarray, np.ndarray]):
    """Counted pair by pair, a tie as half; without both labels there is none."""
    scores, labels = drawn
    ones, zeros = scores[labels == 1], scores[labels == 0]

    found = metrics.auc(scores, labels)

    if not len(ones) or not len(zeros):
        assert found is None
    else:
        pairs = np.sign(ones[:, None] - zeros[None, :])
        assert found == pytest.approx(((pairs + 1) / 2).mean())


@given(SCORES, st.sampled_from([np.nan, np.inf, -np.inf]))
def test_auc_with_a_score_that_is_no_number_is_none(
    drawn: tuple[np.ndarray, np.ndarray], value: float
):
    """Even an infinite one, which would rank."""
    scores, labels = drawn
    scores[0] = value

    assert metrics.auc(scores, labels) is None


@given(SCORES)
def test_turning_scores_round_turns_auc_round(drawn: tuple[np.ndarray, np.ndarray]):
    """What ranks every pair the other way has the rest to 1."""
    scores, labels = drawn
    one, other = metrics.auc(scores, labels), metrics.auc(-scores, labels)

    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one + other == pytest.approx(1)


@given(arrays.arrays(np.float64, (4, 3), elements=st.floats(-300, 300)))
def test_probabilities_sum_to_one_and_keep_the_order_of_logits(logits: np.ndarray):
    """Also of logits whose powers no number holds."""
    found = metrics.probabilities(logits * 10)

    assert found.sum(axis=1) == pytest.approx(np.ones(4))
    assert (found[np.arange(4), logits.argmax(axis=1)] == found.max(axis=1)).all()


@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_no_number_decides_nothing(threshold: float | None, value: float):
    """It is no label's decision, so that no accuracy comes of it."""
    logits = np.array([[0.0, 1.0], [value, 1.0]])

    assert metrics.decisions(logits, threshold=threshold).tolist() == [1, metrics.UNDECIDED]
    assert metrics.measured("accuracy", logits, np.array([1, 1]), threshold=threshold) == 0.5


def test_a_threshold_is_of_the_probability_of_one():
    """At the threshold the decision is 1."""
    logits = np.log(np.array([[0.7, 0.3], [0.71, 0.29], [0.2, 0.8]]))

    assert metrics.decisions(logits, threshold=0.2999).tolist() == [1, 0, 1]
    assert metrics.decisions(logits, threshold=None).tolist() == [0, 0, 1]


def test_an_unknown_metric_is_refused():
    """And says which there are."""
    with pytest.raises(ValueError, match="there are accuracy and auc"):
        metrics.measured("f1", np.zeros((1, 2)), np.zeros(1, int), threshold=None)


def test_no_rows_have_no_accuracy():
    """Nothing is not zero."""
    assert metrics.measured("accuracy", np.zeros((0, 2)), np.zeros(0, int), threshold=None) is None
