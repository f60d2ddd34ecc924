"""Choose the range of each activation from what it was on calibration rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.quantize.running import Tensors
from penstock.workload import Calibrator

BINS = 2048
"""Of the histogram of absolute values, from 0 to the largest."""

LEVELS = 128
"""Different absolute values an int8 has."""

SIGNIFICANT_BITS = 12
"""Kept of the largest absolute value."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The absolute values one activation took."""

    amax: float
    """At least the largest; 0 where all are 0."""

    values: int

    zeros: int
    """How many were exactly 0: all behind a rectifier that is closed."""

    histogram_b: Counts
    """How many fell into each of ``BINS`` equal parts of 0 to ``amax``."""


def observe(
    model: onnx.ModelProto, names: Sequence[str], inputs_n: NDArray[np.float32]
) -> dict[str, Observed]:
    """Return what each activation was, in two passes: the largest value, then the histogram.

    Memory holds the activations of one batch and one histogram each, whatever the number of rows.

    Args:
        inputs_n: Network inputs of the calibration rows, shape [n, ...].

    Raises:
        ValueError: There is no row, or an activation is not finite.
    """
    if not len(inputs_n):
        raise ValueError("no calibration rows; ranges come from at least one.")
    run = Tensors(model, names)
    amax = dict.fromkeys(names, 0.0)
    for batch in run.batches(inputs_n):
        for name, values in batch.items():
            largest = float(np.abs(values).max(initial=0.0))
            if not math.isfinite(largest):
                raise ValueError(
                    f"activation {name!r} is not finite on calibration rows, so it has no range; "
                    "look for what overflows in the network or its inputs."
                )
            amax[name] = max(amax[name], largest)
    amax = {name: round_up(value) for name, value in amax.items()}
    histograms = {name: np.zeros(BINS, np.int64) for name in names}
    values, zeros = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for batch in run.batches(inputs_n):
        for name, found in batch.items():
            histograms[name] += histogram(found, amax=amax[name])
            values[name] += found.size
            zeros[name] += int((found == 0).sum())
    return {
        name: Observed(
            amax=amax[name],
            values=values[name],
            zeros=zeros[name],
            histogram_b=histograms[name],
        )
        for name in names
    }


def round_up(value: float) -> float:
    """Return the next number of few significant bits.

    A runtime may add up in another order for another batch size, which changes the last bits of
    an activation. Without those bits the ranges, and so the bytes of the int8 graph, stay the same.

    >>> round_up(1.00001)
    1.00048828125
    """
    mantissa, exponent = math.frexp(value)
    steps = math.ceil(mantissa * 2**SIGNIFICANT_BITS)
    return math.ldexp(steps, exponent - SIGNIFICANT_BITS)


def histogram(values: NDArray[np.float32], *, amax: float) -> Counts:
    """Return how many absolute values fall into each of ``BINS`` equal parts of 0 to ``amax``."""
    if amax == 0:
        return np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)
    places = np.abs(values.ravel().astype(np.float64)) * (BINS / amax)
    return np.bincount(np.minimum(places.astype(np.int64), BINS - 1), minlength=BINS)


def threshold(observed: Observed, method: Calibrator, *, percentile: float) -> float:
    """Return the largest absolute value that int8 shall stand for.

    Args:
        percentile: Of the absolute values, the share in percent that ``percentile`` keeps in range.
    """
    if method is Calibrator.MINMAX or observed.amax == 0:
        return observed.amax
    if method is Calibrator.PERCENTILE:
        wanted = observed.values * percentile / 100
        kept = int(np.searchsorted(observed.histogram_b.cumsum(), wanted)) + 1
        return observed.amax * min(kept, BINS) / BINS
    # Zeros are exact in every range, so they say nothing about which is best.
    counts_b = observed.histogram_b.copy()
    counts_b[0] -= observed.zeros
    return observed.amax * least_divergent(counts_b, levels=LEVELS) / BINS


def saturated(observed: Observed, limit: float) -> float:
    """Return the share of values in bins beyond a threshold of :func:`threshold`."""
    if observed.amax == 0:
        return 0.0
    kept = round(limit / observed.amax * BINS)
    return float(observed.histogram_b[kept:].sum() / observed.values)


def least_divergent(counts_b: Counts, *, levels: int) -> int:
    """Return how many bins to keep so that the rounded distribution diverges least.

    Keeping c bins clips what lies beyond into the last of them, which gives the distribution P;
    rounding to so many levels spreads each level's counts evenly over its bins that are not empty,
    which gives Q. The c of the least Kullback-Leibler divergence of Q from P is returned, the
    fewest of equals. Where nothing was counted, all bins are.

    Source: Migacz (2017), 8-bit inference with TensorRT, GPU Technology Conference, S7310.

    Sums over a level are differences of running sums, so all candidates are tried at once: for
    each, KL·T = Σ P log P - Σ over levels of (P's mass)·log(Q's height) + T·log(kept / T), where T
    counts all.
    """
    if not counts_b.any():
        return len(counts_b)
    total = int(counts_b.sum())
    kept_c = np.arange(levels, len(counts_b) + 1)
    borders_cl = kept_c[:, None] * np.arange(levels + 1) // levels
    inside_cl = np.diff(_running(counts_b)[borders_cl], axis=1)
    filled_cl = np.diff(_running(counts_b > 0)[borders_cl], axis=1)
    beyond_c = total - _running(counts_b)[kept_c]
    last_c = counts_b[kept_c - 1]
    filled_cl[:, -1] += (last_c == 0) & (beyond_c > 0)
    mass_cl = inside_cl.copy()
    mass_cl[:, -1] += beyond_c
    with np.errstate(divide="ignore", invalid="ignore"):
        heights_cl = np.where(mass_cl > 0, np.log(inside_cl / filled_cl), 0.0)
        shrunk_c = np.log((total - beyond_c) / total)
        own_c = _running(_x_log_x(counts_b))[kept_c - 1] + _x_log_x(last_c + beyond_c)
        divergence_c = own_c - (mass_cl * heights_cl).sum(axis=1) + total * shrunk_c
    return int(kept_c[np.argmin(np.where(np.isnan(divergence_c), np.inf, divergence_c))])


def _running(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _x_log_x(counts: NDArray[np.number]) -> NDArray[np.float64]:
    return np.asarray(counts * np.log(np.maximum(counts, 1)), np.float64)
