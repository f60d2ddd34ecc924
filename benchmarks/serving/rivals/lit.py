"""A LitServe API as its documentation writes one.

    python -m benchmarks.serving.rivals.lit PORT

It looks at annotations when it starts, so they are not left for later here.
"""

import sys
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.serving.rivals.network import Network


class Tabular(litserve.LitAPI):
    """The model."""

    def setup(self, device: Any) -> None:  # noqa: ARG002 - LitServe passes it
        """Load it."""
        self.network = Network()

    def decode_request(self, request: Request) -> Any:
        """Return the rows."""
        return np.array(request["inputs"], np.float32)

    def predict(self, x: Any) -> Any:
        """Return labels and probabilities."""
        return self.network(x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Return the answer."""
        labels, probability_nk = output
        return {"label": labels.tolist(), "probability": probability_nk.tolist()}


def main() -> None:
    """Serve on a loopback port."""
    server = litserve.LitServer(Tabular(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning",
        generate_client_file=False, access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
