"""Prediction logs of any size, with the columns, files and sizes that servers write."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from penstock import workload as workloads
from penstock.predictions import files, schema
from penstock.register.contract import contract_of
from penstock.request import Contract
from penstock.rollout.table import buckets_for
from tests.serving import tables

WORKLOAD = "streamrec"
BEGUN = 4_000_000_000.0
"""Unix seconds of the first record."""

PER_FILE = 100_000
"""Rows of a file: a journal of this workload is rolled at about as many."""

PER_S = 1_000.0
PER_USER = 10
PERCENT = 10
"""Of users, on the challenger."""

SLOTS = {"a": ("champion", "1"), "b": ("challenger", "2")}


def write(folder: Path, rows: int, *, form: str) -> dict[str, Path]:
    """Write the logs of both slots in a canary; return their folders.

    Args:
        form: ``journal`` or ``parquet``.
    """
    contract = contract_of(workloads.load(WORKLOAD))
    folders = {slot: folder / slot for slot in SLOTS}
    for path in folders.values():
        path.mkdir(parents=True)
        files.write_contract(path, contract)
    key = files.contract_key(contract)
    for n, table in enumerate(_batches(contract, rows)):
        for slot, path in folders.items():
            mine = table.filter(pa.compute.equal(table["slot"], slot))
            stem = path / files.new_stem(key, at=BEGUN + n)
            if form == "parquet":
                schema.write(mine, stem.with_suffix(files.PARQUET))
            else:
                stem.with_suffix(files.JOURNAL).write_bytes(b"".join(_lines(mine)))
    return folders


def _batches(contract: Contract, rows: int) -> Iterator[pa.Table]:
    rng = np.random.default_rng(3)
    users = [uuid.UUID(bytes=rng.bytes(16)).hex for _ in range(max(1, rows // PER_USER))]
    bucket_u = rng.integers(0, 64, len(users))
    for first in range(0, rows, PER_FILE):
        n = min(PER_FILE, rows - first)
        user_n = rng.integers(0, len(users), n)
        yield _table(contract, rng, np.asarray(users)[user_n], bucket_u[user_n], first)


def _table(
    contract: Contract, rng: np.random.Generator, user_n: Any, bucket_n: Any, first: int
) -> pa.Table:
    n, ours_n = len(user_n), bucket_n < buckets_for(PERCENT)
    at_n = ((BEGUN + (first + np.arange(n)) / PER_S) * 1e6).astype(np.int64)
    given: dict[str, Any] = {
        "line": np.arange(n),
        "at": pa.array(at_n).cast(schema.AT),
        "request_id": [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(n)],
        "user": user_n,
        "bucket": bucket_n.astype(np.int32),
        "arm": np.where(ours_n, SLOTS["b"][0], SLOTS["a"][0]),
        "market": np.full(n, "all"),
        "mirrored": np.zeros(n, bool),
        "slot": np.where(ours_n, "b", "a"),
        "version": np.where(ours_n, SLOTS["b"][1], SLOTS["a"][1]),
        "status": np.where(rng.random(n) < 0.002, 500, 200).astype(np.int16),
        "latency_ms": np.round(np.exp(rng.normal(0.5, 0.4, n)), 3),
        "features": _features(contract, rng, n),
        "label": _listed(rng.integers(0, 2, n), pa.int64()),
        "probability": _listed(rng.random(n).astype(np.float32), pa.float32()),
        "fallbacks": _none(n),
        "stale": _none(n),
        "spent_us": _spent(rng, n),
        "workload": np.full(n, contract.workload),
    }
    wanted = schema.schema(contract)
    return pa.table({f.name: pa.array(given[f.name]).cast(f.type) for f in wanted}, schema=wanted)


def _features(contract: Contract, rng: np.random.Generator, n: int) -> pa.StructArray:
    drawn = tables.rows(contract, n, seed=int(rng.integers(1 << 30)))
    columns = []
    for feature in contract.features:
        column = drawn[feature.name].combine_chunks()
        if feature.name in contract.endpoint.hashed:
            column = pa.array([f"{value:032x}" for value in column.to_pylist()])
        columns.append(_listed(column, column.type))
    return pa.StructArray.from_arrays(columns, contract.names)


def _listed(values: Any, kind: pa.DataType) -> pa.ListArray:
    """Return each value as a list of one."""
    held = pa.array(values, kind)
    return pa.ListArray.from_arrays(pa.array(np.arange(len(held) + 1, dtype=np.int32)), held)


def _none(n: int) -> pa.ListArray:
    """Return empty lists."""
    return pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.string()))


def _spent(rng: np.random.Generator, n: int) -> pa.StructArray:
    parts = [pa.array(np.round(rng.gamma(4, 10, n), 1)) for _ in schema.PARTS]
    return pa.StructArray.from_arrays(parts, list(schema.PARTS))


def _lines(table: pa.Table) -> Iterator[bytes]:
    """Yield the rows as a server writes them."""
    seconds = np.asarray(table["at"].cast(pa.int64())) / 1e6
    kept = table.drop_columns(["line", "workload"])
    kept = kept.set_column(0, "at", pa.array(seconds))
    for row in kept.to_pylist():
        row["features"] = {
            name: [v if not hasattr(v, "timestamp") else int(v.timestamp() * 1e6) for v in values]
            for name, values in row["features"].items()
        }
        yield orjson.dumps(row) + b"\n"
