"""What a reader of digits must do to captures changed on purpose, and to plain ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workloads.digits.transform import SIDE, capture_features

FAINT = 0.8
"""What is left of the ink in a faint capture."""

Images = NDArray[np.float32]
"""Grey values 0 to 16, shape [n, 8, 8]."""


def fainter(rows: pa.Table) -> pa.Table:
    """Return each capture as a drier pen would leave it: whole grey values, a fifth less ink."""
    return _with(rows, np.round(_images(rows) * FAINT))


def one_to_the_right(rows: pa.Table) -> pa.Table:
    """Return each capture moved by a pixel; one with ink in its last column stays as it is.

    Sideways only: the digits fill all rows, so that a move up or down cuts ink off.
    """
    images_n = _images(rows)
    moved_n = np.roll(images_n, 1, axis=2)
    full_n = (images_n[:, :, -1] > 0).any(axis=1)
    return _with(rows, np.where(full_n[:, None, None], images_n, moved_n))


def mean_digits(rows: pa.Table) -> pa.Table:
    """Return ten cases: of each digit, the mean of its captures, a plain one that people read."""
    images_n, labels_n = _images(rows), rows["label"].to_numpy()
    found = np.unique(labels_n)
    first = rows.take(pa.array([int(np.flatnonzero(labels_n == label)[0]) for label in found]))
    return _with(first, np.stack([images_n[labels_n == label].mean(axis=0) for label in found]))


def _images(rows: pa.Table) -> Images:
    pixels = rows["pixels"].combine_chunks().flatten().to_numpy()
    return pixels.reshape(-1, SIDE, SIDE).astype(np.float32)


def _with(rows: pa.Table, images_n: Images) -> pa.Table:
    """Return the rows with other images, and the features that follow from them."""
    pixels_np = images_n.astype(np.float32).reshape(-1, SIDE * SIDE)
    new = {
        "pixels": pa.array(list(pixels_np), rows.schema.field("pixels").type),
        **{name: pa.array(values) for name, values in capture_features(pixels_np).items()},
    }
    for name, values in new.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows
