"""Laws of latency as a share of slow users."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.exceedance import log_evidence, slower

COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, COUNTS, st.floats(0.001, 0.2))
def test_bounds_hold_the_estimate_and_swap(one, other, alpha: float):
    """The estimate lies between the bounds; with the arms swapped all change their sign."""
    found = slower(*one, usual_over=other[0], usual_n=other[1], alpha=alpha)
    swapped = slower(*other, usual_over=one[0], usual_n=one[1], alpha=alpha)

    assert found.estimate is not None
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert swapped.low == pytest.approx(-found.high)


@given(COUNTS, COUNTS)
def test_one_more_slow_user_never_looks_better(one, other):
    """A slow user more of the challenger raises both bounds."""
    over, n = one
    told = {"usual_over": other[0], "usual_n": other[1], "alpha": 0.01}
    if over < n:
        assert slower(over + 1, n, **told).low >= slower(over, n, **told).low - 1e-9
        assert slower(over + 1, n, **told).high >= slower(over, n, **told).high - 1e-9


def test_no_user_says_nothing():
    """Without a user of either arm everything is possible."""
    found = slower(0, 0, usual_over=1, usual_n=10, alpha=0.1)

    assert (found.estimate, found.low, found.high) == (None, -1.0, 1.0)
    assert str(found) == "no users in an arm"
    assert log_evidence(0, 0, usual_over=1, usual_n=10) == -math.inf


def crossed(rng: np.random.Generator, chance: float, users: int) -> int | None:
    """Return how many of the challenger's users it takes, one in ten, to see more slow ones."""
    slow_n = np.cumsum(rng.random(users) < chance)
    usual_n = np.cumsum(rng.random((users, 9)) < 0.01, axis=0).sum(axis=1)
    for n in range(20, users, 20):
        if log_evidence(
            int(slow_n[n - 1]), n, usual_over=int(usual_n[n - 1]), usual_n=9 * n
        ) >= -math.log(0.01):
            return n
    return None


def test_equally_slow_is_no_alarm_and_slower_is_one():
    """Of one in a hundred slow, at most alpha false alarms; five times is found soon."""
    rng = np.random.default_rng(3)

    assert np.mean([crossed(rng, 0.01, 3000) is not None for _ in range(200)]) <= 0.01 + 0.015
    found = [crossed(rng, 0.05, 3000) for _ in range(50)]
    assert None not in found
    assert np.median([n for n in found if n is not None]) <= 260
