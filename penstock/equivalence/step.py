"""Run the equivalence stage: every artifact on the holdout, each held against the one before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.equivalence import locate
from penstock.equivalence.climb import climb
from penstock.equivalence.holdout import Holdout
from penstock.equivalence.written import document, line, worst
from penstock.stage import carry_out
from penstock.workload import Network, settings_of


def run(
    *,
    workload: str,
    snapshot: Path,
    model: Path,
    onnx: Path,
    int8: Path,
    engine: Path,
    out: Path,
    now: datetime,
) -> None:
    """Write the ladder torch → ONNX → simplified → int8 → engines as a bundle.

    Beside it, simplified → int8 for CPUs, run as it serves.

    It holds ``verdict.json``, ``ladder.json`` (every number by step and slice, the engines, the
    jitter floor), ``worst.parquet`` (the inputs that fare worst at each step, with their keys) and
    ``layers.json`` (the noise of each step's graph, layer by layer).

    A failing ladder does not raise: the gate reads its verdict.

    Raises:
        BundleError: An input is not whole, the holdout has no rows, or the engines were made from
            another int8 graph.
        ValueError: A slice has a name that the ladder uses itself.
    """
    declared = workloads.load_network(workload)
    given = {
        "snapshot": read(snapshot, kind="snapshot"),
        "model": read(model, kind="model"),
        "onnx": read(onnx, kind="onnx"),
        "int8": read(int8, kind="int8"),
        "engine": read(engine, kind="engine"),
    }
    carry_out(
        "equivalence",
        kind="equivalence",
        workload=workload,
        inputs=given,
        settings=_settings(declared),
        make=lambda folder: _make(folder, declared, given),
        out=out,
        now=now,
    )


def _settings(declared: Network) -> dict[str, Any]:
    """Return what the ladder uses of the declaration."""
    return {
        "equivalence": settings_of(declared.equivalence),
        "slices": [settings_of(part) for part in declared.slices],
        "required": list(declared.engine.required),
        "classes": declared.classes,
        "metric": declared.metric,
        "threshold": declared.threshold,
        "label": declared.label,
        "keys": list(declared.data.unique),
    }


def _make(folder: Path, declared: Network, given: Mapping[str, Bundle]) -> Summary:
    from penstock.runtimes.torch import network  # noqa: PLC0415 - torch takes seconds to import

    holdout = Holdout(
        path=given["snapshot"].file("holdout.parquet"),
        declared=declared,
        transform=workloads.part(declared.name, "transform").training_input,
    )
    weights = given["model"].file("model.safetensors")
    graphs = {
        "onnx": given["onnx"].file("model.onnx"),
        "simplified": given["int8"].file("model.simplified.onnx"),
        "int8": given["int8"].file("model.int8.onnx"),
        "int8-cpu": given["int8"].file("model.int8-cpu.onnx"),
    }
    found = climb(
        holdout,
        network(weights, workload=declared.name, classes=declared.classes),
        graphs,
        given["int8"],
        given["engine"],
    )
    write_json(folder / "verdict.json", found.verdict.to_dict())
    write_json(folder / "ladder.json", document(found))
    plain = {name: locate.plain(one) for name, one in found.located.items()}
    write_json(folder / "layers.json", plain)
    pq.write_table(worst(found, holdout), folder / "worst.parquet")
    return Summary(found.verdict.outcome, line(found))
