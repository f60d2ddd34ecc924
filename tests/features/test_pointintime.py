"""Laws of the point-in-time join: what an independent oracle says, on thousands of cases."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.features.pointintime import MISSING, Asked, Held, newest_known
from tests.features.oracle import Row, known

STRIDES = (1, 10**12, 2**41 + 1)
"""Ticks between instants. With the second, entity and time fit 63 bits only in coarser ticks; with
the third, only as ranks."""

moments = st.integers(0, 8)
rows = st.lists(st.tuples(st.integers(0, 3), moments, moments), max_size=24)
labels = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 9)), max_size=12)


def joined(
    held: list[tuple[int, int, int]],
    asked: list[tuple[int, int]],
    *,
    ttl: int | None,
    bitemporal: bool,
    stride: int = 1,
    at_once: int = 100,
) -> list[int]:
    """Return the positions that the join finds; times are multiplied by the stride."""
    code, event, created = (np.array([r[i] for r in held], np.int64) for i in range(3))
    codes, times = (np.array([r[i] for r in asked], np.int64) for i in range(2))
    big = 1 if stride == 1 else 2**20 + 1
    found = newest_known(
        Asked(np.where(codes < 0, MISSING, codes * big), times * stride),
        Held(code * big, event * stride, created * stride if bitemporal else None),
        ttl=None if ttl is None else ttl * stride,
        at_once=at_once,
    )
    return found.tolist()


def told(
    held: list[tuple[int, int, int]],
    asked: list[tuple[int, int]],
    *,
    ttl: int | None,
    bitemporal: bool,
) -> list[int]:
    """Return the positions that the oracle finds."""
    plain = [Row(key, event, created, i) for i, (key, event, created) in enumerate(held)]
    found = [
        known(plain, None if key < 0 else key, at, ttl=ttl, bitemporal=bitemporal)
        for key, at in asked
    ]
    return [MISSING if row is None else row.value for row in found]


@settings(max_examples=2000)
@given(
    rows,
    labels,
    st.none() | st.integers(0, 4),
    st.booleans(),
    st.sampled_from(STRIDES),
    st.sampled_from([1, 5, 100]),
)
def test_it_finds_what_the_oracle_finds(
    held: list[tuple[int, int, int]],
    asked: list[tuple[int, int]],
    ttl: int | None,
    bitemporal: bool,
    stride: int,
    at_once: int,
):
    """Ties, late rows, expired rows, unknown and null keys, equal rows: the same row every time."""
    got = joined(held, asked, ttl=ttl, bitemporal=bitemporal, stride=stride, at_once=at_once)

    assert got == told(held, asked, ttl=ttl, bitemporal=bitemporal)


@settings(max_examples=200)
@given(rows, labels, st.randoms())
def test_labels_may_come_in_any_order(
    held: list[tuple[int, int, int]], asked: list[tuple[int, int]], random: Random
):
    """Each label's answer is its own: their order and their number change nothing."""
    shuffled = list(range(len(asked)))
    random.shuffle(shuffled)

    got = joined(held, [asked[i] for i in shuffled], ttl=2, bitemporal=True)
    straight = joined(held, asked, ttl=2, bitemporal=True)

    assert got == [straight[i] for i in shuffled]


@given(rows, labels, st.lists(st.tuples(st.integers(0, 3), moments, moments), max_size=5))
def test_what_became_known_later_changes_nothing(
    held: list[tuple[int, int, int]],
    asked: list[tuple[int, int]],
    late: list[tuple[int, int, int]],
):
    """Rows that happened or became known after every label leave all answers as they were."""
    after = 10
    future = [(key, event, created + after) for key, event, created in late]
    future += [(key, event + after, created) for key, event, created in late]

    with_future = joined(held + future, asked, ttl=3, bitemporal=True)

    assert with_future == joined(held, asked, ttl=3, bitemporal=True)


@pytest.mark.parametrize(
    ("event", "created", "at", "seen"),
    [
        (100, 100, 100, True),
        (101, 101, 100, False),
        (90, 101, 100, False),
        (90, 100, 100, True),
        (70, 70, 100, True),
        (69, 69, 100, False),
    ],
    ids=["at once", "one later", "known one later", "known at once", "ttl to the tick", "expired"],
)
def test_the_edges_are_inclusive(event: int, created: int, at: int, seen: bool):
    """At exactly the label's time, and at exactly the end of its life, a value is still seen."""
    held = Held(np.array([0]), np.array([event]), np.array([created]))

    found = newest_known(Asked(np.array([0]), np.array([at])), held, ttl=30)

    assert found.tolist() == [0 if seen else MISSING]


def test_a_late_row_of_an_older_event_does_not_hide_a_newer_one():
    """What arrives last is not what happened last."""
    held = Held(np.array([0, 0]), np.array([50, 10]), np.array([55, 90]))

    found = newest_known(Asked(np.array([0]), np.array([100])), held, ttl=None)

    assert found.tolist() == [0]
