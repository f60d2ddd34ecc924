"""Laws of the rows kept back: the newest, or where there is none, a fair tenth of all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.holdback import split

START = datetime(2026, 1, 5, tzinfo=UTC)


def rows(minutes: list[int]) -> pa.Table:
    """Return rows at some minutes, numbered as they came."""
    times = [START + timedelta(minutes=m) for m in minutes]
    stamp = pa.timestamp("us", tz="UTC")
    return pa.table({"n": range(len(minutes)), "event_timestamp": pa.array(times, stamp)})


@given(st.lists(st.integers(0, 500), min_size=10, max_size=120))
def test_every_row_is_on_one_side_and_order_stays(minutes: list[int]):
    """A tenth validates, whatever the times are."""
    learn, validate = split(rows(minutes))
    one, other = learn["n"].to_pylist(), validate["n"].to_pylist()

    assert sorted(one + other) == list(range(len(minutes)))
    assert one == sorted(one)
    assert other == sorted(other)
    assert len(other) == len(minutes) // 10


@given(st.lists(st.integers(0, 500), min_size=10, max_size=120).filter(lambda m: len(set(m)) > 1))
def test_none_that_validates_is_older_than_one_that_is_learned_from(minutes: list[int]):
    """Also where rows do not come in the order of their times."""
    learn, validate = split(rows(minutes))

    newest_learned = max(learn["event_timestamp"].to_pylist())
    assert min(validate["event_timestamp"].to_pylist()) >= newest_learned


@given(st.integers(10, 500))
def test_rows_of_one_time_validate_evenly(n: int):
    """Not those with the last keys."""
    validate = np.array(split(rows([7] * n))[1]["n"].to_pylist())

    gaps = np.diff(np.concatenate([[-1], validate]))
    assert gaps.max() - gaps.min() <= 1
    assert validate[-1] == n - 1


def test_too_few_rows_and_rows_without_a_time_are_refused():
    """Nothing to validate on is no validation."""
    with pytest.raises(ValueError, match="9 training rows leave none"):
        split(rows(list(range(9))))
    with pytest.raises(ValueError, match="no 'event_timestamp'; they have n"):
        split(rows(list(range(20))).select(["n"]))
