"""Laws of comparing with a profile: what it says is what the training rows themselves would say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.register.profile import column
from penstock.stats import drift
from penstock.stats.profiles import Compared, compared


def chunked(values: object, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def beside(train: pa.ChunkedArray, now: pa.ChunkedArray, *, units: int | None = None) -> Compared:
    found = compared(column(train), now, units=units or len(now))
    assert found is not None
    return found


@given(seed=st.integers(0, 999), n=st.integers(5, 900), m=st.integers(1, 900),
       shift=st.floats(-2, 2), ties=st.booleans())  # fmt: skip
def test_a_profile_is_as_good_as_the_rows(seed: int, n: int, m: int, shift: float, ties: bool):
    """PSI and JS are those of the rows in the same bins; KS is at most the slack too small."""
    rng = np.random.default_rng(seed)
    train, now = rng.normal(0, 1, n), rng.normal(shift, 1, m)
    if ties:
        train, now = train.round(), now.round()
    edges = drift.edges(train)
    pair = drift.counts(train, edges), drift.counts(now, edges)
    held = (pair[0] > 0) | (pair[1] > 0)

    found = beside(chunked(train), chunked(now))

    assert found.psi.value == pytest.approx(drift.psi_distance(*(c[held] for c in pair)).value)
    assert found.js.value == pytest.approx(drift.js_distance(*(c[held] for c in pair)).value)
    assert found.ks is not None
    exact = drift.ks_distance(train, now)
    assert found.ks.value <= exact.value + 1e-9
    assert exact.value <= found.ks.value + found.slack + 1e-9
    assert found.ks.noise == pytest.approx(exact.noise)
    assert found.slack < 1 / 200


def test_the_same_rows_are_not_apart():
    values = chunked(np.random.default_rng(1).normal(size=3_000))

    found = beside(values, values)

    assert found.ks is not None
    assert (found.psi.value, found.ks.value, found.missing.value) == (
        pytest.approx(0, abs=1e-6), 0, 0,
    )  # fmt: skip


def test_few_whole_numbers_are_compared_one_by_one():
    """What training never had is a bin of its own, and so is what is missing."""
    train = chunked([0, 1, 2, None] * 100, pa.int64())
    now = chunked([0, 1, 7, None, 2.5, 8] * 100, pa.float64())

    found = beside(train, now)

    assert found.ks is None
    assert found.bars["rows"] == pytest.approx([1 / 6, 1 / 6, 0, 3 / 6, 1 / 6])
    assert found.bars["reference"] == pytest.approx([1 / 4, 1 / 4, 1 / 4, 0, 1 / 4])
    assert found.psi.value > 0.5


@pytest.mark.parametrize("gone", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_missing(gone: float | None):
    train = chunked(np.linspace(0, 1, 500))
    now = chunked([*np.linspace(0, 1, 300).tolist(), *[gone] * 100])

    found = beside(train, now)

    assert found.missing.value == pytest.approx(0.25)
    assert found.bars["rows"][-1] == pytest.approx(0.25)
    assert found.ks is not None
    assert found.ks.value < 0.02


def test_values_of_one_list_are_one_example():
    """An image has many pixels and is one image: chance is that of images."""
    rng = np.random.default_rng(2)
    train, now = (chunked(list(rng.normal(size=(n, 64)))) for n in (400, 300))
    alone = beside(chunked(rng.normal(size=400)), chunked(rng.normal(size=300)))

    found = beside(train, now)

    assert found.ks is not None
    assert alone.ks is not None
    assert found.ks.noise == pytest.approx(alone.ks.noise)
    assert found.psi.noise == pytest.approx(alone.psi.noise)


def test_examples_of_few_users_are_few():
    """The same shares from fewer who are independent: the distance stays, chance grows."""
    rng = np.random.default_rng(3)
    train, now = chunked(rng.normal(size=2_000)), chunked(rng.normal(size=2_000))

    many, few = beside(train, now), beside(train, now, units=50)

    assert few.psi.value == pytest.approx(many.psi.value)
    assert few.psi.noise > 10 * many.psi.noise
    assert few.ks is not None
    assert few.ks.noise > 0.1


@pytest.mark.parametrize("now", [chunked([], pa.float64()), chunked(["a", "b"])])
def test_what_cannot_be_compared_is_none(now: pa.ChunkedArray):
    assert compared(column(chunked([1.0, 2.0, 3.0])), now, units=2) is None


def test_a_column_without_a_number_in_training_is_none():
    empty = column(chunked([None, None], pa.float64()))

    assert compared(empty, chunked([1.0]), units=1) is None
