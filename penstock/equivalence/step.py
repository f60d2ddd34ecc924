"""Run the equivalence stage: every artifact on the holdout, each held against the one before."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.equivalence import ladder
from penstock.stage import carry_out
from penstock.verdict import Check, Verdict
from penstock.workload import Workload, settings_of


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
    """Write the ladder torch → ONNX → int8 as a bundle: ``verdict.json``, ``ladder.json``.

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
    for before, after in (("torch", "onnx"), ("onnx", "int8")):
        found = ladder.compare(outputs[before], outputs[after], labels_n, classes=declared.classes)
        support = declared.equivalence.min_slice_support
        checks += ladder.judge(after, found, rungs[after], min_support=support)
        steps.append({"step": after, "against": before, "slices": [asdict(c) for c in found]})
        kept.append(f"{after} {found[0].agreement:.2%} agree")
    verdict = Verdict(tuple(checks))
    write_json(folder / "verdict.json", verdict.to_dict())
    write_json(folder / "ladder.json", {"steps": steps, "classes": declared.classes})
    line = " → ".join(["torch", *kept])
    return Summary(verdict.outcome, f"{line}; {verdict.reason}")


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
