"""What became of requests, as it becomes known: late, corrected, or of requests nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.rollout.lines import blocks, records
from penstock.rollout.rows import Columns

Array = NDArray[Any]

LABEL = "label"
_NO_VALUES = ("request_id", "row", "at")


@dataclass(kw_only=True)
class Value:
    """One field of the outcomes: its value for each request that has one.

    Of several the last counts, by its time (one without a time yields to one with it) and then by
    its place in the file: corrections come later than what they correct.
    """

    held: Columns = field(
        default_factory=lambda: Columns(
            {"request": np.int64, "at": np.float64, "value": np.float64}
        )
    )
    _sorted: tuple[int, Array] = (0, np.empty(0, np.int64))

    def of(self, request_n: Array) -> tuple[Array, Array]:
        """Return the value of each request, shape [n], and when it came; NaN for none."""
        last = self._last()
        known = self.held["request"][last]
        value, came = np.full(len(request_n), np.nan), np.full(len(request_n), np.nan)
        if len(known):
            place = np.minimum(np.searchsorted(known, request_n), len(known) - 1)
            found = known[place] == request_n
            value[found] = self.held["value"][last][place[found]]
            came[found] = self.held["at"][last][place[found]]
        return value, np.where(np.isinf(came), np.nan, came)

    def _last(self) -> Array:
        """Return the places of the outcomes that count, by request."""
        n, last = self._sorted
        if n != len(self.held):
            request = self.held["request"]
            order = np.lexsort((self.held["at"], request))
            ends = np.append(request[order][1:] != request[order][:-1], True)
            last = order[ends]
            self._sorted = len(self.held), last
        return last


@dataclass(kw_only=True)
class Outcomes:
    """Follows a file of JSON lines: request_id, and label or other numbers; row 0 alone counts."""

    path: Path
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    _offset: int = 0

    def poll(self) -> None:
        """Take in what was written since the last call."""
        try:
            for data, self._offset in blocks(self.path, self._offset):
                self._take(data)
        except FileNotFoundError:
            return

    def _take(self, data: bytes) -> None:
        new: dict[str, tuple[list[int], list[float], list[float]]] = {}
        for record in records(data):
            at = record.get("at")
            came = float(at) if _number(at) else -np.inf
            for name, value in _values(record):
                lists = new.setdefault(name, ([], [], []))
                for one, item in zip(lists, (hash(record["request_id"]), came, value), strict=True):
                    one.append(item)
        for name, (request, at, value) in new.items():
            held = self.values.setdefault(name, Value()).held
            held.add({"request": np.asarray(request), "at": np.asarray(at), "value": value})


def _values(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the numbers of an outcome; none of what is no outcome, or of another row."""
    if not isinstance(record.get("request_id"), str) or record.get("row", 0) != 0:
        return []
    found = {name: value for name, value in record.items() if _number(value)}
    # What is compared with decisions is a class: nothing else is made to fit.
    if LABEL in record and type(record[LABEL]) is not int:
        return []
    return [(name, value) for name, value in found.items() if name not in _NO_VALUES]


def _number(value: Any) -> bool:
    return type(value) in (int, float)
