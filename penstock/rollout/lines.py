"""What evidence needs of a record, from a growing journal or its Parquet file, as Arrow tables.

Both give the same columns. Arrow's reader takes a block of lines at once and refuses it whole for
one line that a crash has spoiled; such a block is read again line by line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from penstock.predictions import files

BLOCK = 16 << 20
"""Bytes of a journal that are read at once."""

BATCH = 65_536
"""Rows of a Parquet file that are read at once."""

_TEXT, _NUMBER = pa.string(), pa.float64()
_PLAIN: dict[str, pa.DataType] = {
    "at": _NUMBER,
    "request_id": _TEXT,
    "user": _TEXT,
    "arm": _TEXT,
    "market": _TEXT,
    "mirrored": pa.bool_(),
    "version": _TEXT,
    "status": pa.int64(),
    "latency_ms": _NUMBER,
    "label": pa.list_(pa.int64()),
    "probability": pa.list_(pa.float32()),
    "fallbacks": pa.list_(_TEXT),
}
_KINDS: dict[pa.DataType, tuple[type, ...]] = {
    _TEXT: (str,),
    _NUMBER: (int, float),
    pa.bool_(): (bool,),
    pa.int64(): (int,),
    pa.float32(): (int, float),
}


def schema(features: Sequence[str]) -> pa.Schema:
    """Return the columns: what every record has, and these features, a list for each."""
    kept = pa.struct([(name, pa.list_(_NUMBER)) for name in features])
    return pa.schema([*_PLAIN.items(), ("features", kept)])


def blocks(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield the complete lines of a growing file after ``offset``, and the offset behind them.

    A last line without its newline is still being written, and is left for the next time.

    Raises:
        FileNotFoundError: There is no such file.
    """
    with path.open("rb") as f:
        while True:
            f.seek(offset)
            data = f.read(BLOCK)
            lines = files.whole(data)
            if not lines and len(data) == BLOCK:
                lines = files.whole(data + f.read())
            if not lines:
                return
            offset += len(lines)
            yield lines, offset


def told(data: bytes, wanted: pa.Schema) -> pa.Table:
    """Return whole lines as rows of ``wanted``; those that are no record are left out."""
    found = _read(data, wanted, "ignore")
    return _one_by_one(data, wanted) if found is None else found


def numbers(data: bytes, wanted: pa.Schema) -> pa.Table:
    """Return whole lines as rows of ``wanted`` and of all other numbers they hold.

    A line that has something else where ``wanted`` has a column is left out: nothing of it is made
    to fit.
    """
    found = _read(data, wanted, "infer")
    if found is None:
        rows = [row for row in records(data) if _fits(row, wanted)]
        others = {name for row in rows for name, value in row.items() if _number(value)}
        extra = sorted(others - set(wanted.names))
        schema = pa.schema([*wanted, *((name, _NUMBER) for name in extra)])
        return pa.Table.from_pylist([_fitting(row, schema) for row in rows], schema=schema)
    held = [f.name for f in found.schema if f.name in wanted.names or _numeric_type(f.type)]
    return found.select(held)


def _numeric_type(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _fits(row: dict[str, Any], wanted: pa.Schema) -> bool:
    fitted = _fitting(row, wanted)
    return all(fitted[name] is not None or row.get(name) is None for name in wanted.names)


def _read(data: bytes, wanted: pa.Schema, others: str) -> pa.Table | None:
    """Return a block as Arrow reads it, or None where a line of it is no record."""
    try:
        found = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pj.ParseOptions(explicit_schema=wanted, unexpected_field_behavior=others),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    # Two records in one line would be two rows, and are no record of anybody's.
    written = sum(map(bool, map(bytes.strip, data.splitlines())))
    return found if len(found) == written else None


def _one_by_one(data: bytes, wanted: pa.Schema) -> pa.Table:
    rows = [_fitting(record, wanted) for record in records(data)]
    return pa.Table.from_pylist(rows, schema=wanted)


def records(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of whole lines; a line that is none is passed over."""
    for line in data.splitlines():
        try:
            record = orjson.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield cast("dict[str, Any]", record)


def _fitting(record: dict[str, Any], wanted: pa.Schema) -> dict[str, Any]:
    return {field.name: _fit(record.get(field.name), field.type) for field in wanted}


def _fit(value: Any, kind: Any) -> Any:
    """Return a value if it is of its kind, else None: nothing is made to fit."""
    if pa.types.is_struct(kind):
        held = cast("dict[str, Any]", value) if isinstance(value, dict) else None
        return held and {f.name: _fit(held.get(f.name), f.type) for f in kind}
    if pa.types.is_list(kind):
        listed = cast("list[Any]", value) if isinstance(value, list) else None
        return None if listed is None else [_fit(one, kind.value_type) for one in listed]
    kinds = _KINDS[kind]
    # True is a number to Python, and none here.
    fits = isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds)
    return value if fits else None


def parquet(source: Any, wanted: pa.Schema, *, line: int) -> Iterator[pa.Table]:
    """Yield the records of a finished journal from one of its lines on, as they were in it.

    Args:
        source: Its path, or the file, open, where it lies elsewhere.

    Raises:
        FileNotFoundError: There is no such file.
    """
    with pq.ParquetFile(source) as file:
        held = file.schema_arrow
        names = [name for name in _PLAIN if name in held.names]
        features = _numeric(held, wanted)
        columns = ["line", *names, *(f"features.{name}" for name in features)]
        for batch in file.iter_batches(batch_size=BATCH, columns=columns):
            table = pa.Table.from_batches([batch])
            yield _as(table.filter(pc.greater_equal(table["line"], line)), wanted)


def _numeric(held: pa.Schema, wanted: pa.Schema) -> list[str]:
    """Return the features that are there as numbers; of others the log keeps hashes."""
    kinds = {f.name: f.type.value_type for f in held.field("features").type}
    asked = [f.name for f in wanted.field("features").type]
    return [n for n in asked if n in kinds and not pa.types.is_string(kinds[n])]


def _as(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    return pa.table([_column(table, field) for field in wanted], schema=wanted)


def _column(table: pa.Table, field: pa.Field) -> pa.Array:
    if field.name == "features":
        return _features(table, field.type)
    if field.name not in table.column_names:
        return pa.nulls(len(table), field.type)
    column = table[field.name].combine_chunks()
    if field.name == "at":
        return pc.divide(column.cast(pa.int64()).cast(_NUMBER), 1e6)
    return column.cast(field.type)


def _features(table: pa.Table, kind: pa.StructType) -> pa.Array:
    if "features" not in table.column_names:
        return pa.nulls(len(table), kind)
    held = table["features"].combine_chunks()
    there = {f.name for f in held.type}
    columns = [
        held.field(f.name).cast(f.type) if f.name in there else pa.nulls(len(table), f.type)
        for f in kind
    ]
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=held.is_null())
