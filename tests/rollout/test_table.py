"""Laws of the traffic table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rollout.table import BUCKETS, TrafficTable, bucket_of, buckets_for

users = st.text(min_size=0, max_size=30)


def table(buckets: int, *, sequence: int = 1) -> TrafficTable:
    """Return a table that sends so many buckets to slot b."""
    challenger = "b" if buckets else None
    return TrafficTable(
        sequence=sequence,
        salt="s",
        champion="a",
        challenger=challenger,
        buckets=buckets,
        mirror=None,
    )


@given(users, users, st.integers(0, BUCKETS), st.integers(0, BUCKETS))
def test_a_growing_share_moves_nobody_back(salt: str, user: str, one: int, other: int):
    """Whoever the smaller share gave to the challenger, the larger one does too."""
    small, large = sorted((one, other))
    bucket = bucket_of(salt, user)

    if table(small).slot_for(bucket) == "b":
        assert table(large).slot_for(bucket) == "b"


@given(users, users)
def test_zero_is_nobody_and_all_is_everybody(salt: str, user: str):
    """At weight zero no user is on the challenger, at a hundred percent each is."""
    bucket = bucket_of(salt, user)

    assert table(0).slot_for(bucket) == "a"
    assert table(buckets_for(100)).slot_for(bucket) == "b"


def test_shares_are_near_the_plan_and_salts_reshuffle():
    """Ten percent of buckets is about ten percent of users, and another salt is another tenth."""
    chosen = [
        {n for n in range(20_000) if bucket_of(salt, f"u-{n}") < buckets_for(10)}
        for salt in ("one", "two")
    ]

    assert all(abs(len(c) / 20_000 - 6 / 64) < 0.01 for c in chosen)
    assert len(chosen[0] & chosen[1]) / 20_000 < 0.02


@given(st.floats(0.01, 100))
def test_any_share_is_at_least_one_bucket_and_never_more_than_asked(percent: float):
    """Rounding never gives the challenger more users than the step says, but for the smallest."""
    buckets = buckets_for(percent)

    assert buckets >= 1
    assert buckets == 1 or buckets / BUCKETS <= percent / 100


@given(st.integers(0, BUCKETS), st.integers(0, 1000))
def test_a_table_reads_back(buckets: int, sequence: int):
    """What is written is what is read."""
    made = table(buckets, sequence=sequence)

    assert TrafficTable.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    "wrong",
    [
        {"champion": "c"},
        {"challenger": "a"},
        {"mirror": "a"},
        {"buckets": 65},
        {"buckets": -1},
        {"challenger": None, "buckets": 3},
        {"sequence": -1},
        {"unknown": 1},
    ],
)
def test_a_table_that_makes_no_sense_is_refused(wrong: dict[str, object]):
    """A slot that does not exist, two roles for one, buckets for nobody: refused at the door."""
    with pytest.raises(ValueError, match=r"."):
        TrafficTable.from_dict({**table(6).to_dict(), **wrong})
