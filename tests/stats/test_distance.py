"""Laws of the error metrics: symmetric, floored, and never a pass for what is not a number."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.stats.distance import (
    EQUAL_DB,
    Noise,
    least_cosine,
    mean_abs_error,
    relative_error,
    snr_db,
)

NUMBERS = st.floats(-1e6, 1e6)
PAIR = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, (n, 3), elements=NUMBERS),
        arrays.arrays(np.float64, (n, 3), elements=NUMBERS),
    )
)


@given(PAIR)
def test_errors_are_symmetric_and_not_negative(pair: tuple[np.ndarray, np.ndarray]):
    """Neither side is the truth for an error; a relative one is at most 2."""
    one, other = pair

    assert mean_abs_error(one, other) == mean_abs_error(other, one) >= 0
    assert relative_error(one, other, floor=1e-3) == relative_error(other, one, floor=1e-3)
    assert 0 <= relative_error(one, other, floor=1e-3) <= 2
    assert least_cosine(one, other) == pytest.approx(least_cosine(other, one), abs=1e-12)


@given(PAIR)
def test_what_is_equal_has_no_error(pair: tuple[np.ndarray, np.ndarray]):
    """To the last bit."""
    same = pair[0]

    assert mean_abs_error(same, same.copy()) == 0
    assert relative_error(same, same.copy(), floor=1e-3) == 0
    assert least_cosine(same, same.copy()) == pytest.approx(1)
    assert snr_db(same, same.copy()) == EQUAL_DB


def test_the_floor_keeps_numbers_near_nothing_from_deciding():
    """Twice nearly nothing is nearly nothing more."""
    one, other = np.array([[1e-9, 1.0]]), np.array([[2e-9, 1.0]])

    assert relative_error(one, other, floor=1e-12) == pytest.approx(0.5)
    assert relative_error(one, other, floor=1e-3) == pytest.approx(1e-6)
    with pytest.raises(ValueError, match="greater than 0"):
        relative_error(one, other, floor=0)


@given(PAIR, st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_one_number_that_is_none_is_the_worst_there_is(
    pair: tuple[np.ndarray, np.ndarray], value: float, left: bool
):
    """On either side, in every metric."""
    one, other = pair[0].copy(), pair[1].copy()
    (one if left else other)[0, 0] = value

    assert mean_abs_error(one, other) == math.inf
    assert relative_error(one, other, floor=1e-3) == math.inf
    assert least_cosine(one, other) == -1
    assert snr_db(one, other) == -EQUAL_DB


@given(PAIR, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(pair: tuple[np.ndarray, np.ndarray], order: Random):
    """Up to the last bits of sums."""
    one, other = pair
    rows = order.sample(range(len(one)), len(one))
    moved = one[rows], other[rows]

    assert relative_error(*moved, floor=1e-3) == relative_error(one, other, floor=1e-3)
    assert mean_abs_error(*moved) == pytest.approx(mean_abs_error(one, other))
    assert least_cosine(*moved) == pytest.approx(least_cosine(one, other))
    assert snr_db(*moved) == pytest.approx(snr_db(one, other), abs=1e-9)


@given(PAIR)
def test_a_cosine_lies_between_its_ends(pair: tuple[np.ndarray, np.ndarray]):
    """Whatever rounding does to it."""
    assert -1 <= least_cosine(*pair) <= 1


@given(PAIR, PAIR)
def test_noise_that_comes_in_parts_is_that_of_the_whole(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
):
    """So that a graph's tensors need not all be in memory."""
    noise = Noise()
    noise.add(*one)
    noise.add(*other)
    whole = [np.concatenate(parts) for parts in zip(one, other, strict=True)]

    assert noise.db == pytest.approx(snr_db(*whole), abs=1e-9)


def test_noise_beyond_all_numbers_is_no_evidence():
    """What cannot be counted is not equal."""
    assert snr_db(np.full(3, 1e200), np.full(3, -1e200)) == -EQUAL_DB


def test_rows_of_zeros_point_nowhere():
    """Two of them are alike, one of them is like nothing."""
    zero, other = np.zeros((1, 3)), np.ones((1, 3))

    assert least_cosine(zero, zero) == 1
    assert least_cosine(zero, other) == 0
    assert least_cosine(other, -other) == -1
