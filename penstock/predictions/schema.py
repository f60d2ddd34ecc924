"""The columns of a prediction log, from a package's contract, and journals read into them.

A row is a request, not an example: requests, errors and latencies are counted without joining, and
a refused request is a row too. Its features are a struct with a list for each, one value per
example. In Parquet each is a column of its own, so a reader of two features reads two; and structs
of models with other features unite by name. Whatever has no place in it is put aside, never lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from penstock.predictions.files import replacing
from penstock.request import Contract, Feature

PARTS = ("read", "features", "queue", "inference", "write")
"""Where a request's time goes; microseconds each."""

AT = pa.timestamp("us", tz="UTC")
_BLOCK = 32 << 20
"""Bytes that are read at once; no line may be longer."""


def schema(contract: Contract) -> pa.Schema:
    """Return the columns of finished files."""
    features = [(f.name, pa.list_(_kept(f, contract))) for f in contract.features]
    return pa.schema(
        [
            ("line", pa.int64()),  # of the journal: what follows a journal can go on in its Parquet
            *_columns(AT, features),
            ("workload", pa.string()),
        ],
        metadata={"penstock.contract": json.dumps(contract.to_dict())},
    )


def empty() -> pa.Table:
    """Return the columns of a log in which nothing was written yet."""
    columns = [f for f in _columns(AT, []) if f[0] != "features"]
    fields = [("line", pa.int64()), *columns, ("workload", pa.string())]
    return pa.schema(fields).empty_table()


def _columns(at: pa.DataType, features: list[tuple[str, pa.DataType]]) -> list[tuple[str, Any]]:
    return [
        ("at", at),
        ("request_id", pa.string()),
        ("user", pa.string()),
        ("bucket", pa.int32()),
        ("arm", pa.string()),
        ("market", pa.string()),
        ("mirrored", pa.bool_()),
        ("slot", pa.string()),
        ("version", pa.string()),
        ("status", pa.int16()),
        ("latency_ms", pa.float64()),
        ("features", pa.struct(features)),
        ("label", pa.list_(pa.int64())),
        ("probability", pa.list_(pa.float32())),
        ("fallbacks", pa.list_(pa.string())),
        ("stale", pa.list_(pa.string())),
        ("spent_us", pa.struct([(part, pa.float64()) for part in PARTS])),
    ]


def _kept(feature: Feature, contract: Contract) -> pa.DataType:
    return pa.string() if feature.name in contract.endpoint.hashed else feature.arrow


def _sent(feature: Feature, contract: Contract, *, loose: bool) -> pa.DataType:
    """Return the type a feature has in a journal: numbers, as JSON has no times."""
    if feature.name in contract.endpoint.hashed:
        return pa.string()
    if feature.whole:
        # A whole number that may be missing is carried as floating point, and written as 3.0.
        return pa.float64() if feature.nullable or loose else pa.int64()
    return feature.arrow


def tabled(data: bytes, contract: Contract) -> tuple[pa.Table, list[bytes]]:
    """Return a journal's lines as rows, and those that cannot be read.

    Args:
        data: Whole lines, each with its newline.
    """
    refused: list[bytes] = []
    pieces = list(_pieces(data.splitlines(keepends=True), 0, contract, refused))
    return pa.concat_tables([schema(contract).empty_table(), *pieces]), refused


def _pieces(
    lines: Sequence[bytes], first: int, contract: Contract, refused: list[bytes]
) -> Iterator[pa.Table]:
    """Give rows of as many lines at once as can be read together; one bad line halves them."""
    found = _read(b"".join(lines), contract)
    if found is not None and len(found) == len(lines):
        yield _numbered(found, first)
    elif len(lines) > 1:
        half = len(lines) // 2
        yield from _pieces(lines[:half], first, contract, refused)
        yield from _pieces(lines[half:], first + half, contract, refused)
    elif lines and lines[0].strip():
        # Where a stand-in filled a whole number in, it may have been written as 3.0.
        alone = _read(lines[0], contract, loose=True)
        if alone is None:
            refused.append(lines[0])
        else:
            yield _numbered(alone, first)


def _read(data: bytes, contract: Contract, *, loose: bool = False) -> pa.Table | None:
    if not data.strip():
        return None
    features = [(f.name, pa.list_(_sent(f, contract, loose=loose))) for f in contract.features]
    try:
        raw = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=pj.ParseOptions(
                explicit_schema=pa.schema(_columns(pa.float64(), features)),
                unexpected_field_behavior="ignore",
            ),
        )
        return _typed(raw, contract)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _typed(raw: pa.Table, contract: Contract) -> pa.Table:
    wanted = schema(contract)
    microseconds = pc.round(pc.multiply(raw["at"], 1e6)).cast(pa.int64())
    raw = raw.set_column(0, "at", microseconds)
    raw = raw.append_column("workload", pa.repeat(contract.workload, len(raw)))
    raw = raw.add_column(0, "line", pa.array(np.zeros(len(raw), np.int64)))
    return raw.cast(wanted)


def _numbered(table: pa.Table, first: int) -> pa.Table:
    lines = np.arange(first, first + len(table), dtype=np.int64)
    return table.set_column(0, "line", pa.array(lines))


def write(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all.

    Raises:
        OSError: The disk refuses.
    """
    with replacing(path) as part:
        pq.write_table(table, part, compression="zstd", row_group_size=100_000)
