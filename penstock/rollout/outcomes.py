"""What became of requests, as it becomes known: late, corrected, or of requests nobody knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.rollout.lines import blocks, numbers
from penstock.rollout.rows import Columns, hashed

Array = NDArray[Any]

LABEL = "label"
_NO_VALUES = ("request_id", "row", "at")
# What is compared with decisions is a class: a label is a whole number, or the line is no outcome.
_SCHEMA = pa.schema(
    [("request_id", pa.string()), ("row", pa.int64()), ("at", pa.float64()), (LABEL, pa.int64())]
)


@dataclass(kw_only=True)
class Value:
    """One field of the outcomes: its value for each request that has one.

    Of several that of the first row counts: a request that ranked rows has an outcome of the one
    that was shown. Of several of one row the last counts, by its time (one without a time yields to
    one with it) and then by its place in the file: corrections come later than what they correct.
    """

    held: Columns = field(
        default_factory=lambda: Columns(
            {"request": np.int64, "row": np.int64, "at": np.float64, "value": np.float64}
        )
    )
    _sorted: tuple[int, Array] = (0, np.empty(0, np.int64))

    def of(self, request_n: Array) -> tuple[Array, Array]:
        """Return the value of each request, shape [n], and when it came; NaN for none."""
        value, came = self._of("value", request_n), self._of("at", request_n)
        return value, np.where(np.isinf(came), np.nan, came)

    def row_of(self, request_n: Array) -> Array:
        """Return the row that each request's value is of, shape [n]; NaN for none."""
        return self._of("row", request_n)

    def _of(self, column: str, request_n: Array) -> Array:
        last = self._last()
        known, held = self.held["request"][last], np.full(len(request_n), np.nan)
        if len(known):
            place = np.minimum(np.searchsorted(known, request_n), len(known) - 1)
            found = known[place] == request_n
            held[found] = self.held[column][last][place[found]]
        return held

    def _last(self) -> Array:
        """Return the places of the outcomes that count, by request."""
        n, last = self._sorted
        if n != len(self.held):
            request = self.held["request"]
            order = np.lexsort((self.held["at"], -self.held["row"], request))
            ends = np.append(request[order][1:] != request[order][:-1], True)
            last = order[ends]
            self._sorted = len(self.held), last
        return last


@dataclass(kw_only=True)
class Outcomes:
    """Follows a file of JSON lines: request_id, row (0 unless said), and label or other numbers."""

    path: Path | None = None
    """None where whoever holds the lines brings them; see :meth:`take`."""

    values: dict[str, Value] = field(default_factory=dict[str, Value])
    _offset: int = 0

    def poll(self) -> None:
        """Take in what was written since the last call."""
        if self.path is None:
            return
        try:
            for data, offset in blocks(self.path, self._offset):
                self._offset = offset
                self.take(data)
        except FileNotFoundError:
            return

    def take(self, data: bytes) -> None:
        """Take whole lines, in the order in which they were written."""
        told = numbers(data, _SCHEMA)
        told = told.filter(pc.is_valid(told["request_id"]))
        request = hashed(told["request_id"])
        row = np.asarray(told["row"].fill_null(0))
        at = np.asarray(told["at"].fill_null(-np.inf))
        for name in set(told.column_names) - set(_NO_VALUES):
            there = np.asarray(told[name].is_valid())
            value = np.asarray(told[name].fill_null(0))[there]
            held = self.values.setdefault(name, Value()).held
            kept = {"request": request[there], "row": row[there], "at": at[there]}
            held.add(kept | {"value": value})
