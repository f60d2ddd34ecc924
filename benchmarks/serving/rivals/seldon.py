"""An MLServer runtime as its documentation writes one.

python -m benchmarks.serving.rivals.seldon FOLDER PORT   # writes the settings it serves from
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.rivals.network import Network


class Tabular(MLModel):
    """The model."""

    async def load(self) -> bool:
        """Load it."""
        self.network = Network()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return labels and probabilities."""
        labels, probability_nk = self.network(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [
            NumpyCodec.encode_output("label", labels),
            NumpyCodec.encode_output("probability", probability_nk),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def main() -> None:
    """Write its settings: one process, which is its quickest for a model as small as this."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "host": "127.0.0.1", "http_port": port, "grpc_port": _free_port(),
        "metrics_port": _free_port(), "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "m", "implementation": "benchmarks.serving.rivals.seldon.Tabular"}
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    main()
