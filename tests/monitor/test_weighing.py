"""Traps 3 and 4 of the checklist: a threshold on a statistic says nothing of few rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.monitor.weighing import weighed
from penstock.stats.drift import Distance, ks_distance, psi_distance
from penstock.verdict import Outcome


@pytest.mark.parametrize(("n", "outcome"), [(100, "inconclusive"), (365, "inconclusive"),
                                            (380, "pass"), (2_000, "pass")])  # fmt: skip
def test_ks_passes_nothing_below_370_rows_on_each_side(n: int, outcome: str):
    """The statistic itself may be far below 0.1: of so few rows that is luck."""
    values = np.linspace(0, 1, n)

    check = weighed("ks", ks_distance(values, values), 0.1)

    assert (check.value, str(check.outcome)) == (0.0, outcome)


@pytest.mark.parametrize(("n", "outcome"), [(50, "inconclusive"), (160, "inconclusive"),
                                            (200, "pass")])  # fmt: skip
def test_psi_of_ten_bins_passes_nothing_of_few_rows(n: int, outcome: str):
    """Without any drift it is about 9 (1/n + 1/m) on average, and twice that often enough."""
    counts = np.full(10, n // 10)

    check = weighed("psi", psi_distance(counts, counts), 0.2)

    assert str(check.outcome) == outcome


@given(
    value=st.floats(0, 1),
    noise=st.floats(0, 1),
    limit=st.floats(0.01, 0.9),
    stands=st.booleans(),
    slack=st.floats(0, 0.1),
)
def test_a_pass_and_a_fail_are_earned(
    value: float, noise: float, limit: float, stands: bool, slack: float
):
    """Neither is given where chance alone reaches the limit; strictly above it is a fail."""
    distance = Distance(value=value, noise=noise, p=0.5)

    outcome = weighed("any", distance, limit, stands=stands, slack=slack).outcome

    assert (outcome is Outcome.PASS) == (noise < limit and value + slack <= limit)
    assert (outcome is Outcome.FAIL) == (noise < limit < value and stands)
