"""What each row adds to a metric that is a mean over rows, and what calibration compares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.stats.means import Values
from penstock.stats.scored import Rows, Scored

LEAST_PROBABILITY = 1e-6
"""A label's probability below this counts as this in the log loss, so that one row which was held
impossible and happened costs 13.8 and not infinitely much."""

Floats = NDArray[np.float64]


def right(scored: Scored) -> Values:
    """Return 1 for each row that was decided right, else 0."""
    return Values(values_n=scored.right_n, lowest=0.0, highest=1.0, step=1.0)


def log_loss(scored: Scored) -> Values:
    """Return the negative logarithm of each label's probability, at least LEAST_PROBABILITY."""
    values_n = -np.log(np.maximum(_of_label(scored), LEAST_PROBABILITY))
    return Values(values_n=values_n, lowest=0.0, highest=-float(np.log(LEAST_PROBABILITY)))


def clipped(scored: Scored) -> int:
    """Return of how many rows :func:`log_loss` takes another probability than the model gave."""
    return int((_of_label(scored) < LEAST_PROBABILITY).sum())


def _of_label(scored: Scored) -> Floats:
    return scored.probability_nk[np.arange(scored.n), scored.labels_n]


def brier(scored: Scored) -> Values:
    """Return each row's squared error of the probabilities.

    Of two classes it is that of class 1, from 0 to 1; of more, the sum over classes, from 0 to 2.

    Source: Brier (1950), Monthly Weather Review 78, 1-3, which takes the sum for two classes also.
    """
    happened_nk = np.eye(scored.classes)[scored.labels_n]
    squared_nk = (scored.probability_nk - happened_nk) ** 2
    if scored.classes == 2:
        return Values(values_n=squared_nk[:, 1], lowest=0.0, highest=1.0)
    return Values(values_n=squared_nk.sum(axis=1), lowest=0.0, highest=2.0)


def predicted(scored: Scored) -> tuple[Floats, Rows]:
    """Return the probabilities that should be what happens, and whether it did, shape [n] each.

    Of two classes it is class 1; of more, the most likely class, and that it was the label.
    """
    if scored.classes == 2:
        return scored.probability_nk[:, 1], scored.labels_n == 1
    top_n = scored.probability_nk.argmax(axis=1)
    return scored.probability_nk.max(axis=1), top_n == scored.labels_n


BY_ROW = {"accuracy": right, "log_loss": log_loss, "brier": brier}
"""Metrics that are the mean of what each row adds, besides costs."""
