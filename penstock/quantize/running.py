"""Run a graph held in memory, some of its tensors at a time, as its nodes say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

BATCH = 64
"""Rows whose tensors are in memory at once."""


class Tensors:
    """Some tensors of a graph of one float32 input, computed without optimizations."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str]) -> None:
        self._input: str = model.graph.input[0].name
        self._names = tuple(names)
        # The input itself is at hand, and the runtime does not give it back.
        self._asked = [name for name in names if name != self._input]
        self._session = _session(model, self._asked)

    def batches(self, inputs_n: NDArray[np.float32]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield the tensors of one batch of rows after the other."""
        for start in range(0, len(inputs_n), BATCH):
            x_b = inputs_n[start : start + BATCH]
            found: list[Any] = []
            if self._asked:
                found = self._session.run(self._asked, {self._input: x_b})
            held = {self._input: x_b, **dict(zip(self._asked, found, strict=True))}
            yield {name: held[name] for name in self._names}


def _session(model: onnx.ModelProto, names: list[str]) -> Any:
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    held = {output.name for output in model.graph.output}
    asked.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in held
    )
    options: Any = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def logits(model: onnx.ModelProto, inputs_n: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the output of a graph, shape [n, classes], as its nodes say."""
    name: str = model.graph.output[0].name
    found = [batch[name] for batch in Tensors(model, [name]).batches(inputs_n)]
    return np.concatenate(found).astype(np.float64)
