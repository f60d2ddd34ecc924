"""What keeps an accelerator from doing more, how busy one should be, and what an answer costs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np


class Bound(StrEnum):
    """What a workload waits for."""

    COMPUTE = "compute"  # a faster or narrower numeric precision helps
    MEMORY = "memory"  # fewer bytes help: fusion, int8 weights
    INPUT = "input"  # the accelerator waits for data: read, decode and transform faster
    BATCH = "batch"  # bursts and gaps: batch more requests together
    UNCLEAR = "unclear"


BUSY = 85.0
HALF = 50.0
LOOSE = 70.0
"""Percent: below it, memory bandwidth is not what is short."""

SPIKY = 0.5
"""Standard deviation over mean from which samples are bursts and gaps."""

TARGETS = {
    "batch training": (80.0, 100.0),
    "online": (50.0, 70.0),
    "batch inference": (85.0, 100.0),
}
"""Percent that an accelerator should be busy; online at the median, the rest is kept for peaks."""


def bound(busy_n: Sequence[float], bandwidth_n: Sequence[float]) -> Bound:
    """Return what a workload waits for.

    Args:
        busy_n: Percent of time that the accelerator computed, one per sample, shape [n].
        bandwidth_n: Percent of memory bandwidth in use at the same samples, shape [n].

    Raises:
        ValueError: No samples, not as many of both, or not percent.
    """
    busy, bandwidth = np.asarray(busy_n, np.float64), np.asarray(bandwidth_n, np.float64)
    both = np.concatenate([busy, bandwidth])
    if busy.shape != bandwidth.shape or not busy.size or not ((both >= 0) & (both <= 100)).all():
        raise ValueError(
            f"{busy.size} samples of utilisation and {bandwidth.size} of bandwidth; as many of "
            "both are wanted, in percent."
        )
    if busy.mean() > 0 and busy.std() > SPIKY * busy.mean():
        return Bound.BATCH
    return _steady(float(busy.mean()), float(bandwidth.mean()))


def _steady(busy: float, bandwidth: float) -> Bound:
    if busy > BUSY and bandwidth < LOOSE:
        return Bound.COMPUTE
    if HALF <= busy <= BUSY and bandwidth > BUSY:
        return Bound.MEMORY
    return Bound.INPUT if busy < HALF and bandwidth < HALF else Bound.UNCLEAR


def cost_per_thousand(cost_per_hour: float, answers_per_hour: float) -> float:
    """Return what a thousand answers cost.

    >>> cost_per_thousand(3.0, 50_000)
    0.06

    Raises:
        ValueError: Nothing is answered, or the cost is negative.
    """
    if not (answers_per_hour > 0 and cost_per_hour >= 0):
        raise ValueError(
            f"{cost_per_hour} an hour for {answers_per_hour} answers; give a cost of at least 0 "
            "and more than 0 answers."
        )
    return cost_per_hour * 1000 / answers_per_hour
