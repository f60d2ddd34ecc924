"""The model as every rival runs it: ONNX Runtime, one thread, labels and probabilities out."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime as ort

MODEL = "BENCH_MODEL"
"""Environment variable with the path of the graph."""


class Network:
    """A graph of one input and one output, logits [n, classes]."""

    def __init__(self, path: str | None = None) -> None:
        """Load it from a path, or from where the environment says."""
        options: Any = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        where = path or os.environ[MODEL]
        self._session: Any = ort.InferenceSession(
            where, options, providers=["CPUExecutionProvider"]
        )
        self._name = self._session.get_inputs()[0].name

    def logits(self, x_nd: Any) -> Any:
        """Return logits [n, classes]."""
        return self._session.run(None, {self._name: x_nd})[0]

    def __call__(self, values: Any) -> tuple[Any, Any]:
        """Return labels [n] and probabilities [n, classes] of rows [n, features]."""
        logits_nk = self.logits(np.asarray(values, np.float32))
        odds_nk = np.exp(logits_nk - logits_nk.max(axis=1, keepdims=True))
        probability_nk = odds_nk / odds_nk.sum(axis=1, keepdims=True)
        return probability_nk.argmax(axis=1), probability_nk
