"""Read of a Parquet source what a point-in-time join needs: few columns, few rows, bounded memory.

The first pass reads keys and timestamps, and keeps the rows of entities that were asked for, in the
time that was asked about. The second reads the features of the rows that were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from penstock.features.pointintime import MISSING, Held, Ints

BATCH = 1 << 18
"""Rows decoded at a time."""

NANOSECONDS = 10**9


class SourceError(ValueError):
    """A feature source or a label table cannot be read as declared; the text says what to do."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a source say who, when, and when it was known."""

    keys: tuple[str, ...]
    event: str
    created: str | None
    naive_is_utc: bool = False
    """Take timestamps without a time zone as UTC instead of refusing them."""


@dataclass(frozen=True)
class Found:
    """Feature rows worth sorting, and where in the source each stands."""

    held: Held
    rows_n: NDArray[np.integer]


def ticks(
    values: pa.Array, *, name: str, naive_is_utc: bool
) -> tuple[Ints, NDArray[np.bool_] | None]:
    """Return timestamps as nanoseconds since 1970, and which are there; None when all are.

    Raises:
        SourceError: They are no timestamps, have no time zone, or lie before 1677 or after 2262.
    """
    kind = values.type
    if not pa.types.is_timestamp(kind):
        raise SourceError(f"{name!r} is {kind}; a timestamp with a time zone was wanted.")
    if kind.tz is None and not naive_is_utc:
        raise SourceError(
            f"{name!r} has no time zone, so nobody knows which instants it means; write it with "
            "one, or declare naive_timestamps: utc in feature_store.yaml if it is in UTC."
        )
    try:
        whole = values.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
    except pa.ArrowInvalid as e:
        raise SourceError(f"{name!r} holds an instant that nanoseconds cannot count: {e}") from e
    if not whole.null_count:
        return whole.to_numpy(zero_copy_only=False), None
    filled = pc.fill_null(whole, 0).to_numpy(zero_copy_only=False)
    return filled, whole.is_valid().to_numpy(zero_copy_only=False)


class Keys:
    """Numbers the entities of the label rows, and finds them again in feature rows."""

    def __init__(
        self, labels: Sequence[pa.Array], types: Sequence[pa.DataType], *, rows: int
    ) -> None:
        """Take the labels' key columns and the types that the source has for them.

        A view without keys describes one entity, which every row is about.

        Raises:
            SourceError: A key cannot be brought to the source's type.
        """
        self._columns = [_Key(*pair) for pair in zip(labels, types, strict=True)]
        combined = self._combined([c.codes_m for c in self._columns], rows)
        self._asked = np.unique(combined[combined != MISSING])
        self.codes_m = self._numbered(combined)

    def encode(self, columns: Sequence[pa.Array], *, rows: int) -> Ints:
        """Return the number of each feature row's entity, or MISSING where nobody asked for it."""
        pairs = zip(self._columns, columns, strict=True)
        return self._numbered(self._combined([c.encode(values) for c, values in pairs], rows))

    def _combined(self, codes: Sequence[Ints], rows: int) -> Ints:
        if not codes:
            return np.zeros(rows, np.int64)
        combined = codes[0]
        for column, more in zip(self._columns[1:], codes[1:], strict=True):
            missing = (combined == MISSING) | (more == MISSING)
            combined = np.where(missing, MISSING, combined * column.size + more)
        return combined

    def _numbered(self, combined: Ints) -> Ints:
        """Return numbers without gaps; of several columns, most combinations do not occur."""
        if len(self._columns) < 2:
            return combined
        if not len(self._asked):
            return np.full(len(combined), MISSING, np.int64)
        at = np.minimum(np.searchsorted(self._asked, combined), len(self._asked) - 1)
        return np.where(self._asked[at] == combined, at, MISSING)


class _Key:
    """One key column: its distinct values in the labels, numbered."""

    def __init__(self, labels: pa.Array, kind: pa.DataType) -> None:
        self._kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        values = _as_key(labels, self._kind)
        self._distinct = pc.drop_null(pc.unique(values))
        self.size = max(1, len(self._distinct))
        self._by_value = _by_value(self._distinct)
        self.codes_m = self.encode(values)

    def encode(self, values: pa.Array) -> Ints:
        """Return each value's number, or MISSING."""
        if pa.types.is_dictionary(values.type):
            values = values.cast(self._kind)
        if self._by_value is None:
            found = pc.fill_null(pc.index_in(values, value_set=self._distinct), MISSING)
            return found.to_numpy(zero_copy_only=False).astype(np.int64)
        low, number = self._by_value
        filled = pc.fill_null(values, low) if values.null_count else values
        offset = filled.to_numpy(zero_copy_only=False).astype(np.int64) - low
        outside = (offset < 0) | (offset >= len(number))
        codes = number[np.where(outside, 0, offset)]
        if values.null_count:
            outside |= ~values.is_valid().to_numpy(zero_copy_only=False)
        codes[outside] = MISSING
        return codes


def _as_key(labels: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return the labels' keys in the source's type, where that changes no key.

    pandas turns whole numbers with gaps into floats, so floats may become whole numbers again.
    """
    given = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
    number = pa.types.is_integer(kind) and (
        pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_null(given)
    )
    text = (pa.string(), pa.large_string(), pa.null())
    problem = "one is no kind of the other"
    if number or given == kind or (kind in text and given in text):
        try:
            return labels.cast(kind)
        except pa.ArrowInvalid as e:
            problem = str(e)
    raise SourceError(
        f"the labels' key is {labels.type} and the source's is {kind}; give both one type: "
        f"{problem}."
    )


def _by_value(distinct: pa.Array) -> tuple[int, Ints] | None:
    """Return a table of numbers by value, where whole numbers lie close enough for one.

    Looking up beats hashing while the table is not much larger than what it holds.
    """
    if not pa.types.is_integer(distinct.type) or not len(distinct):
        return None
    low, high = (int(v.as_py()) for v in pc.min_max(distinct).values())
    if high - low > 8 * len(distinct) + 65_536 or high >= 2**62 or low <= -(2**62):
        return None
    number = np.full(high - low + 1, MISSING, np.int64)
    number[distinct.to_numpy().astype(np.int64) - low] = np.arange(len(distinct))
    return low, number


class Source:
    """A Parquet file, or a folder of them read in the order of their names.

    What is read is what was opened: :meth:`close_unchanged` notices a file that was replaced.
    """

    def __init__(self, path: str, columns: Columns, *, filesystem: fs.FileSystem) -> None:
        """Open the files and look at their schemas.

        Raises:
            SourceError: Nothing is there, a file is not whole, or a column is missing.
        """
        self._path, self._columns, self._fs = path, columns, filesystem
        self._files = [(info, self._opened(info)) for info in self._listed()]
        self.schema = self._files[0][1].schema_arrow
        wanted = [*columns.keys, columns.event, *([columns.created] if columns.created else [])]
        for info, file in self._files:
            if absent := [c for c in wanted if c not in file.schema_arrow.names]:
                raise SourceError(
                    f"{info.path} has no column {', '.join(absent)}; it holds "
                    f"{', '.join(file.schema_arrow.names)}."
                )

    def __enter__(self) -> Self:
        """Use until the block ends."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _at: TracebackType | None
    ) -> None:
        """Close every file."""
        for _, file in self._files:
            file.close()

    def _listed(self) -> list[fs.FileInfo]:
        there: fs.FileInfo = self._fs.get_file_info(self._path)
        if there.type == fs.FileType.File:
            return [there]
        if there.type == fs.FileType.NotFound:
            raise SourceError(f"{self._path} does not exist; write the feature source first.")
        selector = fs.FileSelector(self._path, recursive=True)
        held: list[fs.FileInfo] = self._fs.get_file_info(selector)
        found = sorted(
            (i for i in held if i.is_file and i.path.endswith(".parquet")), key=lambda i: i.path
        )
        if not found:
            raise SourceError(f"{self._path} holds no .parquet file; write the source first.")
        return found

    def _opened(self, info: fs.FileInfo) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._fs.open_input_file(info.path))
        except (pa.ArrowInvalid, OSError) as e:
            raise SourceError(
                f"{info.path} is not a whole Parquet file: {e}; write it again, under a temporary "
                "name first."
            ) from e

    def check_unchanged(self) -> None:
        """Refuse what was read if a file is no longer the one that was opened.

        Raises:
            SourceError: Size or modification time differ.
        """
        for before, _ in self._files:
            now = self._fs.get_file_info(before.path)
            if (now.type, now.size, now.mtime_ns) != (before.type, before.size, before.mtime_ns):
                raise SourceError(
                    f"{before.path} was replaced while it was read; run again, and write sources "
                    "under a new name."
                )

    def find(self, keys: Keys, *, first: int | None, last: int) -> Found:
        """Return the rows of known entities between two instants, in nanoseconds, both included.

        Args:
            first: Of events; None for no bound.
            last: Of events, and of created timestamps where there are any.
        """
        room = sum(rows for _, _, rows, _ in self._groups(first, last))
        codes, event = np.empty(room, np.int32), np.empty(room, np.int64)
        created = None if self._columns.created is None else np.empty(room, np.int64)
        rows = np.empty(room, np.uint32 if self._rows < 2**32 else np.int64)
        n = 0
        for start, batch in self._batches(first, last):
            code = keys.encode([batch[k] for k in self._columns.keys], rows=len(batch))
            happened, keep = self._instants(batch, self._columns.event, last)
            keep &= code != MISSING
            if first is not None:
                keep &= happened >= first
            if created is not None and self._columns.created is not None:
                known, in_time = self._instants(batch, self._columns.created, last)
                keep &= in_time
                created[n : n + int(keep.sum())] = known[keep]
            end = n + int(keep.sum())
            codes[n:end], event[n:end] = code[keep], happened[keep]
            rows[n:end] = start + np.flatnonzero(keep)
            n = end
        held = Held(codes[:n], event[:n], None if created is None else created[:n])
        return Found(held, rows[:n])

    def require(self, names: Sequence[str]) -> None:
        """Refuse a source without one of these columns.

        Raises:
            SourceError: It has no such column.
        """
        if absent := [n for n in names if n not in self.schema.names]:
            raise SourceError(
                f"{self._path} has no column {', '.join(absent)}; it holds "
                f"{', '.join(self.schema.names)}."
            )

    def entities(self) -> pa.Table:
        """Return every entity once."""
        keys = list(self._columns.keys)
        if not keys:
            return pa.table({})
        parts = [pa.Table.from_batches([], pa.schema([self.schema.field(k) for k in keys]))]
        for _, batch in self._batches(None, last=np.iinfo(np.int64).max):
            part = pa.Table.from_batches([batch]).select(keys)
            parts.append(part.group_by(keys).aggregate([]))
        return pa.concat_tables(parts).group_by(keys).aggregate([]).select(keys)

    def _instants(
        self, batch: pa.RecordBatch, name: str, last: int
    ) -> tuple[Ints, NDArray[np.bool_]]:
        found, there = ticks(batch[name], name=name, naive_is_utc=self._columns.naive_is_utc)
        keep = found <= last
        return found, keep if there is None else keep & there

    @property
    def _rows(self) -> int:
        return sum(file.metadata.num_rows for _, file in self._files)

    def _groups(
        self, first: int | None, last: int
    ) -> Iterator[tuple[pq.ParquetFile, int, int, int]]:
        """Yield file, row group, its rows and its first row, where its statistics allow a match."""
        start = 0
        for _, file in self._files:
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if self._may_match(file, group, first, last):
                    yield file, group, rows, start
                start += rows

    def _may_match(self, file: pq.ParquetFile, group: int, first: int | None, last: int) -> bool:
        column = file.schema_arrow.names.index(self._columns.event)
        said = _statistics(file.metadata.row_group(group), self._columns.event)
        if said is None:
            return True
        kind = file.schema_arrow.types[column]
        ends = pa.array([said.min, said.max], kind)
        (low, high), _ = ticks(ends, name=self._columns.event, naive_is_utc=True)
        # Statistics may be rounded to the microsecond below.
        return low <= last and (first is None or high + 1000 >= first)

    def _batches(self, first: int | None, last: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the number of a batch's first row, and its keys and timestamps."""
        names = list(dict.fromkeys([*self._columns.keys, self._columns.event]))
        if self._columns.created is not None and self._columns.created not in names:
            names.append(self._columns.created)
        for file, group, _, row in self._groups(first, last):
            start = row
            for batch in _decoded(file, group, names):
                yield start, batch
                start += len(batch)

    def take(self, rows: NDArray[np.integer], names: Sequence[str]) -> pa.Table:
        """Return columns of these rows, whose numbers rise.

        Raises:
            SourceError: The source has no such column.
        """
        self.require(names)
        parts: list[pa.RecordBatch] = []
        start = 0
        for _, file in self._files:
            for group in range(file.metadata.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                begin, until = np.searchsorted(rows, [start, end])
                if until > begin:
                    parts += _taken(file, group, list(names), rows[begin:until] - start)
                start = end
        schema = pa.schema([self.schema.field(n) for n in names])
        return pa.Table.from_batches([p.cast(schema) for p in parts], schema)


def _statistics(group: Any, name: str) -> Any:
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema == name:
            said = column.statistics
            return said if said is not None and said.has_min_max else None
    return None


def _decoded(file: pq.ParquetFile, group: int, names: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=BATCH, row_groups=[group], columns=names)
    except (pa.ArrowInvalid, OSError) as e:
        raise SourceError(f"a feature source is damaged: {e}; write it again.") from e


def _taken(
    file: pq.ParquetFile, group: int, names: list[str], rows: NDArray[np.integer]
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in _decoded(file, group, names):
        begin, until = np.searchsorted(rows, [start, start + len(batch)])
        if until > begin:
            yield batch.take(pa.array(rows[begin:until] - start))
        start += len(batch)
