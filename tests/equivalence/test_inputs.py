"""Laws of rare, jittered and out-of-distribution inputs: real ones at heart, categories whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from penstock.equivalence import inputs
from tests import bundles

MATRIX = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float32, (n, 2), elements=st.floats(-1e3, 1e3, width=32)),
        arrays.arrays(np.float32, (n, 2), elements=st.integers(0, 6)),
    )
)
"""Numbers, and categories."""


def packed(drawn: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return columns: two of numbers that no rounding makes whole, two of categories."""
    numbers, categories = drawn
    return np.concatenate([np.floor(numbers) + np.float32(0.25), categories], axis=1)


@given(MATRIX)
def test_categories_stay_categories_that_were_there(drawn: tuple[np.ndarray, np.ndarray]):
    """In every kind each column of them holds the same values, as often; jitter leaves them."""
    sample = packed(drawn)

    assert inputs.categories(sample).tolist() == [False, False, True, True]
    for made in inputs.beyond(sample).values():
        np.testing.assert_array_equal(np.sort(made[:, 2:], axis=0), np.sort(sample[:, 2:], axis=0))
    np.testing.assert_array_equal(inputs.jittered(sample)[:, 2:], sample[:, 2:])


@given(MATRIX)
def test_each_kind_is_what_it_is_called(drawn: tuple[np.ndarray, np.ndarray]):
    """Shuffled columns, ten times the size, ends of the range, nothing."""
    sample = packed(drawn)

    made = {name: found[:, :2] for name, found in inputs.beyond(sample).items()}

    numbers = sample[:, :2]
    np.testing.assert_array_equal(np.sort(made["shuffled"], axis=0), np.sort(numbers, axis=0))
    np.testing.assert_array_equal(made["scaled"], numbers * 10)
    ends = (made["saturated"] == numbers.min(axis=0)) | (made["saturated"] == numbers.max(axis=0))
    assert ends.all()
    assert not made["zeros"].any()
    assert all(found.dtype == np.float32 for found in made.values())


@given(MATRIX)
def test_the_same_inputs_make_the_same_inputs(drawn: tuple[np.ndarray, np.ndarray]):
    """There is no chance in a verdict."""
    sample = packed(drawn)
    one, other = inputs.beyond(sample), inputs.beyond(sample.copy())

    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(inputs.jittered(sample), inputs.jittered(sample.copy()))


@given(MATRIX)
def test_jitter_moves_a_number_by_a_ten_thousandth_of_itself_at_most(
    drawn: tuple[np.ndarray, np.ndarray],
):
    """Up to the rounding of float32."""
    sample = packed(drawn)

    moved = np.abs(inputs.jittered(sample) - sample)

    assert (moved <= inputs.JITTER * np.abs(sample) * 1.01).all()
    assert moved[:, :2].any()


def test_pixels_are_no_categories():
    """Though grey values are whole numbers: a picture may be anything."""
    pictures = np.ones((4, 1, 8, 8), np.float32)

    assert not inputs.categories(pictures).any()
    assert inputs.beyond(pictures)["scaled"].shape == pictures.shape


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_rare_ones_are_the_furthest_out(n: int, least: int):
    """Two in a hundred, and at least so many where there are as many."""
    distance = np.random.default_rng(n).permutation(n).astype(float)

    found = inputs.rare(distance, least=least)

    assert found.sum() == min(n, max(least, -(-n * 2 // 100)))
    if not found.all():
        assert distance[found].min() > distance[~found].max()


def test_one_column_far_out_is_enough():
    """However ordinary the others are, and whatever the size of their numbers."""
    rng = np.random.default_rng(1)
    sample = (rng.normal(size=(500, 3)) * [1, 1000, 0.01]).astype(np.float32)
    sample[77] = [0, 0, 0.2]

    found = inputs.Centre(sample).distance(sample)

    assert found.argmax() == 77
    assert found[77] == pytest.approx(20, rel=0.2)


def test_a_value_in_a_column_that_never_varies_is_furthest_of_all():
    """And one that differs where half are equal is measured by the mean."""
    sample = np.zeros((100, 2), np.float32)
    sample[:20, 1] = 3
    centre = inputs.Centre(sample)
    other = np.array([[0, 3], [1, 0], [0, 0]], np.float32)

    found = centre.distance(other)

    assert found.tolist() == [pytest.approx(3 / (0.6 * 1.2533)), np.inf, 0]


def test_what_is_missing_lies_nowhere():
    """A missing value is no distance, and does not hide the others of its row."""
    sample = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    sample[3], sample[4, 2] = np.nan, np.nan
    sample[4, 0] = 90
    sample[:, 1] = np.nan

    found = inputs.Centre(sample).distance(sample)

    assert np.isfinite(found).all()
    assert (found[3], found.argmax()) == (0, 4)


def test_real_images_are_rare_in_order():
    """The same ones whatever the batch."""
    images = bundles.images(200)
    centre = inputs.Centre(images)

    whole = centre.distance(images)

    parts = np.concatenate([centre.distance(part) for part in np.split(images, 8)])
    np.testing.assert_array_equal(whole, parts)
