"""Run an ONNX graph with ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

# With it, an int8 graph computes something else than its own Q/DQ nodes say (42 dB apart).
_UNFAITHFUL = ["WeightBiasQuantization"]


class OnnxModel:
    """A graph with one float32 input and one float32 output."""

    def __init__(self, path: Path, *, threads: int = 1, reference: bool = False) -> None:
        """Load a graph; ``reference`` switches every optimization off."""
        options: Any = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if reference:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = ort.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_UNFAITHFUL,
        )
        self.input_name = self._session.get_inputs()[0].name
        self.output_name = self._session.get_outputs()[0].name

    def run(self, x_n: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs [n, ...] for inputs [n, ...]."""
        return np.asarray(self._session.run([self.output_name], {self.input_name: x_n})[0])
