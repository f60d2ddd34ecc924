"""Run the export stage: an ONNX graph verified on real inputs, with its story."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.stage import carry_out
from penstock.verdict import Outcome
from penstock.workload import Network, settings_of, task_of


def run(*, workload: str, snapshot: Path, model: Path, out: Path, now: datetime) -> None:
    """Write an ONNX bundle at ``out``: ``model.onnx`` and ``export.json``.

    The graph is held against the network on every holdout row. Nothing is chosen by it but which
    exporter is believed.

    Raises:
        ExportError: No exporter made a graph that computes the same.
        BundleError: An input is not whole.
    """
    declared = workloads.load_network(workload)
    inputs = {"snapshot": read(snapshot, kind="snapshot"), "model": read(model, kind="model")}
    carry_out(
        "export",
        kind="onnx",
        workload=workload,
        inputs=inputs,
        settings={
            "export": settings_of(declared.export),
            "task": task_of(declared),
            "slices": [settings_of(part) for part in declared.slices],
        },
        make=lambda folder: _make(folder, declared, **inputs),
        out=out,
        now=now,
    )


def _make(folder: Path, declared: Network, *, snapshot: Bundle, model: Bundle) -> Summary:
    from penstock.export import graph  # noqa: PLC0415 - torch takes seconds to import
    from penstock.runtimes.torch import network  # noqa: PLC0415
    from penstock.stats.slices import masks  # noqa: PLC0415

    transform = workloads.part(declared.name, "transform")
    rows = pq.read_table(snapshot.file("holdout.parquet"))
    inputs_n = transform.training_input(rows)
    exported = graph.export(
        network(model.file("model.safetensors"), workload=declared.name, classes=declared.classes),
        inputs_n,
        folder / "model.onnx",
        settings=declared.export,
        slices=masks(rows, declared),
    )
    said = contract(declared, inputs_n.shape[1:], getattr(transform, "FEATURES", None))
    properties = {
        "penstock.workload": declared.name,
        "penstock.model": model.fingerprint,
        "penstock.snapshot": snapshot.fingerprint,
        **{f"penstock.{name}": json.dumps(value) for name, value in said.items()},
    }
    graph.describe(folder / "model.onnx", properties)
    write_json(folder / "export.json", {**asdict(exported), **said})
    fell = f"; fell back because {exported.fallback_reason}" if exported.fallback_reason else ""
    return Summary(
        Outcome.PASS,
        f"{exported.exporter} exporter, opset {exported.opset}, differs by at most "
        f"{exported.max_abs_error:.1e} on {len(rows)} holdout rows and "
        f"{len(exported.by_slice)} slices{fell}",
    )


def contract(
    declared: Network, shape: tuple[int, ...], features: tuple[str, ...] | None
) -> dict[str, Any]:
    """Return what the graph takes and gives, for its metadata.

    Args:
        shape: Of one input.
        features: Names of a packed row's columns, in order; None for an image.

    Raises:
        ValueError: There are more or fewer names than columns.
    """
    from penstock.export import graph  # noqa: PLC0415 - as above

    if features is not None and (len(features),) != shape:
        raise ValueError(
            f"{declared.name} names {len(features)} features and packs rows of shape {shape}; name "
            "each column of the row in its order."
        )
    return {
        "input": {"name": graph.INPUT, "type": "float32", "shape": ["batch", *shape]},
        "output": {
            "name": graph.OUTPUT,
            "type": "float32",
            "shape": ["batch", declared.classes],
        },
        "features": None if features is None else list(features),
    }
