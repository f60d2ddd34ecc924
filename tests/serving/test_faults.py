"""Laws of rehearsed faults: who is hit, how often, and that the same request is always hit."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.faults import KINDS, Fault, RehearsedError
from tests.strategies import words

IDS = [f"request-{n}" for n in range(5000)]


def fails(fault: Fault, request_id: str) -> bool:
    """Return whether a fault fails a request."""
    try:
        asyncio.run(fault.before(request_id))
    except RehearsedError:
        return True
    return False


@given(st.booleans(), st.none() | words, st.sampled_from(KINDS))
def test_a_live_fault_hits_the_challengers_users_alone(mirrored: bool, arm: str | None, kind: str):
    """Copies, and whoever the champion answers, never meet a live fault; all means all."""
    live = Fault.of(kind, on="live").concerns(mirrored=mirrored, arm=arm)

    assert live == (arm == "challenger" and not mirrored)
    assert Fault.of(kind, on="live").concerns(mirrored=False, arm="challenger")
    assert Fault.of(kind, on="all").concerns(mirrored=mirrored, arm=arm)


def test_three_in_ten_requests_fail_always_the_same():
    """The share of failures is 30 %, and the request id alone decides."""
    fault = Fault.of("errors", on="all")
    first = [fails(fault, name) for name in IDS[:600]]

    assert first == [fails(fault, name) for name in IDS[:600]]
    assert 0.23 < sum(first) / 600 < 0.37


def test_six_in_ten_answers_are_wrong_by_one_class():
    """A wrong answer is the next class; the others are untouched."""
    fault = Fault.of("accuracy", on="all")
    told = [fault.label(9, 10, name) for name in IDS]

    assert set(told) == {9, 0}
    assert 0.57 < told.count(0) / len(IDS) < 0.63


def test_a_slow_request_leaves_the_others_alone():
    """Ten slow requests wait together, not one after another."""

    async def ten() -> float:
        begun = time.perf_counter()
        await asyncio.gather(*[Fault.of("latency", on="all").before(i) for i in IDS[:10]])
        return time.perf_counter() - begun

    assert 0.11 < asyncio.run(ten()) < 0.6


@pytest.mark.parametrize(("kind", "on"), [("noise", "all"), ("errors", "some")])
def test_an_unknown_fault_is_refused(kind: str, on: str):
    """A fault that nobody wrote is a mistake, not silence."""
    with pytest.raises(ValueError, match="choose one of"):
        Fault.of(kind, on=on)


@pytest.mark.parametrize(
    "text", ["errors:share=2", "errors:share=", "latency:where=mobile", "errors:often=1", "errors:"]
)
def test_an_option_that_says_nothing_is_refused(text: str):
    """What is misspelt would rehearse nothing; an empty list of options is none."""
    if text == "errors:":
        assert Fault.of(text, on="all") == Fault.of("errors", on="all")
        return
    with pytest.raises(ValueError, match=r"says nothing of a fault|share 2"):
        Fault.of(text, on="all")


def test_only_a_busy_server_is_broken():
    """With no more than so many requests in a second, nothing happens; then all of the share do."""
    now = [0.0]
    fault = replace(Fault.of("errors:share=1,above=10", on="all"), clock=lambda: now[0])

    def failures(rate: int) -> int:
        seen = 0
        for _ in range(3 * rate):
            now[0] += 1 / rate
            seen += fails(fault, "x")
        return seen

    assert failures(8) == 0
    assert failures(20) >= 40
    now[0] += 5
    assert failures(8) == 0


def test_only_a_slice_is_slow():
    """The first row decides; who lacks the feature is not concerned."""
    fault = Fault.of("latency:where=mobile=1,delay_ms=50", on="all")

    def concerned(columns: dict[str, Any] | None) -> bool:
        return fault.concerns(mirrored=False, arm=None, columns=columns)

    assert fault.delay_s == 0.05
    assert concerned({"mobile": np.array([1, 0])})
    assert not concerned({"mobile": np.array([0, 1])})
    assert not concerned({"other": np.array([1])})
    assert not concerned(None)
