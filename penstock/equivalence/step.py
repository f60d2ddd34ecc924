"""Run the equivalence stage: every artifact on the holdout, each held against the one before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.equivalence import ladder
from penstock.stage import carry_out
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Workload, settings_of

STEPS = (("torch", "onnx"), ("onnx", "int8"))
LAYER_ROWS = 64
"""Inputs whose tensors are all compared; every one of them is in memory at once."""


def run(
    *,
    workload: str,
    snapshot: Path,
    model: Path,
    onnx: Path,
    int8: Path,
    out: Path,
    now: datetime,
) -> None:
    """Write the ladder torch → ONNX → int8 as a bundle.

    It holds ``verdict.json``, ``ladder.json``, ``worst.parquet`` (the inputs that fare worst at
    each step, with their keys) and ``layers.json`` (noise of the int8 graph, layer by layer).

    A failing ladder does not raise: the gate reads its verdict.

    Raises:
        BundleError: An input is not whole.
    """
    declared = workloads.load(workload)
    inputs = {
        "snapshot": read(snapshot, kind="snapshot"),
        "model": read(model, kind="model"),
        "onnx": read(onnx, kind="onnx"),
        "int8": read(int8, kind="int8"),
    }
    carry_out(
        "equivalence",
        kind="equivalence",
        workload=workload,
        inputs=inputs,
        settings={"equivalence": settings_of(declared.equivalence)},
        make=lambda folder: _make(folder, declared, **inputs),
        out=out,
        now=now,
    )


def _make(
    folder: Path,
    declared: Workload,
    *,
    snapshot: Bundle,
    model: Bundle,
    onnx: Bundle,
    int8: Bundle,
) -> Summary:
    rows = pq.read_table(snapshot.file("holdout.parquet"))
    inputs_n = workloads.part(declared.name, "transform").training_input(rows)
    labels_n = rows[declared.label].to_numpy()
    outputs = _outputs(declared, inputs_n, model=model, onnx=onnx, int8=int8)
    rungs = {"onnx": declared.equivalence.onnx, "int8": declared.equivalence.int8}
    checks: list[Check] = []
    steps: list[dict[str, object]] = []
    kept: list[str] = []
    for before, after in STEPS:
        found = ladder.compare(outputs[before], outputs[after], labels_n, classes=declared.classes)
        support = declared.equivalence.min_slice_support
        checks += ladder.judge(after, found, rungs[after], min_support=support)
        steps.append({"step": after, "against": before, "slices": [asdict(c) for c in found]})
        kept.append(f"{after} {found[0].agreement:.2%} agree")
    found, located = _layers(declared, inputs_n, onnx=onnx, int8=int8)
    write_json(folder / "layers.json", found)
    pq.write_table(_worst(rows, outputs, declared), folder / "worst.parquet")
    verdict = Verdict(tuple(checks))
    write_json(folder / "verdict.json", verdict.to_dict())
    write_json(folder / "ladder.json", {"steps": steps, "classes": declared.classes})
    line = " → ".join(["torch", *kept])
    failed = any(c.outcome is Outcome.FAIL and c.name.startswith("int8") for c in checks)
    where = f"; goes wrong at {located}" if failed and located else ""
    return Summary(verdict.outcome, f"{line}; {verdict.reason}{where}")


def _layers(
    declared: Workload, inputs_n: NDArray[np.float32], *, onnx: Bundle, int8: Bundle
) -> tuple[list[dict[str, object]], str | None]:
    """Return the noise of each layer of the int8 graph, and the first with too much of it."""
    from penstock.runtimes import layers  # noqa: PLC0415 - as below

    paths = onnx.file("model.onnx"), int8.file("model.int8.onnx")
    found = layers.compare(*paths, inputs_n[:LAYER_ROWS])
    wrong = layers.first_wrong(found, least_db=declared.equivalence.int8.min_snr_db)
    said = None if wrong is None else f"{wrong.operation} {wrong.name}, {wrong.snr_db:.1f} dB"
    return [asdict(layer) for layer in found], said


def _worst(
    rows: pa.Table, outputs: Mapping[str, NDArray[np.float64]], declared: Workload
) -> pa.Table:
    """Return the worst inputs of each step: step, row of the holdout, key, label, decisions."""
    keys = rows.select(list(declared.data.unique)).to_pylist()
    labels = rows[declared.label].to_pylist()
    found = [
        (after, *one)
        for before, after in STEPS
        for one in ladder.worst(outputs[before], outputs[after])
    ]
    return pa.table(
        {
            "step": [f[0] for f in found],
            "row": [f[1] for f in found],
            "key": [json.dumps(keys[f[1]], default=str, sort_keys=True) for f in found],
            "label": [labels[f[1]] for f in found],
            "before": [f[2] for f in found],
            "after": [f[3] for f in found],
            "error": [f[4] for f in found],
        }
    )


def _outputs(
    declared: Workload, inputs_n: NDArray[np.float32], *, model: Bundle, onnx: Bundle, int8: Bundle
) -> dict[str, NDArray[np.float64]]:
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - seconds to import
    from penstock.runtimes.torch import TorchModel, network  # noqa: PLC0415

    weights = model.file("model.safetensors")
    reference = network(weights, workload=declared.name, classes=declared.classes)
    return {
        "torch": TorchModel(reference, double=True).run(inputs_n),
        "onnx": OnnxModel(onnx.file("model.onnx")).run(inputs_n).astype(np.float64),
        "int8": OnnxModel(int8.file("model.int8.onnx")).run(inputs_n).astype(np.float64),
    }
