"""Small real bundles that tests of later stages start from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.bundle import Bundle, Recipe, Summary, write, write_json
from workloads.digits import data

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def rows() -> pa.Table:
    """Return every digits row as the features stage joins them, made without Feast."""
    source, labels = data.features(), data.labels()
    held = source.drop_columns(["event_timestamp", "created_timestamp"])
    return pa.table(
        {**{n: labels[n] for n in labels.column_names}, **{n: held[n] for n in held.column_names}}
    )


def bundle(path: Path, kind: str, make: Callable[[Path], None], **inputs: str) -> Bundle:
    """Write a bundle of any kind for the digits workload."""

    def filled(folder: Path) -> Summary:
        make(folder)
        return Summary("pass", "made for a test")

    return write(path, Recipe(kind=kind, workload="digits", inputs=inputs), make=filled, now=NOW)


PROOF = {
    "rows": {"labels": 1797, "joined": 1797},
    "keys": {"labels": "sha256:1", "joined": "sha256:1"},
    "views": [{"view": "capture_ink"}],
    "planted": ["ink_mean"],
    "feature_definitions": "sha256:2",
    "registry": "sha256:3",
}
"""What the training stage asks of a snapshot's proof."""


def snapshot(
    path: Path,
    *,
    train: pa.Table | None = None,
    holdout: pa.Table | None = None,
    proof: object = PROOF,
    online: object = None,
) -> Path:
    """Write a snapshot bundle; the parts default to the real ones."""
    whole = rows()
    train = whole.slice(0, 1197) if train is None else train
    holdout = whole.slice(1197) if holdout is None else holdout

    def make(folder: Path) -> None:
        pq.write_table(train, folder / "train.parquet")
        pq.write_table(holdout, folder / "holdout.parquet")
        if proof is not None:
            write_json(folder / "proof.json", proof)
        if online is not None:
            write_json(folder / "online.json", online)

    return bundle(path, "snapshot", make).path


def verdict(path: Path, kind: str, *, outcome: str = "pass") -> Path:
    """Write a bundle that carries a verdict of one check."""
    check = {"name": "seen", "outcome": outcome, "reason": "made so", "value": None, "limit": None}
    document = {"outcome": outcome, "checks": [check]}
    return bundle(path, kind, lambda f: write_json(f / "verdict.json", document)).path


def replaced(table: pa.Table, name: str, values: object) -> pa.Table:
    """Return a table with one column's values replaced, its type kept where it fits."""
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, pa.array(values))


def images(n: int) -> np.ndarray:
    """Return n real network inputs, shape [n, 1, 8, 8]."""
    from workloads.digits.transform import training_input  # noqa: PLC0415 - keeps imports light

    return training_input(rows().slice(0, n))
