"""Fixed-sample intervals: the Wilson score interval and a paired bootstrap."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def wilson(successes: int, n: int, *, alpha: float) -> tuple[float, float]:
    """Return the two-sided Wilson score interval of a share at level ``1 - alpha``.

    Of nothing, everything is possible: n = 0 gives (0, 1).

    Source: Wilson (1927), Journal of the American Statistical Association 22, 209–212.

    >>> tuple(round(bound, 4) for bound in wilson(597, 597, alpha=0.05))
    (0.9936, 1.0)
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}; a count must lie between 0 and n.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - alpha / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(
    challenger_n: NDArray[np.float64],
    champion_n: NDArray[np.float64],
    *,
    alpha: float,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Return the mean paired difference and the bounds of its percentile bootstrap interval.

    Args:
        challenger_n: Score of the challenger on each example, shape [n].
        champion_n: Score of the champion on the same examples, shape [n].
        alpha: The interval is two-sided at ``1 - alpha``; each bound alone holds at alpha / 2.

    Raises:
        ValueError: The shapes differ, or there is no example.
    """
    if challenger_n.shape != champion_n.shape:
        raise ValueError(
            f"paired scores differ in shape: challenger {challenger_n.shape}, champion "
            f"{champion_n.shape}; score both models on the same holdout revision."
        )
    if not len(challenger_n):
        raise ValueError("no examples to compare on; give the holdout at least one row.")
    difference = challenger_n - champion_n
    n = len(difference)
    means = np.empty(resamples)
    for i in range(resamples):
        means[i] = difference[rng.integers(0, n, n)].mean()
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return float(difference.mean()), float(low), float(high)
