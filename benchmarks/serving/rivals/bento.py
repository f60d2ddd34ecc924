"""A BentoML service as its documentation writes one, its access log off."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np

from benchmarks.serving.rivals.network import Network


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Tabular:
    """The model."""

    def __init__(self) -> None:
        """Load it."""
        self.network = Network()

    @bentoml.api
    def predict(self, inputs: np.ndarray) -> dict[str, Any]:
        """Return labels and probabilities."""
        labels, probability_nk = self.network(inputs)
        return {"label": labels.tolist(), "probability": probability_nk.tolist()}
