"""Which rows belong to which slice."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.policy import ALL
from penstock.workload import Network, Slice

__all__ = ["ALL", "masks"]


def masks(rows: pa.Table, declared: Network) -> dict[str, NDArray[np.bool_]]:
    """Return which rows, of shape [n], each slice holds: each class, then the declared ones.

    Raises:
        ValueError: A slice names a column that the rows do not have.
    """
    found: dict[str, NDArray[np.bool_]] = {}
    if names := declared.class_slices():
        labels_n = rows[declared.label].to_numpy()
        found = {name: labels_n == label for label, name in enumerate(names)}
    return {**found, **{part.name: _mask(rows, part) for part in declared.slices}}


def _mask(rows: pa.Table, part: Slice) -> NDArray[np.bool_]:
    if part.column not in rows.column_names:
        raise ValueError(
            f"slice {part.name!r} looks at column {part.column!r}; the rows have "
            f"{', '.join(rows.column_names)}."
        )
    column = rows[part.column].combine_chunks()
    if part.missing:
        return np.asarray(pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False))
    held = np.ones(len(column), bool)
    if part.low is not None:
        held &= _true(pc.greater_equal(column, part.low))
    if part.high is not None:
        held &= _true(pc.less(column, part.high))
    if part.among is not None:
        held &= _true(pc.is_in(column, value_set=pa.array(part.among, column.type)))
    return held


def _true(answers: pa.Array) -> NDArray[np.bool_]:
    """Return answers as truth values; what is missing is in no slice with limits."""
    return np.asarray(pc.fill_null(answers, False).to_numpy(zero_copy_only=False))
