"""Run the quantize stage: the int8 graph and what it holds."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.stage import Refused, carry_out
from penstock.verdict import Outcome
from penstock.workload import Workload, settings_of


def run(*, workload: str, snapshot: Path, onnx: Path, out: Path, now: datetime) -> None:
    """Write an int8 bundle at ``out``: ``model.int8.onnx`` and ``quantize.json``.

    Raises:
        Refused: The graph came out in a form that TensorRT would refuse or run in float.
        BundleError: An input is not whole.
    """
    declared = workloads.load(workload)
    inputs = {"snapshot": read(snapshot, kind="snapshot"), "onnx": read(onnx, kind="onnx")}
    bundle = carry_out(
        "quantize",
        kind="int8",
        workload=workload,
        inputs=inputs,
        settings={"quantize": settings_of(declared.quantize)},
        make=lambda folder: _make(folder, declared, **inputs),
        out=out,
        now=now,
    )
    if problems := bundle.json("quantize.json")["problems"]:
        raise Refused(f"the int8 graph is not in TensorRT's form: {problems[0]}")


def _make(folder: Path, declared: Workload, *, snapshot: Bundle, onnx: Bundle) -> Summary:
    from penstock.quantize import graph  # noqa: PLC0415 - seconds to import

    rows = pq.read_table(snapshot.file("train.parquet")).slice(0, declared.quantize.examples)
    inputs_n = workloads.part(declared.name, "transform").training_input(rows)
    source, target = onnx.file("model.onnx"), folder / "model.int8.onnx"
    quantized = graph.quantize(source, target, inputs_n)
    write_json(folder / "quantize.json", {**asdict(quantized), "examples": len(rows)})
    smaller = source.stat().st_size / target.stat().st_size
    return Summary(
        Outcome.FAIL if quantized.problems else Outcome.PASS,
        f"{quantized.int8} of {quantized.weighted} weighted operations in int8, file "
        f"{smaller:.1f} times smaller; ranges from {len(rows)} training rows",
    )
