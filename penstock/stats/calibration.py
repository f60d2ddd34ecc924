"""Whether predicted probabilities are what happens: reliability bins and calibration error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Predictions of about the same probability."""

    n: int
    predicted: float
    """Mean predicted probability."""

    happened: float
    """Share in which it happened."""


def reliability(
    probability_n: NDArray[np.float64], happened_n: NDArray[np.bool_], *, bins: int = 10
) -> list[Bin]:
    """Return bins of equally many predictions, in order of their probability.

    Equal counts rather than equal widths: where an event is rare, most widths would be empty.
    Predictions that are equal are never split between bins.

    Raises:
        ValueError: The shapes differ, or a probability is not between 0 and 1.
    """
    if probability_n.shape != happened_n.shape:
        raise ValueError(
            f"{probability_n.shape} probabilities for {happened_n.shape} outcomes; give one each."
        )
    if len(probability_n) and not ((probability_n >= 0) & (probability_n <= 1)).all():
        raise ValueError("a probability lies outside 0 to 1, or is not a number.")
    return [
        Bin(
            n=len(part),
            predicted=float(probability_n[part].mean()),
            happened=float(happened_n[part].mean()),
        )
        for part in binned(probability_n, bins)
    ]


def binned(probability_n: NDArray[np.float64], bins: int) -> list[NDArray[np.int64]]:
    """Return the rows of each bin, shape [n_b]; none is empty."""
    order = np.argsort(probability_n, kind="stable")
    sorted_n = probability_n[order]
    if not len(order):
        return []
    edges = np.array([sorted_n[len(order) * b // bins] for b in range(1, bins)])
    cuts = {int(cut) for cut in np.searchsorted(sorted_n, edges, side="left")}
    return [part for part in np.split(order, sorted(cuts - {0})) if len(part)]


def expected_error(bins: list[Bin]) -> float:
    """Return the expected calibration error: Σ n_b / n · |happened_b - predicted_b|.

    Source: Naeini, Cooper, Hauskrecht (2015), AAAI, with bins of equal counts.

    >>> expected_error([Bin(n=10, predicted=0.2, happened=0.3), Bin(n=30, predicted=0.5,
    ...                                                             happened=0.5)])
    0.025
    """
    total = sum(b.n for b in bins)
    if not total:
        return math.inf
    return round(sum(b.n * abs(b.happened - b.predicted) for b in bins) / total, 12)


def chance_error(bins: list[Bin]) -> float:
    """Return what :func:`expected_error` would be on average of perfectly calibrated predictions.

    The mean of |x| for a normal x is √(2/π) times its standard deviation, here that of the share
    that happens in a bin.
    """
    total = sum(b.n for b in bins)
    if not total:
        return math.inf
    spread = sum(b.n * math.sqrt(b.predicted * (1 - b.predicted) / b.n) for b in bins)
    return math.sqrt(2 / math.pi) * spread / total
