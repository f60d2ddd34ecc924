"""How much of a task's metric is lost from one step to the next, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from penstock.stats import areas, metrics
from penstock.stats.distance import finite
from penstock.stats.intervals import MANY, exact_net

ALPHA = 0.05

RESAMPLES = 2000
SEED = 20260101
"""Of the bootstrap: the same outputs always give the same verdict."""

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Drop:
    """How far a metric fell."""

    metric: float
    """Of the later step."""

    value: float
    """Metric of the step before minus the later one's; positive is worse."""

    low: float | None
    high: float | None
    """Bounds at 95 %, two-sided; None where there are too few rows for any."""


def drop(
    metric: str,
    before_nk: NDArray[np.floating],
    after_nk: NDArray[np.floating],
    labels_n: Labels | None,
    *,
    threshold: float | None,
) -> Drop | None:
    """Return how much a metric dropped; None where the rows cannot tell.

    They cannot without labels, with an output that is not finite, or, for ``auc``, with one label
    only. The cost is that of sorting, n·log n, however many rows there are: no row is resampled.

    Raises:
        ValueError: There is no such metric.
    """
    if labels_n is None or not finite(before_nk, after_nk):
        return None
    one, other = (
        metrics.measured(metric, logits, labels_n, threshold=threshold)
        for logits in (before_nk, after_nk)
    )
    if one is None or other is None:
        return None
    if metric == "auc":
        low, high = _auc_interval(metrics.scores(before_nk), metrics.scores(after_nk), labels_n)
    else:
        right, still = (
            metrics.decisions(logits, threshold=threshold) == labels_n
            for logits in (before_nk, after_nk)
        )
        lost, won = int((right & ~still).sum()), int((~right & still).sum())
        low, high = accuracy_interval(lost, won, len(labels_n))
    value = one - other
    if low is None or high is None:
        return Drop(metric=other, value=value, low=None, high=None)
    return Drop(metric=other, value=value, low=min(value, low), high=max(value, high))


def accuracy_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """Return the interval, at 95 % and two-sided, of how much the share of right answers drops.

    With fewer than ``MANY`` rows lost or won it is exact: the drop is the share lost less the share
    won, and each bound takes one Clopper-Pearson bound of either, so that it covers at least 95 %
    whatever the shares are (Bonferroni). Most of the error goes to the share that pushes the bound
    out, for that decides when few rows differ: of 600 rows with none lost, the upper bound is
    0.0063. With more rows lost or won it is the bootstrap's percentile interval. Resampling rows
    only changes how many were lost, won and neither; these counts are multinomial, so they are
    drawn and no row is.

    Source: Clopper and Pearson (1934), Biometrika 26, 404–413.

    Args:
        lost: Rows that were right and are no longer.
        won: Rows that were wrong and are right.
        n: All rows, at least one.
    """
    if lost + won < MANY:
        return exact_net(lost, won, n, alpha=ALPHA)
    drawn = np.random.default_rng(SEED).multinomial(
        n, [lost / n, won / n, max(0.0, 1 - (lost + won) / n)], size=RESAMPLES
    )
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _auc_interval(
    before_n: Floats, after_n: Floats, labels_n: Labels
) -> tuple[float, float] | tuple[None, None]:
    """Return DeLong's interval for the difference of two areas on the same rows."""
    before, after = areas.components(before_n, labels_n), areas.components(after_n, labels_n)
    ones, zeros = before[0] - after[0], before[1] - after[1]
    if len(ones) < 2 or len(zeros) < 2:
        return None, None
    value = float(ones.mean())
    half = NormalDist().inv_cdf(1 - ALPHA / 2) * areas.standard_error(ones, zeros)
    return value - half, value + half
