"""From raw pixels to the network's input: the same functions in training and in serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

SIDE = 8


def capture_features(pixels_np: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return the per-capture features of raw images.

    Args:
        pixels_np: Grey values 0 to 16, shape [n, 64], row by row.

    Returns:
        ``ink_mean``, ``ink_spread`` (grey values) and ``centre_row``, ``centre_column`` (pixels),
        each of shape [n]. The ink centre of a blank image is the image's centre.
    """
    images = pixels_np.astype(np.float64).reshape(-1, SIDE, SIDE)
    ink = images.sum(axis=(1, 2))
    positions = np.arange(SIDE, dtype=np.float64)
    weight = np.where(ink > 0, ink, 1.0)
    middle = (SIDE - 1) / 2
    row = np.where(ink > 0, (images.sum(axis=2) * positions).sum(axis=1) / weight, middle)
    column = np.where(ink > 0, (images.sum(axis=1) * positions).sum(axis=1) / weight, middle)
    return {
        "ink_mean": images.mean(axis=(1, 2)),
        "ink_spread": images.std(axis=(1, 2)),
        "centre_row": row,
        "centre_column": column,
    }


def model_input(
    pixels_np: NDArray[np.float32],
    ink_mean_n: NDArray[np.float64],
    ink_spread_n: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return images scaled by their capture's own ink, shape [n, 1, 8, 8].

    A blank capture has no spread; its pixels become zeros rather than a division by zero.
    """
    spread = np.where(ink_spread_n > 0, ink_spread_n, 1.0)[:, None]
    scaled = (pixels_np.astype(np.float64) - ink_mean_n[:, None]) / spread
    return scaled.astype(np.float32).reshape(-1, 1, SIDE, SIDE)


def training_input(rows: pa.Table) -> NDArray[np.float32]:
    """Return the network's input for a snapshot's rows, scaled by their stored features."""
    return model_input(_pixels(rows), rows["ink_mean"].to_numpy(), rows["ink_spread"].to_numpy())


def request_input(rows: pa.Table) -> NDArray[np.float32]:
    """Return the network's input for rows of a request, which hold pixels alone."""
    pixels = _pixels(rows)
    features = capture_features(pixels)
    return model_input(pixels, features["ink_mean"], features["ink_spread"])


def _pixels(rows: pa.Table) -> NDArray[np.float32]:
    """Return images row by row, shape [n, 64]."""
    return rows["pixels"].combine_chunks().flatten().to_numpy().reshape(-1, SIDE * SIDE)
