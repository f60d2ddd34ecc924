"""Deciding: the label of each row, by whatever its probabilities came from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def decided(probability_nk: NDArray[Any], *, threshold: float | None) -> list[int]:
    """Return the label of each row: as the gate decided, which scipy keeps out of this image."""
    if threshold is None:
        return probability_nk.argmax(axis=1).tolist()
    return (probability_nk[:, 1] >= threshold).astype(np.int64).tolist()
