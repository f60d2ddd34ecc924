"""The holdout as network inputs, read and transformed batch by batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock.bundle import BundleError
from penstock.stats.slices import masks
from penstock.workload import Network

BATCH = 1024
"""Rows that are transformed and run at once; what bounds the memory of the ladder."""


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Rows of a Parquet file; no more than a batch of them is a network input at any time."""

    path: Path
    declared: Network

    transform: Callable[[pa.Table], NDArray[np.float32]]
    """The workload's ``training_input``: rows to inputs [n, ...], each row by itself."""

    def __post_init__(self) -> None:
        if not len(self):
            raise BundleError(f"{self.path} has no rows; nothing can be shown equal on none.")

    def __len__(self) -> int:
        return int(pq.read_metadata(self.path).num_rows)

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Yield the inputs of all rows in order, at most ``BATCH`` at a time."""
        for rows in self._tables():
            yield self.transform(rows)

    def pick(self, rows_m: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the inputs of some rows, in the order asked for, shape [m, ...]."""
        found: list[NDArray[np.float32]] = []
        wanted, start = np.unique(rows_m), 0
        for rows in self._tables():
            here = wanted[(wanted >= start) & (wanted < start + len(rows))] - start
            if len(here):
                found.append(self.transform(rows.take(pa.array(here))))
            start += len(rows)
        return np.concatenate(found)[np.searchsorted(wanted, rows_m)]

    def spread(self, most: int) -> NDArray[np.int64]:
        """Return the numbers of evenly spaced rows, at most so many, the first among them."""
        return np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64))

    def labels(self) -> NDArray[np.int64]:
        """Return the labels, shape [n]."""
        return np.asarray(self._columns(self.declared.label)[self.declared.label].to_numpy())

    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """Return which rows each slice holds, shape [n] each."""
        named = [part.column for part in self.declared.slices]
        return masks(self._columns(self.declared.label, *named), self.declared)

    def keys(self, rows_m: NDArray[np.int64]) -> list[str]:
        """Return what identifies some rows, as JSON."""
        held = self._columns(*self.declared.data.unique).take(pa.array(rows_m))
        return [json.dumps(row, default=str, sort_keys=True) for row in held.to_pylist()]

    def _columns(self, *names: str) -> pa.Table:
        there = pq.read_schema(self.path).names
        return pq.read_table(self.path, columns=[n for n in dict.fromkeys(names) if n in there])

    def _tables(self) -> Iterator[pa.Table]:
        for batch in pq.ParquetFile(self.path).iter_batches(batch_size=BATCH):
            yield pa.Table.from_batches([batch])
