"""Laws of the operating threshold: costs are those of the decisions, and none costs less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.stats.operating import best_threshold, costs_of, mean_costs, regret
from penstock.stats.scored import Scored
from penstock.workload import Costs

COSTS = Costs(false_positive=1, false_negative=4)
SCORED = st.integers(1, 30).flatmap(
    lambda n: st.builds(
        lambda odds_n, labels_n: Scored(
            labels_n=labels_n, logits_nk=np.stack([0 * odds_n, odds_n], axis=1), threshold=0.2
        ),
        arrays.arrays(np.float64, n, elements=st.floats(-4, 4)),
        arrays.arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)


@given(SCORED, st.floats(0, 1.1))
def test_a_thresholds_mean_cost_is_that_of_its_decisions(scored: Scored, threshold: float):
    """Counted row by row."""
    by_row = costs_of(scored, COSTS, threshold=threshold).values_n

    assert mean_costs(scored, COSTS, np.array([threshold])) == pytest.approx([by_row.mean()])


@given(SCORED, st.lists(st.floats(0, 1.1), min_size=1, max_size=9))
def test_no_threshold_costs_less_than_the_best(scored: Scored, others: list[float]):
    """And where the usual one costs as little, it is the best."""
    best = best_threshold(scored, COSTS, usual=0.2)
    (least,), cost_t = (mean_costs(scored, COSTS, np.array(t)) for t in ([best], [*others, 0.2]))

    assert (least <= cost_t + 1e-9).all()
    assert (best == 0.2) == (cost_t[-1] <= least + 1e-12)
    assert regret(scored, COSTS, best=best).values_n.mean() == pytest.approx(cost_t[-1] - least)


def test_a_wrong_row_costs_by_the_way_it_is_wrong():
    """A missed 1 four times as much as a false alarm; values say what they can be."""
    scored = Scored(
        labels_n=np.array([1, 1, 0, 0]),
        logits_nk=np.log([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]]),
        threshold=0.2,
    )
    values = costs_of(scored, COSTS)

    assert values.values_n.tolist() == [4, 0, 1, 0]
    assert (values.lowest, values.highest, values.step) == (0, 4, 1)


def test_of_calibrated_probabilities_the_best_is_near_where_the_costs_say():
    """At the share of a false positive in both costs."""
    rng = np.random.default_rng(2)
    p = rng.beta(2, 6, 50_000)
    logits_nk = np.log(np.stack([1 - p, p], axis=1))
    labels_n = (rng.random(len(p)) < p).astype(np.int64)
    scored = Scored(labels_n=labels_n, logits_nk=logits_nk, threshold=0.5)

    assert best_threshold(scored, COSTS, usual=0.9) == pytest.approx(COSTS.threshold, abs=0.04)


def test_of_no_row_there_is_no_best():
    """It says what to give."""
    empty = Scored(labels_n=np.zeros(0, int), logits_nk=np.zeros((0, 2)), threshold=0.2)

    with pytest.raises(ValueError, match="give the validation rows"):
        best_threshold(empty, COSTS, usual=0.2)
