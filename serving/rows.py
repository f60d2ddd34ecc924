"""Rows: a request's columns as numpy has them in, the table that the transform reads out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.request import Contract, Feature

Columns = Mapping[str, NDArray[Any]]
"""Of every feature its values, [n] or [n, length]; times are int64 microseconds. A feature that may
be missing is float64, missing as NaN."""


class Rows:
    """Makes the table of one contract's features, without copying what need not be.

    The arrays are the table's memory from then on: nobody may write to them.
    """

    def __init__(self, contract: Contract) -> None:
        """Prepare what does not depend on the values."""
        self._schema = pa.schema([(f.name, f.arrow) for f in contract.features])
        self._made = [(f.name, _maker(f)) for f in contract.features]

    def __call__(self, columns: Columns) -> pa.Table:
        """Return the table of n rows.

        Raises:
            KeyError: A feature is not there.
        """
        arrays = [make(columns[name]) for name, make in self._made]
        return pa.Table.from_arrays(arrays, schema=self._schema)


def from_instances(instances: Sequence[Mapping[str, Any]], contract: Contract) -> Columns:
    """Return columns of rows as :func:`penstock.request.instances` gave them."""
    return {f.name: _column(f, [row[f.name] for row in instances]) for f in contract.features}


def taken(columns: Columns, rows_n: NDArray[np.int64]) -> Columns:
    """Return these rows of columns."""
    return {name: held[rows_n] for name, held in columns.items()}


def _column(feature: Feature, values: list[Any]) -> NDArray[Any]:
    if feature.length is not None:
        return np.array(values, np.float32).reshape(-1, feature.length)
    if feature.nullable or not feature.whole:
        return np.array([np.nan if v is None else v for v in values], np.float64)
    return np.array(values, np.int64)


def _maker(feature: Feature) -> Callable[[NDArray[Any]], pa.Array]:
    if feature.length is not None:
        return partial(_lists, feature.arrow, feature.length)
    dtype = np.dtype(np.int64 if feature.whole else np.float64)
    if feature.nullable:
        return partial(_nullable, feature.arrow, dtype)
    return partial(_plain, feature.arrow, dtype)


def _plain(kind: pa.DataType, dtype: np.dtype[Any], held_n: NDArray[Any]) -> pa.Array:
    held_n = np.ascontiguousarray(held_n, dtype)
    return pa.Array.from_buffers(kind, len(held_n), [None, pa.py_buffer(held_n)])


def _nullable(kind: pa.DataType, dtype: np.dtype[Any], held_n: NDArray[Any]) -> pa.Array:
    missing_n = np.isnan(held_n)
    if not missing_n.any():
        return _plain(kind, dtype, held_n)
    known_n = np.where(missing_n, 0, held_n).astype(dtype)
    return pa.array(known_n, mask=missing_n).view(kind)


def _lists(kind: pa.ListType, length: int, held_nl: NDArray[Any]) -> pa.Array:
    held_nl = np.ascontiguousarray(held_nl, np.float32)
    flat = pa.Array.from_buffers(kind.value_type, held_nl.size, [None, pa.py_buffer(held_nl)])
    n = len(held_nl)
    return pa.Array.from_buffers(kind, n, [None, _offsets(n, length)], children=[flat])


@lru_cache(maxsize=1024)
def _offsets(n: int, length: int) -> pa.Buffer:
    return pa.py_buffer(np.arange(0, (n + 1) * length, length, dtype=np.int32))
