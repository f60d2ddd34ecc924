"""Laws of slices: who is in by limits, by a list, by what is missing, and unknown columns."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.stats.slices import masks
from penstock.workload import Network, Slice

DIGITS = workloads.load_network("digits")
NETWORK = {f.name: getattr(DIGITS, f.name) for f in fields(Network)}
PLAIN = Network(**{**NETWORK, "label": "y", "classes": 3})
PROBABILITY = replace(PLAIN, classes=2, threshold=0.3, metric="auc")
VALUES = st.lists(st.none() | st.integers(-5, 5), min_size=1, max_size=20)


def held(values: list[object], part: Slice) -> list[bool]:
    """Return which values a slice holds."""
    rows = pa.table({"x": values, "y": [0] * len(values)})
    return masks(rows, replace(PROBABILITY, slices=(part,)))[part.name].tolist()


@given(VALUES, st.none() | st.integers(-5, 5), st.integers(-5, 5))
def test_a_slice_begins_at_its_low_limit_and_ends_before_its_high_one(
    values: list[int | None], low: int | None, high: int
):
    """What is missing lies between no limits."""
    assume(low is None or low < high)
    found = held([*values, 0], Slice(name="s", column="x", low=low, high=high))

    lowest = -99 if low is None else low
    assert found == [v is not None and lowest <= v < high for v in [*values, 0]]


@given(VALUES, st.sets(st.integers(-5, 5), min_size=1))
def test_a_slice_of_a_list_holds_what_is_on_it(values: list[int | None], among: set[int]):
    """And nothing that is missing."""
    found = held([*values, 0], Slice(name="s", column="x", among=tuple(among)))

    assert found == [v is not None and v in among for v in [*values, 0]]


def test_limits_and_a_list_join_with_and():
    """Both must hold."""
    part = Slice(name="s", column="x", low=2, among=(1, 3))

    assert held([1, 2, 3], part) == [False, False, True]


def test_a_slice_of_what_is_missing_holds_nulls_and_nan():
    """A float column may have either."""
    part = Slice(name="s", column="x", missing=True)

    assert held([1.0, None, float("nan")], part) == [False, True, True]


def test_words_can_be_on_a_list():
    """A column of text is as good as one of numbers."""
    assert held(["a", "b", None], Slice(name="s", column="x", among=("b",))) == [False, True, False]


def test_an_unknown_column_is_refused():
    """It names the slice, the column, and what there is."""
    rows = pa.table({"y": [0], "z": [1]})

    with pytest.raises(ValueError, match=r"slice 's' looks at column 'x'; the rows have y, z"):
        masks(rows, replace(PLAIN, slices=(Slice(name="s", column="x", low=0),)))


def test_each_class_is_a_slice_where_the_decision_is_a_class():
    """Of a probability none is: its metric needs both labels."""
    rows = pa.table({"y": [0, 2, 2], "x": [1, 2, 3]})

    found = masks(rows, PLAIN)

    assert list(found) == ["class 0", "class 1", "class 2"]
    np.testing.assert_array_equal(found["class 2"], [False, True, True])
    assert masks(rows, PROBABILITY) == {}
