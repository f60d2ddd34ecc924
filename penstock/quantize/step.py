"""Run the quantize stage: the int8 graph, why it is as it is, and golden examples of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, hash_file, read, write_json
from penstock.stage import Refused, carry_out
from penstock.stats import holdback
from penstock.stats.slices import masks
from penstock.verdict import Outcome
from penstock.workload import Network, settings_of, task_of

if TYPE_CHECKING:
    from onnx import ModelProto

    from penstock.quantize.fallback import Found
    from penstock.quantize.lint import Placement
    from penstock.quantize.served import Served
    from penstock.quantize.validation import Validation

SIMPLIFIED, INT8, CPU = "model.simplified.onnx", "model.int8.onnx", "model.int8-cpu.onnx"


def run(*, workload: str, snapshot: Path, onnx: Path, out: Path, now: datetime) -> None:
    """Write an int8 bundle at ``out``.

    It holds ``model.simplified.onnx``, ``model.int8.onnx`` in TensorRT's form and
    ``model.int8-cpu.onnx`` in that of ONNX Runtime on a CPU, ``quantize.json`` (what is int8),
    ``calibration.json`` (the ranges), ``sensitivity.json`` (what int8 costs each layer, and which
    stay in float) and ``golden.npz`` (examples that tell whether an engine is this graph).

    Ranges, calibrator and float layers are chosen on training rows alone. A graph that misses its
    tolerance on them is written all the same: the equivalence stage decides on the holdout.

    Raises:
        Refused: The graph came out in a form that TensorRT would refuse or run in float.
        ValueError: It has no layer that could be int8, or there are too few rows.
        BundleError: An input is not whole.
    """
    declared = workloads.load_network(workload)
    inputs = {"snapshot": read(snapshot, kind="snapshot"), "onnx": read(onnx, kind="onnx")}
    bundle = carry_out(
        "quantize",
        kind="int8",
        workload=workload,
        inputs=inputs,
        settings=_settings(declared),
        make=lambda folder: _make(folder, declared, **inputs),
        out=out,
        now=now,
    )
    if problems := bundle.json("quantize.json")["problems"]:
        raise Refused(f"the int8 graph is not in TensorRT's form: {problems[0]}")


def _settings(declared: Network) -> dict[str, object]:
    """Return what decides the bundle: how to quantize, and what the layers must keep."""
    return {
        "quantize": settings_of(declared.quantize),
        "int8": settings_of(declared.equivalence.int8),
        "min_slice_support": declared.equivalence.min_slice_support,
        "slices": [settings_of(part) for part in declared.slices],
        "task": task_of(declared),
    }


def _make(folder: Path, declared: Network, *, snapshot: Bundle, onnx: Bundle) -> Summary:
    # onnxruntime and onnx take a second to import, which a reused bundle does not need.
    from penstock.quantize import calibration, graph, lint, sensitivity, served  # noqa: PLC0415
    from penstock.quantize.simplify import save, simplify  # noqa: PLC0415

    source, target = onnx.file("model.onnx"), folder / INT8
    model = simplify(source, folder / SIMPLIFIED)
    if not graph.layers(model):
        raise ValueError(f"{source} has no convolution and no product with weights to quantize.")
    rows = pq.read_table(snapshot.file("train.parquet"))
    inputs_n, validation = _training(rows, declared, model)
    calibrated = calibration.calibrate(model, inputs_n, validation, declared.quantize)
    chosen = calibrated.best
    most = declared.quantize.max_float_layers
    measured = sensitivity.measure(model, chosen.thresholds, validation, most=most)
    found = measured.found
    int8 = graph.quantize(model, chosen.thresholds, keep_float=found.keep_float)
    save(int8, target)
    on_cpu = served.choose(
        model, inputs_n, chosen.thresholds, validation, start=found.keep_float, most=most
    )
    save(on_cpu.model, folder / CPU)
    placed = lint.lint(int8, keep_float=found.keep_float)
    write_json(folder / "calibration.json", calibrated.to_dict(declared.quantize))
    write_json(folder / "sensitivity.json", {**measured.to_dict(), "cpu": on_cpu.to_dict()})
    document = {
        "weighted": placed.weighted,
        "int8": len(placed.int8),
        "problems": [str(problem) for problem in placed.problems],
        "examples": calibrated.rows,
        "calibrator": chosen.method,
        "float_layers": list(found.keep_float),
        "onnx": hash_file(target),
        "cpu": {
            "file": CPU,
            "sha256": hash_file(folder / CPU),
            "float_layers": list(on_cpu.found.keep_float),
        },
    }
    write_json(folder / "quantize.json", document)
    _golden(folder, declared, pq.read_table(snapshot.file("holdout.parquet")))
    smaller = source.stat().st_size / target.stat().st_size
    line = (
        f"{len(placed.int8)} of {placed.weighted} weighted operations in int8, file {smaller:.1f} "
        f"times smaller; {chosen.method} ranges from {calibrated.rows} training rows"
    )
    outcome, reason = _judged(placed, found)
    if outcome is Outcome.PASS:
        outcome, more = _judged_on_cpu(on_cpu)
        reason += more
    return Summary(outcome, f"{line}{reason}")


def _judged(placed: Placement, found: Found) -> tuple[Outcome, str]:
    """Return how it ended, and what to add to the line."""
    if placed.problems:
        return Outcome.FAIL, f"; {placed.problems[0]}"
    stay = _named("; in float: ", found.keep_float)
    if found.state.gaps:
        return Outcome.FAIL, f"{stay}; {_beyond(found)}"
    if not placed.int8:
        return Outcome.FAIL, "; no layer keeps the tolerance in int8"
    return Outcome.PASS, stay


def _judged_on_cpu(served: Served) -> tuple[Outcome, str]:
    """Return how the form for CPUs ended, and what to add where it needs more float layers."""
    found = served.found
    stay = _named("; on a CPU also in float: ", found.keep_float[len(found.start) :])
    if found.state.gaps:
        return Outcome.FAIL, f"{stay}; on a CPU {_beyond(found)}"
    if not served.left:
        return Outcome.FAIL, "; on a CPU no layer keeps the tolerance in int8"
    return Outcome.PASS, stay


def _named(said: str, layers: Sequence[str]) -> str:
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"{said}{layers[0]}{more}" if layers else ""


def _beyond(found: Found) -> str:
    gaps = found.state.gaps
    name = max(gaps, key=lambda n: gaps[n])
    return f"{name} is beyond its limit by {gaps[name]:.4g} all the same"


def _training(
    rows: pa.Table, declared: Network, model: ModelProto
) -> tuple[NDArray[np.float32], Validation]:
    """Return the calibration inputs, of older training rows, and the validation rows, the newest.

    Both evenly spaced, so that no day of the period is missed.
    """
    from penstock.quantize.running import logits  # noqa: PLC0415
    from penstock.quantize.validation import MOST_ROWS, Validation, evenly  # noqa: PLC0415

    transform = workloads.part(declared.name, "transform")
    older, newest = holdback.split(rows)
    older = older.take(pa.array(evenly(len(older), declared.quantize.examples)))
    newest = newest.take(pa.array(evenly(len(newest), MOST_ROWS)))
    inputs_n = transform.training_input(newest)
    return transform.training_input(older), Validation(
        declared=declared,
        inputs_n=inputs_n,
        labels_n=newest[declared.label].to_numpy(),
        slices=masks(newest, declared),
        reference_nk=logits(model, inputs_n),
    )


def _golden(folder: Path, declared: Network, holdout: pa.Table) -> None:
    """Write the golden examples, of holdout rows: nothing was chosen on them."""
    from penstock.quantize import golden  # noqa: PLC0415
    from penstock.quantize.validation import evenly  # noqa: PLC0415
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415

    transform = workloads.part(declared.name, "transform")
    one = transform.training_input(holdout.slice(0, 1))
    most = golden.rows_kept(len(holdout), one.nbytes)
    rows = holdout.take(pa.array(evenly(len(holdout), most)))
    inputs_n = transform.training_input(rows)
    golden.write(
        folder / "golden.npz",
        inputs_n=inputs_n,
        labels_n=rows[declared.label].to_numpy(),
        reference_nk=OnnxModel(folder / SIMPLIFIED, reference=True).run(inputs_n),
        int8_nk=OnnxModel(folder / INT8, reference=True).run(inputs_n),
        slices=masks(rows, declared),
    )
