"""How far apart two runtimes' outputs are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

EQUAL_DB = 400.0
"""Reported for outputs that are equal to the last bit, whose ratio would be infinite."""


def snr_db(reference: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the signal-to-noise ratio 10·log10(Σ reference² / Σ (reference - other)²).

    Capped at ``EQUAL_DB``. Not a finite number in either input gives ``-EQUAL_DB``: no evidence of
    equality.
    """
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return -EQUAL_DB
    noise = float(((reference - other) ** 2).sum())
    signal = float((reference**2).sum())
    if noise == 0:
        return EQUAL_DB
    if signal == 0:
        return -EQUAL_DB
    return max(-EQUAL_DB, min(EQUAL_DB, 10 * math.log10(signal / noise)))
