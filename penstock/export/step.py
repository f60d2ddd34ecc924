"""Run the export stage: an ONNX graph verified on real inputs, with its story."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.stage import carry_out
from penstock.verdict import Outcome
from penstock.workload import Workload, settings_of


def run(*, workload: str, snapshot: Path, model: Path, out: Path, now: datetime) -> None:
    """Write an ONNX bundle at ``out``: ``model.onnx`` and ``export.json``.

    The graph is held against the network on every training row; the holdout is left to the
    equivalence stage.

    Raises:
        ExportError: No exporter made a graph that computes the same.
        BundleError: An input is not whole.
    """
    declared = workloads.load(workload)
    inputs = {"snapshot": read(snapshot, kind="snapshot"), "model": read(model, kind="model")}
    carry_out(
        "export",
        kind="onnx",
        workload=workload,
        inputs=inputs,
        settings={"export": settings_of(declared.export)},
        make=lambda folder: _make(folder, declared, **inputs),
        out=out,
        now=now,
    )


def _make(folder: Path, declared: Workload, *, snapshot: Bundle, model: Bundle) -> Summary:
    from penstock.export import graph  # noqa: PLC0415 - torch takes seconds to import
    from penstock.runtimes.torch import network  # noqa: PLC0415

    rows = pq.read_table(snapshot.file("train.parquet"))
    inputs_n = workloads.part(declared.name, "transform").training_input(rows)
    exported = graph.export(
        network(model.file("model.safetensors"), workload=declared.name, classes=declared.classes),
        inputs_n,
        folder / "model.onnx",
        opset=declared.export.opset,
        max_abs_error=declared.export.max_abs_error,
    )
    properties = {
        "penstock.workload": declared.name,
        "penstock.model": model.fingerprint,
        "penstock.input": json.dumps(
            {"name": graph.INPUT, "shape": ["batch", *inputs_n.shape[1:]]}
        ),
        "penstock.output": json.dumps({"name": graph.OUTPUT, "shape": ["batch", declared.classes]}),
    }
    graph.describe(folder / "model.onnx", properties)
    write_json(folder / "export.json", asdict(exported))
    fell = f"; fell back because {exported.fallback_reason}" if exported.fallback_reason else ""
    return Summary(
        Outcome.PASS,
        f"{exported.exporter} exporter, opset {exported.opset}, differs by at most "
        f"{exported.max_abs_error:.1e} on {len(rows)} rows{fell}",
    )
