"""Choose the float layers of the form for CPUs: what serves keeps the tolerance itself."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.quantize import cpu, graph
from penstock.quantize.fallback import Found, State, fall_back
from penstock.quantize.running import BATCH
from penstock.quantize.simplify import save
from penstock.quantize.validation import Validation
from penstock.runtimes.onnxruntime import OnnxModel


@dataclass(frozen=True, kw_only=True)
class Served:
    """The form for CPUs, and how its float layers were found."""

    model: onnx.ModelProto
    found: Found
    left: int
    """Layers in int8."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values for ``sensitivity.json``."""
        return {
            "float_layers": list(self.found.keep_float),
            "why": {step.layer: step.why for step in self.found.steps},
            "steps": [asdict(step) for step in self.found.steps],
            "spared": list(self.found.spared),
            "failing": dict(self.found.state.gaps),
            "snr_db": self.found.state.snr_db,
        }


def choose(
    model: onnx.ModelProto,
    inputs_n: NDArray[np.float32],
    thresholds: Mapping[str, float],
    validation: Validation,
    *,
    start: Sequence[str],
    most: int | None,
) -> Served:
    """Return the form for CPUs that keeps the tolerance on validation rows, run as it serves.

    It starts from the layers that TensorRT's form has in float. This form rounds more, the outputs
    of layers too, so that it may need others besides.

    Args:
        model: The simplified float graph.
        inputs_n: Network inputs of the calibration rows, shape [n, ...].
        thresholds: Largest absolute value of the activations that were calibrated.
        start: Layers in float in TensorRT's form.
        most: Layers that may stay in float; None: any number.
    """
    observed = cpu.observe(model, inputs_n)

    def form(keep_float: frozenset[str]) -> onnx.ModelProto:
        return cpu.quantize(model, observed, thresholds, keep_float=keep_float)

    def evaluate(keep_float: frozenset[str]) -> State:
        nk = answers(form(keep_float), validation.inputs_n)
        return State(gaps=validation.gaps(nk), snr_db=validation.score(nk).snr_db)

    names = [layer.name for layer in graph.layers(model)]
    found = fall_back(names, evaluate, most=most, start=start)
    kept = found.keep_float
    return Served(model=form(frozenset(kept)), found=found, left=len(names) - len(kept))


def answers(model: onnx.ModelProto, inputs_n: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits of a graph as it serves, its nodes fused, shape [n, k]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        served = OnnxModel(path)
    batches = [served.run(inputs_n[i : i + BATCH]) for i in range(0, len(inputs_n), BATCH)]
    return np.concatenate(batches).astype(np.float64)
