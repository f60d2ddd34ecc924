"""Laws of the golden examples: the same arrays, the same bytes, readable without this library."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from penstock.quantize import golden

ARRAYS = {
    "inputs_n": np.arange(24, dtype=np.float32).reshape(4, 2, 3),
    "labels_n": np.array([0, 1, 1, 0]),
    "reference_nk": np.arange(8, dtype=np.float32).reshape(4, 2),
    "int8_nk": np.arange(8, dtype=np.float32).reshape(4, 2) + 1,
}
SLICES = {"class 0": np.array([True, False, False, True]), "größe": np.zeros(4, bool)}


def test_what_is_written_is_read_back(tmp_path: Path):
    """Names, types and shapes are those the engine stage relies on; nothing is pickled."""
    golden.write(tmp_path / "golden.npz", **ARRAYS, slices=SLICES)

    with np.load(tmp_path / "golden.npz", allow_pickle=False) as held:
        found = dict(held)

    assert {n: (a.dtype.kind, a.dtype.itemsize, a.shape) for n, a in found.items()} == {
        "inputs": ("f", 4, (4, 2, 3)),
        "labels": ("i", 8, (4,)),
        "reference": ("f", 4, (4, 2)),
        "int8": ("f", 4, (4, 2)),
        "slice_names": ("U", 28, (2,)),
        "slices": ("b", 1, (2, 4)),
    }
    assert found["slice_names"].tolist() == list(SLICES)
    np.testing.assert_array_equal(found["slices"], np.stack(list(SLICES.values())))
    np.testing.assert_array_equal(found["int8"], ARRAYS["int8_nk"])


def test_the_time_is_not_in_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Written in another year, the file is the same."""
    golden.write(tmp_path / "one.npz", **ARRAYS, slices=SLICES)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    golden.write(tmp_path / "two.npz", **ARRAYS, slices=SLICES)

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_no_slices_are_no_rows_of_masks(tmp_path: Path):
    golden.write(tmp_path / "golden.npz", **ARRAYS, slices={})

    with np.load(tmp_path / "golden.npz") as held:
        assert held["slices"].shape == (0, 4)
        assert held["slice_names"].shape == (0,)


@pytest.mark.parametrize(
    ("n", "bytes_of_row", "kept"),
    [(100, 256, 100), (10_000, 256, 4096), (10_000, 1 << 20, 32), (10, 1 << 30, 1)],
)
def test_as_many_rows_are_kept_as_can_be_carried(n: int, bytes_of_row: int, kept: int):
    assert golden.rows_kept(n, bytes_of_row) == kept
