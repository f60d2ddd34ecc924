"""What decisions cost, and the threshold from which deciding 1 costs least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.policy import Costs
from penstock.stats.means import Values
from penstock.stats.scored import Scored

ENOUGH_TO_CHOOSE = 1000
"""Rows that a best threshold is chosen on at least. The regret's interval takes the threshold as
given; that of few rows is a chance find, and against a bad one every threshold looks good."""

Floats = NDArray[np.float64]


def costs_of(scored: Scored, costs: Costs, *, threshold: float | None = None) -> Values:
    """Return what each row's decision costs.

    Args:
        threshold: From which the decision is 1; None takes the decisions as they are.
    """
    decided_n = scored.decided_n
    if threshold is not None:
        decided_n = (scored.probability_nk[:, 1] >= threshold).astype(np.int64)
    values_n = np.where(
        decided_n > scored.labels_n,
        costs.false_positive,
        np.where(decided_n < scored.labels_n, costs.false_negative, 0.0),
    )
    both = (costs.false_positive, costs.false_negative)
    apart = [d for d in (*both, abs(both[0] - both[1])) if d > 0]
    return Values(values_n=values_n, lowest=0.0, highest=max(both), step=min(apart))


def mean_costs(scored: Scored, costs: Costs, thresholds_t: Floats) -> Floats:
    """Return the mean cost of deciding 1 from each threshold on, shape [t]."""
    ones, zeros = (np.sort(scored.probability_nk[scored.labels_n == label, 1]) for label in (1, 0))
    missed_t = np.searchsorted(ones, thresholds_t, side="left")
    alarms_t = len(zeros) - np.searchsorted(zeros, thresholds_t, side="left")
    return (costs.false_negative * missed_t + costs.false_positive * alarms_t) / scored.n


def best_threshold(scored: Scored, costs: Costs, *, usual: float) -> float:
    """Return the threshold of least mean cost on some rows; of equals, the nearest to the usual.

    Only a row's own probability changes what is decided of it, so these are looked at, with the
    usual threshold itself and one above all, from which nothing is decided 1.

    Raises:
        ValueError: There is no row.
    """
    if not scored.n:
        raise ValueError("no row to choose a threshold on; give the validation rows.")
    probability_n = np.unique(scored.probability_nk[:, 1])
    above = np.nextafter(probability_n[-1], 2)
    thresholds_t = np.concatenate([probability_n, [usual, above]])
    cost_t = mean_costs(scored, costs, thresholds_t)
    least = thresholds_t[cost_t <= cost_t.min() + 1e-12]
    return float(least[np.abs(least - usual).argmin()])


def regret(scored: Scored, costs: Costs, *, best: float) -> Values:
    """Return, row by row, what the decisions cost more than those of another threshold."""
    return costs_of(scored, costs).less(costs_of(scored, costs, threshold=best))
