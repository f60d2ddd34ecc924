"""Write the golden examples: inputs, labels, expected outputs and slices, independent of data."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 4096
MOST_BYTES = 32 << 20
"""Of inputs: they are carried to machines with a GPU beside a graph and an engine."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The format wants a time; with a fixed one equal arrays give equal files."""


def rows_kept(n: int, bytes_of_row: int) -> int:
    """Return how many of n holdout rows are kept."""
    return min(n, MOST_ROWS, max(1, MOST_BYTES // bytes_of_row))


def write(
    path: Path,
    *,
    inputs_n: NDArray[np.float32],
    labels_n: NDArray[np.int64],
    reference_nk: NDArray[np.float32],
    int8_nk: NDArray[np.float32],
    slices: Mapping[str, NDArray[np.bool_]],
) -> None:
    """Write ``golden.npz``; :func:`numpy.load` reads it.

    Args:
        inputs_n: Network inputs of holdout rows, shape [n, ...].
        labels_n: True classes, shape [n].
        reference_nk: Logits of the simplified float graph, shape [n, classes].
        int8_nk: Logits of the int8 graph as its Q/DQ nodes say, shape [n, classes].
        slices: Which rows each holds, shape [n].
    """
    masks = [np.asarray(mask, bool) for mask in slices.values()]
    held = {
        "inputs": inputs_n.astype(np.float32, copy=False),
        "labels": labels_n.astype(np.int64, copy=False),
        "reference": reference_nk.astype(np.float32, copy=False),
        "int8": int8_nk.astype(np.float32, copy=False),
        "slice_names": np.array(list(slices), np.str_),
        "slices": np.stack(masks) if masks else np.zeros((0, len(inputs_n)), bool),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in held.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            with archive.open(entry, "w", force_zip64=True) as f:
                np.lib.format.write_array(f, np.ascontiguousarray(values), allow_pickle=False)
