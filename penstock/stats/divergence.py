"""How far apart the scores of two models are, with bounds that hold however often one looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Kolmogorov-Smirnov distance of two distributions: the largest gap between their shares."""

    estimate: float | None
    """None where a sample is empty."""

    low: float
    high: float


def sequential_ks(one_n: Floats, other_m: Floats, *, alpha: float) -> Divergence:
    """Return the distance of two samples' distributions, at every look at once.

    Args:
        one_n, other_m: One number of each user, shapes [n] and [m]: rows of one user are alike.
        alpha: Chance that a bound is ever wrong, both together.

    Each sample has half of ``alpha``, so that the two may be paired.

    Raises:
        ValueError: A number is missing, or ``alpha`` is no share.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1.")
    if np.isnan(one_n).any() or np.isnan(other_m).any():
        raise ValueError("a score is missing; leave out answers that were not given.")
    if not len(one_n) or not len(other_m):
        return Divergence(estimate=None, low=0.0, high=1.0)
    gap = _gap(np.sort(one_n), np.sort(other_m))
    half = radius(len(one_n), alpha=alpha / 2) + radius(len(other_m), alpha=alpha / 2)
    return Divergence(estimate=gap, low=max(0.0, gap - half), high=min(1.0, gap + half))


def radius(n: int, *, alpha: float) -> float:
    """Return how far the shares of ``n`` values can be from the true ones, at every n at once.

    Source: Howard and Ramdas (2022), Bernoulli 28, 1704–1728, corollary 2: it extends the
    inequality of Dvoretzky, Kiefer and Wolfowitz to all times.

    >>> round(radius(10_000, alpha=0.01), 4)
    0.0293
    """
    return min(
        1.0, 0.85 * math.sqrt((math.log(1 + math.log(n)) + 0.8 * math.log(1612 / alpha)) / n)
    )


def _gap(one_n: Floats, other_m: Floats) -> float:
    at_k = np.concatenate([one_n, other_m])
    one_k = np.searchsorted(one_n, at_k, side="right") / len(one_n)
    other_k = np.searchsorted(other_m, at_k, side="right") / len(other_m)
    return float(np.abs(one_k - other_k).max())
