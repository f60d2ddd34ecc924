"""Records as compact columns: some sixty bytes each, whatever the features of the model are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.policy import Slice
from penstock.release import EVERYWHERE

Array = NDArray[Any]

STOOD_IN = "failed:"
"""Beginning of a fallback that answered because the model could not."""

TOO_MANY_REQUESTS = 429
ANSWERED, FAILED, REFUSED, BUSY = range(4)
"""What became of a request; busy is a failure too, but says nothing of decisions."""

LIVE, GIVEN, COPY = range(3)
"""Whose a request is: of whoever answers, given to the challenger by the table, or a copy."""

NO_EVIDENCE = ("standby", "fallback", "probe")
"""Arms of requests that say nothing of a release."""

COLUMNS: dict[str, type] = {
    "at": np.float64,
    "request": np.int64,
    "user": np.int64,
    "named": np.bool_,
    "version": np.int32,
    "market": np.int32,
    "kind": np.uint8,
    "state": np.uint8,
    "latency_ms": np.float32,
    "label": np.float64,
    "score": np.float32,
    "slices": np.uint64,
}
"""Of a request; label and score are those of its first row. One whose user is not ``named`` has its
own number for it."""

RANKED: dict[str, type] = {
    "request": np.int64,
    "version": np.int32,
    "kind": np.uint8,
    "row": np.int32,
    "score": np.float32,
}
"""Of a row of a request that has several."""


class Columns:
    """Columns that grow together, at little cost however often."""

    def __init__(self, kinds: Mapping[str, type]) -> None:
        """Begin without rows."""
        self._held: dict[str, Array] = {name: np.empty(1024, kind) for name, kind in kinds.items()}
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, name: str) -> Array:
        return self._held[name][: self._n]

    def add(self, columns: Mapping[str, Array]) -> None:
        """Append rows: each column has shape [n]."""
        n = self._n + len(next(iter(columns.values())))
        for name, column in columns.items():
            if n > len(self._held[name]):
                size = max(n, len(self._held[name]) * 3 // 2)
                self._held[name] = np.resize(self._held[name], size)
            self._held[name][self._n : n] = column
        self._n = n


@dataclass(kw_only=True)
class Rows:
    """Everything that was taken from the logs."""

    slices: Sequence[Slice]
    classes: int
    requests: Columns = field(default_factory=lambda: Columns(COLUMNS))
    ranked: Columns = field(default_factory=lambda: Columns(RANKED))
    _codes: dict[str, dict[str, int]] = field(default_factory=lambda: {"version": {}, "market": {}})

    def code(self, of: str, name: str) -> int:
        """Return the number of a version or market; a new one for a new name."""
        return self._codes[of].setdefault(name, len(self._codes[of]))

    def take(self, told: pa.Table) -> None:
        """Take records, as :mod:`penstock.rollout.lines` gives them."""
        whole = pc.and_(pc.is_valid(told["at"]), pc.is_valid(told["request_id"]))
        table = told.filter(whole).combine_chunks()
        arm = _texts(table["arm"])
        keep = ~np.isin(arm, NO_EVIDENCE)
        if not keep.all():
            table, arm = table.filter(pa.array(keep)), arm[keep]
        if not len(table):
            return
        made = self._columns(table, arm)
        self.requests.add(made)
        self._rank(table, made)

    def _columns(self, table: pa.Table, arm: Array) -> dict[str, Array]:
        request = hashed(table["request_id"])
        named = _valid(table["user"])
        user = np.where(named, hashed(table["user"]), request)
        mirrored = _bools(table["mirrored"])
        label, labelled, _ = firsts(table["label"])
        chance, given, _ = firsts(table["probability"])
        return {
            "at": _numbers(table["at"]),
            "request": request,
            "user": user,
            "named": named,
            "version": self._coded("version", table["version"], ""),
            "market": self._coded("market", table["market"], EVERYWHERE),
            "kind": np.where(mirrored, COPY, np.where(arm == "challenger", GIVEN, LIVE)),
            "state": _state(table),
            "latency_ms": _numbers(table["latency_ms"]),
            "label": np.where(labelled, label, np.nan),
            "score": np.where(given, self._score(label, chance), np.nan),
            "slices": self._sliced(table["features"]),
        }

    def _score(self, label: Array, chance: Array) -> Array:
        """Return the probability of class 1 of two, or that of the decision."""
        return np.where(label == 1, chance, 1 - chance) if self.classes == 2 else chance

    def _coded(self, of: str, column: pa.ChunkedArray, missing: str) -> Array:
        encoded = column.combine_chunks().fill_null(missing).dictionary_encode()
        codes = [self.code(of, name) for name in encoded.dictionary.to_pylist()]
        return np.asarray(codes, np.int32)[encoded.indices.to_numpy()]

    def _sliced(self, features: pa.ChunkedArray) -> Array:
        held = features.combine_chunks()
        there = _valid(features)
        bits = np.zeros(len(held), np.uint64)
        for k, part in enumerate(self.slices):
            value, has, length = firsts(pc.struct_field(held, part.column))
            # A request without rows, or one that was refused unread, is in no slice.
            inside = there & (length > 0) & member(part, np.where(has, value, np.nan))
            bits |= inside.astype(np.uint64) << np.uint64(k)
        return bits

    def _rank(self, table: pa.Table, made: Mapping[str, Array]) -> None:
        """Keep each row's score of requests that have several."""
        chance, label = (table[name].combine_chunks() for name in ("probability", "label"))
        length = _lengths(chance)
        several = (length > 1) & (length == _lengths(label)) & (made["state"] == ANSWERED)
        if not several.any():
            return
        picked = np.flatnonzero(several)
        rows_p = length[picked]
        of_r = np.repeat(picked, rows_p)
        row_r = np.arange(len(of_r)) - np.repeat(np.cumsum(rows_p) - rows_p, rows_p)
        score_r = self._score(_at(label, of_r, row_r), _at(chance, of_r, row_r))
        self.ranked.add(
            {name: made[name][of_r] for name in ("request", "version", "kind")}
            | {"row": row_r, "score": score_r}
        )


def hashed(column: pa.ChunkedArray) -> Array:
    """Return a number for each text: the same for the same one, within this process alone.

    The hash is keyed, so nobody who chooses the ids of requests can make two of them alike.
    """
    return np.fromiter(map(hash, column.to_pylist()), np.int64, len(column))


def member(part: Slice, value_n: Array) -> Array:
    """Return which values are in a slice, shape [n]; NaN is a missing one."""
    if part.missing:
        return np.isnan(value_n)
    held = ~np.isnan(value_n)
    if part.low is not None:
        held &= value_n >= part.low
    if part.high is not None:
        held &= value_n < part.high
    if part.among is not None:
        held &= np.isin(value_n, part.among)
    return held


def firsts(column: pa.ChunkedArray | pa.Array) -> tuple[Array, Array, Array]:
    """Return each list's first value, whether there is one, and the list's length."""
    held = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    length = _lengths(held)
    value = np.zeros(len(held))
    some = np.flatnonzero(length > 0)
    value[some] = _at(held, some, np.zeros(len(some), np.int64))
    return value, (length > 0) & ~np.isnan(value), length


def _at(held: pa.ListArray, of: Array, place: Array) -> Array:
    """Return the values at places of lists, as numbers; a missing one is NaN."""
    values = held.values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values[np.asarray(held.offsets)[of] + place]


def _lengths(held: pa.ListArray) -> Array:
    return np.diff(np.asarray(held.offsets)) * np.asarray(held.is_valid())


def _state(table: pa.Table) -> Array:
    """Return what became of each: a version could not answer, though its user may have got one."""
    status = _numbers(table["status"].fill_null(500))
    held = table["fallbacks"].combine_chunks()
    ways = np.asarray(pc.fill_null(pc.starts_with(held.values, STOOD_IN), False))
    before = np.concatenate([[0], np.cumsum(ways)])
    offsets = np.asarray(held.offsets)
    stood_in = (before[offsets[1:]] > before[offsets[:-1]]) & np.asarray(held.is_valid())
    state = np.where(status >= 400, REFUSED, ANSWERED)
    state = np.where((status >= 500) | stood_in, FAILED, state)
    return np.where(status == TOO_MANY_REQUESTS, BUSY, state)


def _texts(column: pa.ChunkedArray) -> Array:
    encoded = column.combine_chunks().fill_null("").dictionary_encode()
    names = np.asarray(encoded.dictionary.to_pylist() or [""])
    return names[encoded.indices.to_numpy()]


def _numbers(column: pa.ChunkedArray) -> Array:
    return column.cast(pa.float64()).to_numpy()


def _bools(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.fill_null(False))


def _valid(column: pa.ChunkedArray) -> Array:
    return np.asarray(column.is_valid())
