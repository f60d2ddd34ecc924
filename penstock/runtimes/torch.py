"""The reference runtime: the trained network itself, in float32 or float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from penstock import workload as workloads


def network(weights: Path, *, workload: str, classes: int) -> torch.nn.Module:
    """Return a workload's network with the weights of a ``.safetensors`` file, ready to run.

    Raises:
        RuntimeError: The file holds other tensors than the network has; torch names them.
    """
    model = workloads.part(workload, "model").build(classes=classes)
    model.load_state_dict(load_file(weights))
    return model.eval()


class TorchModel:
    """Runs a network on arrays: inputs [n, ...] to logits [n, classes]."""

    def __init__(self, model: torch.nn.Module, *, double: bool = False) -> None:
        """Take a network; ``double`` computes in float64, the yardstick of the others."""
        self._dtype = torch.float64 if double else torch.float32
        self._model = model.to(self._dtype).eval()

    def run(self, x_n: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return logits [n, classes] as float64."""
        with torch.no_grad():
            return self._model(torch.tensor(x_n, dtype=self._dtype)).double().numpy()
