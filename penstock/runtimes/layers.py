"""Hold two graphs of the same layers against each other, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.runtimes.onnxruntime import OnnxModel
from penstock.stats.distance import Noise

BATCH = 16
"""Inputs whose tensors are all in memory at once."""


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
        inputs_n: Network inputs, shape [n, ...]; the tensors of ``BATCH`` of them are held at once.
    """
    first, second = onnx.load(before), onnx.load(after)
    there = {name for node in second.graph.node for name in node.output}
    named = [
        (name, node.op_type)
        for node in first.graph.node
        for name in node.output
        if name and name in there
    ]
    if not named:
        return []
    names = [name for name, _ in named]
    graphs = with_outputs(first, names), with_outputs(second, names)
    noises = [Noise() for _ in names]
    for start in range(0, len(inputs_n), BATCH):
        batch = inputs_n[start : start + BATCH]
        ones, others = (OnnxModel.tensors(graph, names, batch) for graph in graphs)
        for noise, one, other in zip(noises, ones, others, strict=True):
            noise.add(one, other)
    return [
        Layer(name=name, operation=operation, snr_db=noise.db)
        for (name, operation), noise in zip(named, noises, strict=True)
    ]


def first_wrong(layers: Sequence[Layer], *, least_db: float) -> Layer | None:
    """Return the first layer below a signal-to-noise ratio, None if there is none."""
    return next((layer for layer in layers if layer.snr_db < least_db), None)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    """Return a serialized graph that gives these of its tensors too."""
    held = {o.name for o in model.graph.output}
    for name in names:
        if name not in held:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return model.SerializeToString()
