"""Laws of the CUDA driver interface where there is no driver; tests/gpu has the others."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import machine
from penstock.runtimes.cuda import Device, NoDevice, padded
from penstock.runtimes.tensorrt import NotInstalled, here, library


@pytest.mark.skipif(machine.gpu()["gpu"] is not None, reason="this machine has a GPU")
def test_without_a_driver_there_is_no_device():
    with pytest.raises(NoDevice, match="NVIDIA driver"):
        Device()


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_a_library_that_is_missing_says_how_to_get_it():
    """And a machine without it is described all the same."""
    with pytest.raises(NotInstalled, match=r"cannot be imported here .*; install tensorrt"):
        library("tensorrt")

    assert here("tensorrt").version is None


@given(st.integers(1, 9), st.integers(0, 12))
def test_padding_repeats_the_last_input_and_drops_none(n: int, least: int):
    x = np.arange(n, dtype=np.float32)[:, None]

    made = padded(x, least)

    assert len(made) == max(n, least)
    assert made[:n].tolist() == x.tolist()
    assert set(made[n:].ravel()) <= {x[-1, 0]}
