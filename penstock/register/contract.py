"""Contract: what a request to the served model must hold, and answers that it must repeat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle
from penstock.request import EARLIEST_US, STAMP, Contract, Feature, instances, request_input
from penstock.workload import Column, Workload

GOLDEN = 8
"""Holdout rows whose answers are recorded; a server must repeat them before it is ready."""

GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a golden logit: another processor may round the last bits otherwise."""


def contract_of(declared: Workload) -> Contract:
    """Return what a request holds: the columns without which the transform's answer is another.

    Raises:
        ValueError: The transform reads the label, or a column that a request cannot carry.
    """
    return Contract(
        workload=declared.name,
        classes=declared.classes,
        threshold=declared.threshold,
        rows=declared.engine.batches[-1],
        features=tuple(_read(declared)),
        endpoint=declared.endpoint,
    )


def input_contract(declared: Workload) -> dict[str, Any]:
    """Return the contract as ``serving.json`` holds it."""
    return contract_of(declared).to_dict()


def _read(declared: Workload) -> Iterator[Feature]:
    """Yield the declared columns that the workload's transform reads, in their order.

    It is asked, not told: a column is read if without it the transform fails or gives another
    input. A list of names beside the code could be wrong.
    """
    transform = request_input(workloads.part(declared.name, "transform"))
    row = _plain_row(declared)
    whole = transform(row)
    for column in declared.data.columns:
        if column.name not in row.column_names:
            continue
        try:
            if np.array_equal(transform(row.drop_columns([column.name])), whole):
                continue
        except (LookupError, ValueError):
            pass  # it cannot do without the column
        if column.name == declared.label:
            raise ValueError(
                f"the transform of {declared.name!r} reads the label {column.name!r}; no request "
                "holds what is to be predicted."
            )
        yield _feature(column)


def _plain_row(declared: Workload) -> pa.Table:
    """Return one row of values that the declaration allows, of the types a request can carry."""
    columns = {c.name: c for c in declared.data.columns if c.dtype != "string"}
    return pa.table({name: pa.array([_plain(c)], _feature(c).arrow) for name, c in columns.items()})


def _plain(column: Column) -> Any:
    if column.among is not None:
        return column.among[0]
    if column.dtype == STAMP:
        return EARLIEST_US
    least = column.low if column.low is not None else min(column.high or 0.0, 0.0)
    value = int(least) if column.dtype == "int64" else float(least)
    return value if column.length is None else [value] * column.length


def _feature(column: Column) -> Feature:
    return Feature(
        name=column.name,
        dtype=column.dtype,
        length=column.length,
        low=column.low,
        high=column.high,
        among=column.among,
        nullable=column.nullable,
    )


def golden(graph: Path, declared: Workload, snapshot: Bundle) -> dict[str, Any]:
    """Return requests made of rows from all over the holdout, with the graph's answers."""
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only when there is work

    contract = contract_of(declared)
    held = pq.read_table(snapshot.file("holdout.parquet"), columns=contract.names)
    rows = held.take(np.linspace(0, len(held) - 1, min(GOLDEN, len(held))).astype(np.int64))
    transform = request_input(workloads.part(declared.name, "transform"))
    logits_nk = OnnxModel(graph).run(transform(rows))
    return {
        "tolerance": GOLDEN_TOLERANCE,
        "requests": [
            {"instance": instance, "logits": [float(v) for v in logits]}
            for instance, logits in zip(instances(contract, rows), logits_nk, strict=True)
        ],
    }
