"""Contract: what a request to the served model must hold, and answers that it must repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle
from penstock.workload import Workload

GOLDEN = 8
"""Holdout rows whose answers are recorded; a server must repeat them before it is ready."""

GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a golden logit: another processor may round the last bits otherwise."""


def input_contract(declared: Workload) -> dict[str, Any]:
    """Return which columns a request holds and what their values may be."""
    column = next(c for c in declared.data.columns if c.length is not None)
    return {
        "features": [column.name],
        "width": column.length,
        "low": column.low,
        "high": column.high,
    }


def golden(graph: Path, declared: Workload, snapshot: Bundle) -> dict[str, Any]:
    """Return requests made of holdout rows, with the graph's answers."""
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only when there is work

    name = str(input_contract(declared)["features"][0])
    rows = pq.read_table(snapshot.file("holdout.parquet")).slice(0, GOLDEN)
    raw_nd = np.array(rows[name].to_pylist(), np.float32)
    transform = workloads.part(declared.name, "transform")
    logits_nk = OnnxModel(graph).run(transform.request_input(raw_nd))
    return {
        "tolerance": GOLDEN_TOLERANCE,
        "requests": [
            {name: raw.tolist(), "logits": [float(v) for v in logits]}
            for raw, logits in zip(raw_nd, logits_nk, strict=True)
        ],
    }
