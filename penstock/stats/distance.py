"""How far apart two runtimes' outputs are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

EQUAL_DB = 400.0
"""Reported for outputs that are equal to the last bit, whose ratio would be infinite."""


class Noise:
    """Signal and noise of numbers that come part by part, as a ratio in decibels.

    >>> noise = Noise()
    >>> noise.add(np.array([10.0, 0.0]), np.array([9.0, 0.0]))
    >>> noise.db
    20.0
    """

    def __init__(self) -> None:
        self._signal = 0.0
        self._noise = 0.0

    def add(self, reference: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        """Count another part, any shape; both are of the same."""
        if not finite(reference, other):
            self._noise = math.inf
            return
        with np.errstate(over="ignore"):
            self._signal += float((reference**2).sum())
            self._noise += float(((reference - other) ** 2).sum())

    @property
    def db(self) -> float:
        """10·log10(Σ reference² / Σ (reference - other)²), at most ``EQUAL_DB`` either way.

        Not a finite number anywhere gives ``-EQUAL_DB``: no evidence of equality.
        """
        if not math.isfinite(self._signal + self._noise):
            return -EQUAL_DB
        if self._noise == 0:
            return EQUAL_DB
        if self._signal == 0:
            return -EQUAL_DB
        ratio_db = 10 * (math.log10(self._signal) - math.log10(self._noise))
        return max(-EQUAL_DB, min(EQUAL_DB, ratio_db))


def snr_db(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the signal-to-noise ratio 10·log10(Σ reference² / Σ (reference - other)²).

    Capped at ``EQUAL_DB``. Not a finite number in either input gives ``-EQUAL_DB``: no evidence of
    equality.
    """
    noise = Noise()
    noise.add(reference, other)
    return noise.db


def mean_abs_error(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the mean of |reference - other|; infinite where a number is not finite."""
    if not finite(reference, other):
        return math.inf
    return float(np.abs(reference - other).mean())


def relative_error(
    reference: NDArray[np.float64], other: NDArray[np.float64], *, floor: float
) -> float:
    """Return the largest of |reference - other| / max(|reference|, |other|, floor).

    The floor keeps numbers near nothing from deciding; infinite where a number is not finite.

    Raises:
        ValueError: The floor is not positive.
    """
    if not floor > 0:
        raise ValueError(f"floor is {floor}; it must be greater than 0.")
    if not finite(reference, other):
        return math.inf
    scale = np.maximum(np.maximum(np.abs(reference), np.abs(other)), floor)
    return float((np.abs(reference - other) / scale).max())


def least_cosine(reference_nk: NDArray[np.float64], other_nk: NDArray[np.float64]) -> float:
    """Return the smallest cosine of the angle between a row of one and of the other, -1 to 1.

    Rows of zeros point nowhere: two of them are alike, one of them is like nothing. Where a number
    is not finite it is -1.
    """
    if not finite(reference_nk, other_nk):
        return -1.0
    sizes = np.linalg.norm(reference_nk, axis=1), np.linalg.norm(other_nk, axis=1)
    product = sizes[0] * sizes[1]
    dots = (reference_nk * other_nk).sum(axis=1)
    neither = (sizes[0] == 0) & (sizes[1] == 0)
    cosines = neither.astype(np.float64)
    np.divide(dots, product, out=cosines, where=product > 0)
    return max(-1.0, min(1.0, float(cosines.min())))


def finite(reference: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Return whether every number of both is finite."""
    return bool(np.isfinite(reference).all() and np.isfinite(other).all())
