"""Runtimes: run a model, whatever made it, behind one small interface."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Runtime(Protocol):
    """Runs inputs [n, ...] to outputs [n, k]."""

    def run(self, x_n: NDArray[np.float32]) -> NDArray[Any]:
        """Return the outputs of n inputs."""
        ...
