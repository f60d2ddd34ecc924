"""KServe's own ModelServer with a model as its documentation writes one.

python -m benchmarks.serving.rivals.stock PORT [quiet]
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import uvicorn

PORT, QUIET = int(sys.argv[1]), "quiet" in sys.argv[2:]
# KServe reads the command line when it is imported.
sys.argv = sys.argv[:1]

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402

from benchmarks.serving.rivals.network import Network  # noqa: E402


class Loopback(uvicorn.Config):
    """Heard on this machine alone; KServe would listen everywhere."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Take KServe's settings, and another host."""
        super().__init__(*given, **{**named, "host": "127.0.0.1"})


class Tabular(Model):
    """The model."""

    def __init__(self, name: str) -> None:
        """Load at once."""
        super().__init__(name)
        self.network = Network()
        self.ready = True

    def preprocess(self, payload: Any, headers: Any = None) -> Any:  # noqa: ARG002
        """Return the rows with what was asked."""
        if isinstance(payload, InferRequest):
            return payload, payload.inputs[0].as_numpy()
        return payload, np.array(payload["instances"], np.float32)

    def predict(self, payload: Any, headers: Any = None) -> Any:  # noqa: ARG002
        """Return labels and probabilities in the protocol of the request."""
        asked, rows_nd = payload
        labels, probability_nk = self.network(rows_nd)
        if not isinstance(asked, InferRequest):
            rows = zip(labels.tolist(), probability_nk.tolist(), strict=True)
            return {"predictions": [{"label": n, "probability": p} for n, p in rows]}
        label = InferOutput("label", list(labels.shape), "INT64")
        label.set_data_from_numpy(labels, binary_data=asked.use_binary_outputs)
        probability = InferOutput("probability", list(probability_nk.shape), "FP32")
        probability.set_data_from_numpy(probability_nk, binary_data=asked.use_binary_outputs)
        return InferResponse(
            asked.id or "", self.name, [label, probability],
            use_binary_outputs=asked.use_binary_outputs, requested_outputs=asked.request_outputs,
        )  # fmt: skip


def main() -> None:
    """Serve on a loopback port."""
    uvicorn.Config = Loopback  # type: ignore[misc]
    if QUIET:
        for name in ("kserve.trace", "uvicorn.access", "kserve"):
            logging.getLogger(name).setLevel(logging.WARNING)
    server = ModelServer(http_port=PORT, enable_grpc=False, workers=1)
    if QUIET:
        # The server sets its loggers up anew.
        for name in ("kserve.trace", "uvicorn.access", "kserve"):
            logging.getLogger(name).setLevel(logging.WARNING)
    server.start([Tabular("m")])


if __name__ == "__main__":
    main()
