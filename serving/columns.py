"""Columns: one feature's values of a request as an array, or a sentence that names what is wrong.

Numbers from JSON are looked at as they are: numpy would read text and truth values as numbers too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.request import EARLIEST_US, LATEST_US, STAMP, Feature

EXACT = 2.0**53
"""A float holds every whole number up to here."""

FEW = 16
"""Up to so many numbers Python compares faster than numpy is called."""

Numbers = NDArray[Any]

_JSON_NAMES = {
    str: "text",
    bool: "a truth value",
    type(None): "null",
    dict: "an object",
    list: "a list of lists",
}


class Column:
    """Reads the values of one feature. Its arrays are new, contiguous, and of one type."""

    def __init__(self, feature: Feature) -> None:
        """Prepare what does not depend on the values."""
        self.feature, self.name = feature, feature.name
        self.datatypes = ("FP32",) if feature.length is not None else ("FP32", "FP64", "INT64")
        """Of v2, in which its values may come."""

        self._exact = feature.whole and not feature.nullable
        kind = np.float32 if feature.length is not None else np.float64
        self.dtype = np.dtype(np.int64 if self._exact else kind)
        """Of its arrays; a missing value is NaN."""

        low, high = _range(feature)
        largest = EXACT if feature.whole else float(np.finfo(kind).max)
        self._low = -largest if low is None else low
        self._high = largest if high is None else high
        self._rest = tuple(feature.shape[1:])
        self._allowed = {int, float, type(None)} if feature.nullable else {int, float}
        # A whole number that is written 3.0 is right, and looked at more closely.
        self._plain = self._allowed - {float} if feature.whole else self._allowed

    def of_rows(self, values: list[Any]) -> Numbers:
        """Return one JSON value for each row as [n] or [n, length].

        Raises:
            ValueError: They are not what the contract asks; the text names the feature.
        """
        if self._fine(values):
            return np.array(values, self.dtype)
        return self._checked(self._array(values))

    def of_data(self, values: list[Any], shape: list[int]) -> Numbers:
        """Return the JSON data of a tensor, flat or nested as its shape.

        Raises:
            ValueError: As :meth:`of_rows`, or not as many as the shape says.
        """
        if len(shape) == 1 and shape[0] == len(values) and self._fine(values):
            return np.array(values, self.dtype)
        return self._checked(self._shaped(self._array(values), shape))

    def of_narrow_data(self, values: list[Any], shape: list[int]) -> Numbers:
        """Return JSON data that came as FP32: as the same numbers would be that came as bytes.

        Raises:
            ValueError: As :meth:`of_data`.
        """
        if len(shape) == 1 and shape[0] == len(values) and self._fine(values):
            rounded = np.array(values, np.float32)
            if self._fine(rounded.tolist()):
                return rounded.astype(self.dtype)
        with np.errstate(over="ignore"):
            rounded = self._array(values).astype(np.float32)
        return self._checked(self._shaped(rounded, shape))

    def of_bytes(self, held: Numbers, shape: list[int]) -> Numbers:
        """Return numbers that came as bytes.

        Raises:
            ValueError: As :meth:`of_data`.
        """
        # The bytes of a body lie anywhere, those of an array where the processor wants them.
        return self._checked(self._shaped(held.copy(), shape))

    def _fine(self, values: list[Any]) -> bool:
        """Return whether values, one a row, are few and all right; if not, look closer."""
        feature = self.feature
        if len(values) > FEW or self._rest or feature.among is not None:
            return False
        low, high, plain = self._low, self._high, self._plain
        for value in values:
            if type(value) not in plain or not (value is None or low <= value <= high):
                return False
        return True

    def _checked(self, held: Numbers) -> Numbers:
        if held.shape[1:] != self._rest or not held.ndim:
            wanted = ", ".join(map(str, ["n", *self._rest]))
            raise ValueError(f"{self.name}: shape {list(held.shape)} came, [{wanted}] was wanted")
        feature = self.feature
        plain = feature.among is None and not (feature.whole and held.dtype.kind == "f")
        # A comparison with NaN is false: what lies in the range is finite too.
        if not (plain and held.size and self._low <= held.min() and held.max() <= self._high):
            if held.dtype.kind == "f":
                _refuse_unfit_floats(feature, held)
            _refuse_out_of_range(feature, held)
        return held if held.dtype is self.dtype else held.astype(self.dtype)

    def _array(self, values: list[Any]) -> Numbers:
        """Return numbers from JSON.

        Raises:
            ValueError: One is no number, or there is none where none may be missing.
        """
        kinds = set(map(type, values))
        if list in kinds:
            kinds = set(map(type, _leaves(values)))
        if not kinds <= self._allowed:
            others = sorted(_JSON_NAMES.get(k, k.__name__) for k in kinds - self._allowed)
            raise ValueError(f"{self.name}: {', '.join(others)} came, numbers were wanted")
        dtype = self.dtype if not self._exact or kinds <= {int} else np.float64
        try:
            with np.errstate(over="ignore"):
                return np.array(values, dtype)
        except (TypeError, ValueError, OverflowError) as e:
            what = f"rows of {self._rest[0]} numbers" if self._rest else "a number for each row"
            raise ValueError(f"{self.name}: {what} was wanted: {e}") from None

    def _shaped(self, held: Numbers, shape: list[int]) -> Numbers:
        if held.ndim == 1 and len(shape) > 1:
            try:
                return held.reshape(shape)
            except ValueError:
                pass  # said below
        if list(held.shape) != shape:
            came = held.size if held.ndim == 1 else list(held.shape)
            raise ValueError(f"{self.name}: shape {shape} was said, {came} numbers came")
        return held


def _range(feature: Feature) -> tuple[float | None, float | None]:
    if feature.dtype == STAMP:
        return EARLIEST_US, LATEST_US
    return feature.low, feature.high


def _refuse_unfit_floats(feature: Feature, held: Numbers) -> None:
    unfit = np.isinf(held) if feature.nullable else ~np.isfinite(held)
    if unfit.any():
        raise ValueError(f"{feature.name}: holds a value that is not a finite number")
    if feature.whole:
        known = held[~np.isnan(held)]
        if (known != np.rint(known)).any() or (np.abs(known) > EXACT).any():
            raise ValueError(f"{feature.name}: holds a number that is not whole")


def _refuse_out_of_range(feature: Feature, held: Numbers) -> None:
    low, high = _range(feature)
    below, above = low is not None and held < low, high is not None and held > high
    outside = np.logical_or(below, above)
    if outside.any():
        least = "any" if low is None else f"{low:g}"
        most = "any" if high is None else f"{high:g}"
        unit = " microseconds since 1970" if feature.dtype == STAMP else ""
        raise ValueError(
            f"{feature.name}: {held[outside].flat[0]:g} came, {least} to {most}{unit} are allowed"
        )
    if feature.among is not None and not np.isin(held[~np.isnan(held)], feature.among).all():
        raise ValueError(f"{feature.name}: only {list(feature.among)} are allowed")


def _leaves(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if type(value) is list:
            yield from value
        else:
            yield value
