"""Laws of measures: what they count, row by row, and that a part is judged as if it were all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.stats import losses
from penstock.stats.measures import Measures, allowed
from penstock.stats.scored import Scored
from penstock.workload import Costs

COSTS = Costs(false_positive=1, false_negative=4)


def scored(n: int, classes: int, seed: int) -> Scored:
    """Return scores by chance."""
    rng = np.random.default_rng(seed)
    threshold = 0.2 if classes == 2 else None
    return Scored(
        labels_n=rng.integers(0, classes, n),
        logits_nk=rng.normal(0, 2, (n, classes)),
        threshold=threshold,
    )


def measures(one: Scored, other: Scored | None, parts: dict[str, np.ndarray]) -> Measures:
    """Return the measures of two models with a chance of their own."""
    return Measures.of(one, other, parts, costs=COSTS, rng=np.random.default_rng(1))


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 90), st.sampled_from([2, 3]), st.integers(0, 99))
def test_a_difference_is_the_difference_of_the_two(n: int, classes: int, seed: int):
    """By every metric that the task has, on all rows and on a part."""
    one, other = scored(n, classes, seed), scored(n, classes, seed)
    other = Scored(
        labels_n=one.labels_n, logits_nk=other.logits_nk[::-1], threshold=other.threshold
    )
    known = measures(one, other, {"first": np.arange(n) < 35})

    for metric in allowed(classes, COSTS):
        for part in known.parts:
            ours, theirs, less = (
                ask(metric, part) for ask in (known.challenger, known.champion, known.difference)
            )
            if metric == "auc" and ours is None:
                assert less is None
                continue
            assert ours is not None
            assert theirs is not None
            assert less is not None
            assert less.value == pytest.approx(ours.value - theirs.value)
            assert less.low <= less.value <= less.high
            assert ours.n == less.n == known.parts[part].sum()


def test_losses_are_what_they_are_called():
    """Of two classes the squared error of one probability, of more the sum over classes."""
    two = Scored(
        labels_n=np.array([1, 0]), logits_nk=np.log([[0.2, 0.8], [0.4, 0.6]]), threshold=None
    )
    three = Scored(labels_n=np.array([2]), logits_nk=np.log([[0.2, 0.3, 0.5]]), threshold=None)

    assert losses.log_loss(two).values_n == pytest.approx(-np.log([0.8, 0.4]))
    assert losses.brier(two).values_n == pytest.approx([0.04, 0.36])
    assert losses.brier(three).values_n == pytest.approx([0.04 + 0.09 + 0.25])
    assert losses.predicted(two)[0] == pytest.approx([0.8, 0.6])
    assert losses.predicted(two)[1].tolist() == [True, False]
    assert losses.predicted(three)[0] == pytest.approx([0.5])
    assert losses.predicted(three)[1].tolist() == [True]


def test_the_log_loss_of_what_was_held_impossible_is_finite_and_counted():
    """One such row costs 13.8."""
    certain = Scored(
        labels_n=np.array([1, 0]), logits_nk=np.array([[1e4, 0.0], [1e4, 0.0]]), threshold=None
    )

    assert losses.log_loss(certain).values_n == pytest.approx([13.8155, 0], abs=1e-4)
    assert losses.log_loss(certain).highest == pytest.approx(13.8155, abs=1e-4)
    assert losses.clipped(certain) == 1


def test_a_task_has_the_metrics_that_its_classes_and_costs_allow():
    """No AUC of ten classes, no cost without costs."""
    assert allowed(10, COSTS) == ["accuracy", "log_loss", "brier", "calibration_error"]
    assert "expected_cost" in allowed(2, COSTS)
    assert "expected_cost" not in allowed(2, None)
    assert "auc" in allowed(2, None)


def test_without_a_champion_or_a_row_there_is_nothing_to_measure():
    """None, rather than a number."""
    known = measures(scored(40, 2, 1), None, {"none": np.zeros(40, bool)})

    assert known.champion("brier") is None
    assert known.difference("brier") is None
    assert [known.challenger(metric, "none") for metric in allowed(2, COSTS)] == [None] * 6
