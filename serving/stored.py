"""Stored: values that were looked up as columns, checked as those of a request are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.online import Found
from penstock.request import STAMP, Feature
from serving.columns import FEW, Numbers

Masks = dict[str, NDArray[np.bool_]]
"""Of features, which rows have no value that is fit."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Scalars:
    """The looked-up features of one number a row, checked as a request's are."""

    def __init__(self, features: Sequence[Feature]) -> None:
        """Prepare their limits, each of shape [features, 1]."""
        self._features = features
        largest = np.finfo(np.float64).max
        low = [-largest if f.low is None else f.low for f in features]
        high = [largest if f.high is None else f.high for f in features]
        self._low, self._high = np.array([low]).T, np.array([high]).T
        self._needed = np.array([[not f.nullable for f in features]]).T
        self._plain = all(f.among is None and f.dtype != STAMP for f in features)
        kinds = [np.int64 if f.whole and not f.nullable else np.float64 for f in features]
        self._each = [
            (f.name, *limits, f.nullable, kind)
            for f, kind, *limits in zip(features, kinds, low, high, strict=True)
        ]

    def __call__(self, found: Sequence[Found]) -> tuple[dict[str, Numbers], Masks]:
        """Return columns, and of each feature that has unfit values where they are.

        Raises:
            TypeError, ValueError: A stored value is no number.
        """
        if not self._features:
            return {}, {}
        if self._plain and len(found) <= FEW and (columns := self._of_few(found)) is not None:
            return columns, {}
        lists = [[one.values[f.name] for one in found] for f in self._features]
        for feature, values in zip(self._features, lists, strict=True):
            if feature.dtype == STAMP:
                values[:] = map(_microseconds, values)
        held_fn = np.array(lists, np.float64)  # None becomes NaN
        unfit_fn = (held_fn < self._low) | (held_fn > self._high)
        unfit_fn |= np.isnan(held_fn) & self._needed
        columns, unfit = dict[str, Numbers](), dict[str, NDArray[np.bool_]]()
        some = unfit_fn.any()
        for at, feature in enumerate(self._features):
            columns[feature.name] = _typed(feature, held_fn[at], lists[at])
            unfit_n = unfit_fn[at]
            if feature.among is not None:
                unfit_n = unfit_n | ~(np.isin(held_fn[at], feature.among) | np.isnan(held_fn[at]))
            if (some or feature.among is not None) and unfit_n.any():
                unfit[feature.name] = unfit_n
        return columns, unfit

    def _of_few(self, found: Sequence[Found]) -> dict[str, Numbers] | None:
        """Return the columns of few rows, None where a value is unfit: numpy's calls cost more."""
        columns: dict[str, Numbers] = {}
        for name, low, high, nullable, kind in self._each:
            values = [one.values[name] for one in found]
            for value in values:
                if not (nullable if value is None else low <= value <= high):
                    return None
            columns[name] = np.array(values, kind)
        return columns


def _typed(feature: Feature, held_n: NDArray[np.float64], values: Sequence[Any]) -> Numbers:
    """Return a column of the type that the model is given; whole numbers keep every digit."""
    if not feature.whole or feature.nullable:
        return held_n
    return np.array([0 if value is None else value for value in values], np.int64)


def lists(feature: Feature, found: Sequence[Found]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return a list column [n, length], and which rows are missing or not as the contract says."""
    assert feature.length is not None
    held_nl = np.zeros((len(found), feature.length), np.float32)
    unfit_n = np.ones(len(found), np.bool_)
    low = -np.inf if feature.low is None else feature.low
    high = np.inf if feature.high is None else feature.high
    for at, one in enumerate(found):
        values = one.values[feature.name]
        if values is not None and len(values) == feature.length:
            held_nl[at] = values
            unfit_n[at] = not ((held_nl[at] >= low) & (held_nl[at] <= high)).all()
    return held_nl, unfit_n


def _microseconds(value: datetime | None) -> int | None:
    return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)
