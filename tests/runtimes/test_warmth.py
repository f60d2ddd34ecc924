"""Laws of the warm-up rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtimes.warmth import WINDOW, settled_at

latencies = st.lists(st.floats(1e-6, 10), min_size=2 * WINDOW, max_size=200)


@given(latencies, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_does_not_matter(taken: list[float], factor: float):
    """Seconds or milliseconds, latency settles at the same answer."""
    assert settled_at(taken) == settled_at([factor * t for t in taken])


@given(st.integers(0, 60), st.floats(1.2, 100))
def test_a_slow_start_is_left_once_most_of_a_window_is_fast(slow: int, factor: float):
    """The first window with more fast answers than slow ones is where it settled."""
    taken = [factor] * slow + [1.0] * 140

    assert settled_at(taken) == max(0, slow - WINDOW // 2 + 1)


@given(latencies)
def test_where_it_settled_the_rule_holds_and_nowhere_before(taken: list[float]):
    """The answer is the first index whose window is near the second half's median."""
    steady = np.median(taken[len(taken) // 2 :])
    near = [
        abs(np.median(taken[i : i + WINDOW]) - steady) <= 0.05 * steady
        for i in range(len(taken) - WINDOW + 1)
    ]

    assert settled_at(taken) == (near.index(True) if True in near else None)


@given(st.lists(st.floats(0, 10), max_size=2 * WINDOW - 1))
def test_too_few_answers_tell_nothing(taken: list[float]):
    assert settled_at(taken) is None


def test_latency_of_two_kinds_has_not_settled():
    """A steady latency that no window is near is none."""
    assert settled_at([1.0] * 30 + [3.0] * 7 + [1.0] * 15 + [3.0] * 8) is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_what_no_clock_gives_is_refused(wrong: float):
    with pytest.raises(ValueError, match="negative or not finite"):
        settled_at([1.0] * 60 + [wrong])
