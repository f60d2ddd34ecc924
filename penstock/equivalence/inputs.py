"""Inputs that a holdout has few of or none: rare rows, jittered ones, and ones out of distribution.

A network's inputs are pictures, or one matrix of columns in which categories are whole numbers. A
column of a matrix whose values are all whole numbers is taken for a category here: its values are
moved between rows and never made up or changed, since no embedding has a row for what is made up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Inputs = NDArray[np.float32]

RARE = "rare"
RARE_SHARE = 0.02
SCALE = 10.0
JITTER = 1e-4
SEED = 20260101
"""Of shuffles and jitters: the same holdout always gives the same inputs."""

_NORMAL_MAD, _NORMAL_MEAN = 1.4826, 1.2533
"""A normal distribution's standard deviation over its median and mean absolute deviation."""


class Centre:
    """Where the columns of ordinary inputs lie, and how far they spread."""

    def __init__(self, sample_n: Inputs) -> None:
        """Take inputs, shape [n, ...], that stand for all; missing values (NaN) are left out."""
        columns_nd: Any = np.ma.masked_invalid(_matrix(sample_n).astype(np.float64))
        self._middle_d = _present(np.ma.median(columns_nd, axis=0))
        away_nd = np.abs(columns_nd - self._middle_d)
        median_d = _present(np.ma.median(away_nd, axis=0)) * _NORMAL_MAD
        mean_d = _present(away_nd.mean(axis=0)) * _NORMAL_MEAN
        self._spread_d = np.where(median_d > 0, median_d, mean_d)

    def distance(self, inputs_n: Inputs) -> NDArray[np.float64]:
        """Return how far out each input lies: the largest robust z-score of its columns, shape [n].

        A column's z-score is its distance from the median in units of 1.4826 times the median
        absolute deviation, or of 1.2533 times the mean one where half the values are equal; in a
        column where all are, any other value is infinitely far out. Missing values lie nowhere.

        Source: Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers.
        """
        away_nd = np.abs(_matrix(inputs_n).astype(np.float64) - self._middle_d)
        far_nd = np.where(away_nd > 0, np.inf, 0.0)
        np.divide(away_nd, self._spread_d, out=far_nd, where=self._spread_d > 0)
        return np.nan_to_num(far_nd, nan=0.0, posinf=np.inf).max(axis=1, initial=0.0)


def rare(distance_n: NDArray[np.float64], *, least: int) -> NDArray[np.bool_]:
    """Return which inputs lie furthest out: two in a hundred, and at least so many, shape [n]."""
    n = len(distance_n)
    count = min(n, max(least, math.ceil(RARE_SHARE * n)))
    held = np.zeros(n, bool)
    held[np.argsort(-distance_n, kind="stable")[:count]] = True
    return held


def beyond(sample_n: Inputs) -> dict[str, Inputs]:
    """Return inputs out of distribution, made of real ones; each kind has the shape of the sample.

    - ``shuffled``: every column (or pixel) is permuted across rows: each value is real, no row is.
    - ``scaled``: ten times as large.
    - ``saturated``: every value is the smallest or the largest of its column, by a coin.
    - ``zeros``: nothing but zeros.

    Categories are permuted within their column in all of them.
    """
    rng = np.random.default_rng(SEED)
    columns_nd = _matrix(sample_n)
    shuffled_nd = rng.permuted(columns_nd, axis=0)
    coin_nd = rng.random(columns_nd.shape) < 0.5
    # fmin and fmax pass over missing values.
    low_d: Inputs = np.fmin.reduce(columns_nd, axis=0)
    high_d: Inputs = np.fmax.reduce(columns_nd, axis=0)
    made = {
        "shuffled": shuffled_nd,
        "scaled": columns_nd * np.float32(SCALE),
        "saturated": np.where(coin_nd, low_d, high_d),
        "zeros": np.zeros_like(columns_nd),
    }
    category_d = categories(sample_n)
    return {
        name: np.where(category_d, shuffled_nd, found).astype(np.float32).reshape(sample_n.shape)
        for name, found in made.items()
    }


def jittered(inputs_n: Inputs) -> Inputs:
    """Return inputs that barely differ: every value up to ``JITTER`` of itself away.

    Categories stay as they are.
    """
    rng = np.random.default_rng(SEED)
    columns_nd = _matrix(inputs_n)
    side_nd = 2 * rng.random(columns_nd.shape, np.float32) - 1
    moved_nd = columns_nd * (1 + np.float32(JITTER) * side_nd)
    return np.where(categories(inputs_n), columns_nd, moved_nd).reshape(inputs_n.shape)


def categories(inputs_n: Inputs) -> NDArray[np.bool_]:
    """Return which columns hold whole numbers only, shape [d]; of pictures, none does."""
    columns_nd = _matrix(inputs_n)
    if inputs_n.ndim != 2:
        return np.zeros(columns_nd.shape[1], bool)
    return (columns_nd == np.floor(columns_nd)).all(axis=0)


def _present(columns_d: Any) -> NDArray[np.float64]:
    """Return a masked array's numbers; a column without any counts as 0."""
    return np.asarray(np.ma.filled(columns_d, 0.0), np.float64)


def _matrix(inputs_n: Inputs) -> Inputs:
    return inputs_n.reshape(len(inputs_n), -1)
