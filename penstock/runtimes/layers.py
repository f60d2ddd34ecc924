"""Hold two graphs of the same layers against each other, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.runtimes.onnxruntime import OnnxModel
from penstock.stats.distance import snr_db


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One tensor that both graphs compute."""

    name: str
    operation: str
    snr_db: float
    """Signal-to-noise ratio of the second graph's tensor against the first's."""


def compare(before: Path, after: Path, inputs_n: NDArray[np.float32]) -> list[Layer]:
    """Return every tensor of the first graph that the second one has too, in order of computing.

    Both graphs run whole, without optimizations, so the noise of a layer holds that of all before
    it: the first layer with much of it is where it came in.

    Args:
        inputs_n: Network inputs, shape [n, ...]; every tensor of them is held in memory.
    """
    first, second = onnx.load(before), onnx.load(after)
    there = {name for node in second.graph.node for name in node.output}
    named = [
        (name, node.op_type) for node in first.graph.node for name in node.output if name in there
    ]
    names = [name for name, _ in named]
    pairs = zip(_tensors(first, names, inputs_n), _tensors(second, names, inputs_n), strict=True)
    return [
        Layer(name=name, operation=operation, snr_db=snr_db(one, other))
        for (name, operation), (one, other) in zip(named, pairs, strict=True)
    ]


def first_wrong(layers: list[Layer], *, least_db: float) -> Layer | None:
    """Return the first layer below a signal-to-noise ratio, None if there is none."""
    return next((layer for layer in layers if layer.snr_db < least_db), None)


def _tensors(
    model: onnx.ModelProto, names: list[str], inputs_n: NDArray[np.float32]
) -> list[NDArray[np.float64]]:
    held = {o.name for o in model.graph.output}
    for name in names:
        if name not in held:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return OnnxModel.tensors(model.SerializeToString(), names, inputs_n)
