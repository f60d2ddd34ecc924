"""Laws of utilisation: patterns are told apart as stated, and evidence that is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.utilisation import TARGETS, Bound, bound, cost_per_thousand


@pytest.mark.parametrize(
    ("busy", "bandwidth", "told"),
    [
        (90, 60, Bound.COMPUTE),
        (86, 69, Bound.COMPUTE),
        (70, 90, Bound.MEMORY),
        (50, 86, Bound.MEMORY),
        (85, 86, Bound.MEMORY),
        (30, 20, Bound.INPUT),
        (49, 49, Bound.INPUT),
        (90, 90, Bound.UNCLEAR),
        (70, 60, Bound.UNCLEAR),
        (0, 0, Bound.INPUT),
    ],
)
def test_steady_patterns_are_told_apart(busy: float, bandwidth: float, told: Bound):
    """Above 85 and below 70 is compute, 50 to 85 and above 85 memory, below 50 both input."""
    assert bound([busy] * 20, [bandwidth] * 20) is told


def test_bursts_and_gaps_wait_for_batches():
    """The mean of a spiky pattern means nothing; its shape does."""
    assert bound([95, 5] * 20, [40, 2] * 20) is Bound.BATCH


samples = st.floats(0, 100)


@given(st.lists(st.tuples(samples, samples), min_size=1, max_size=30), st.randoms())
def test_the_order_of_samples_decides_nothing(pairs: list[tuple[float, float]], random):
    """Shuffled samples are the same evidence."""
    shuffled = pairs.copy()
    random.shuffle(shuffled)

    assert bound(*zip(*sorted(pairs), strict=True)) is bound(*zip(*sorted(shuffled), strict=True))


@pytest.mark.parametrize(
    ("busy", "bandwidth"), [([], []), ([50.0], []), ([101.0], [1.0]), ([float("nan")], [1.0])]
)
def test_no_evidence_is_refused(busy: list[float], bandwidth: list[float]):
    """No samples, samples without their partner, and what is no percentage say nothing."""
    with pytest.raises(ValueError, match="as many of both are wanted, in percent"):
        bound(busy, bandwidth)


def test_a_thousand_answers_cost_what_they_cost():
    """3 an hour and 50,000 answers an hour are 0.06 a thousand."""
    assert cost_per_thousand(3.0, 50_000) == pytest.approx(0.06)
    with pytest.raises(ValueError, match="more than 0 answers"):
        cost_per_thousand(3.0, 0)


def test_online_serving_keeps_room_for_peaks():
    """At the median an online accelerator is half to seven tenths busy: 30 to 50 % are free."""
    low, high = TARGETS["online"]

    assert (100 - high, 100 - low) == (30, 50)
    assert (TARGETS["batch training"][0], TARGETS["batch inference"][0]) == (80, 85)
