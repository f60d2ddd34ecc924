"""Laws of rehearsed faults: who is hit, how often, and that the same request is always hit."""

from __future__ import annotations

import asyncio
import time

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
    live = Fault(kind=kind, on="live").concerns(mirrored=mirrored, arm=arm)

    assert live == (arm == "challenger" and not mirrored)
    assert Fault(kind=kind, on="live").concerns(mirrored=False, arm="challenger")
    assert Fault(kind=kind, on="all").concerns(mirrored=mirrored, arm=arm)


def test_three_in_ten_requests_fail_always_the_same():
    """The share of failures is 30 %, and the request id alone decides."""
    fault = Fault(kind="errors", on="all")
    first = [fails(fault, name) for name in IDS[:600]]

    assert first == [fails(fault, name) for name in IDS[:600]]
    assert 0.23 < sum(first) / 600 < 0.37


def test_six_in_ten_answers_are_wrong_by_one_class():
    """A wrong answer is the next class; the others are untouched."""
    fault = Fault(kind="accuracy", on="all")
    told = [fault.label(9, 10, name) for name in IDS]

    assert set(told) == {9, 0}
    assert 0.57 < told.count(0) / len(IDS) < 0.63


def test_a_slow_request_leaves_the_others_alone():
    """Ten slow requests wait together, not one after another."""

    async def ten() -> float:
        begun = time.perf_counter()
        await asyncio.gather(*[Fault(kind="latency", on="all").before(i) for i in IDS[:10]])
        return time.perf_counter() - begun

    assert 0.11 < asyncio.run(ten()) < 0.6


@pytest.mark.parametrize(("kind", "on"), [("noise", "all"), ("errors", "some")])
def test_an_unknown_fault_is_refused(kind: str, on: str):
    """A fault that nobody wrote is a mistake, not silence."""
    with pytest.raises(ValueError, match="choose one of"):
        Fault(kind=kind, on=on)
