"""Contract: what a request to the served model must hold, and answers that it must repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import Bundle
from penstock.request import EARLIEST_US, STAMP, Contract, Feature, instances, request_input
from penstock.workload import Column, Workload

GOLDEN = 8
"""Holdout rows whose answers are recorded; a server must repeat them before it is ready."""

GOLDEN_ROUNDING = 1e-4
"""How far a golden logit may be from the recorded one, as a share of the largest one.

Another processor rounds the last bits otherwise: float32 keeps seven digits, and a deep network
loses two or three of them. Measured: torch and the exported graph were 3e-7 apart at most (digits,
streamrec, credit, in batches of 1 to 512).
"""

GOLDEN_LEAST = 1e-5
"""Difference that is always allowed, as logits near zero may be the difference of larger sums."""

ENGINE_ROUNDING = 10 ** (-25 / 20)
"""How far an engine's logit may be from the int8 graph's, as a share of the largest one.

25 dB is the least signal-to-noise ratio that the equivalence ladder lets an engine have, over
hundreds of rows; a row rounded otherwise must not keep a server from starting. The two CPU engines
of one graph were 0.2 % apart at most (digits, 600 rows).
"""


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


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The graph whose answers a runtime must give, where that is not the graph for CPUs."""

    graph: Path
    rounding: float = 0.0
    """How far an answer may be from it, as a share of the largest logit."""


def golden(
    graph: Path,
    declared: Workload,
    snapshot: Bundle,
    *,
    others: Mapping[str, Reference] | None = None,
) -> dict[str, Any]:
    """Return requests made of rows from all over the holdout, with the graph's answers.

    Args:
        graph: The one that serves on CPUs.
        others: By runtime, what else the package has a model for; their answers are kept apart,
            under ``runtimes``, where a server of before there was a choice does not look.
    """
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only when there is work

    contract = contract_of(declared)
    held = pq.read_table(snapshot.file("holdout.parquet"), columns=contract.names)
    rows = held.take(np.linspace(0, len(held) - 1, min(GOLDEN, len(held))).astype(np.int64))
    inputs_n = request_input(workloads.part(declared.name, "transform"))(rows)
    logits_nk = OnnxModel(graph).run(inputs_n)
    answers = zip(instances(contract, rows), logits_nk.tolist(), strict=True)
    return {
        "tolerance": tolerance(logits_nk),
        "requests": [{"instance": row, "logits": logits} for row, logits in answers],
        "runtimes": {
            name: _answers(OnnxModel(other.graph, reference=True).run(inputs_n), other.rounding)
            for name, other in (others or {}).items()
        },
    }


def _answers(logits_nk: NDArray[np.float32], rounding: float) -> dict[str, Any]:
    """Return a reference's answers, and how far a right runtime may be from them."""
    return {"tolerance": tolerance(logits_nk, rounding), "logits": logits_nk.tolist()}


def tolerance(logits_nk: NDArray[np.float32], rounding: float = 0.0) -> float:
    """Return how far a right answer may be from the recorded one.

    Args:
        rounding: As a share of the largest logit, where it is more than ``GOLDEN_ROUNDING``.

    >>> tolerance(np.float32([[0, -20]])), tolerance(np.float32([[0, 0]]))
    (0.002, 1e-05)
    """
    largest = float(np.abs(logits_nk).max(initial=0.0))
    return max(GOLDEN_LEAST, max(GOLDEN_ROUNDING, rounding) * largest)
