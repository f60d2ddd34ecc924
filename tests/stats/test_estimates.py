"""Laws of estimates: strictness widens, Holm's correction is his, and no harmless one fails."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.estimates import Estimate, holm


def breaks_at(p: float, alpha: float) -> bool:
    """Return whether something of this p-value is broken at a level."""
    return p <= alpha


@given(st.lists(st.floats(0, 0.2), max_size=12), st.floats(0.001, 0.2))
def test_holms_correction_rejects_what_his_ordered_levels_reject(values: list[float], alpha: float):
    """The least p-value is held against alpha / m, the next against alpha / (m - 1), and so on."""
    expected = [False] * len(values)
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[i] > alpha / (len(values) - rank):
            break
        expected[i] = True

    assert holm([partial(breaks_at, p) for p in values], alpha=alpha) == expected


def test_of_many_harmless_ones_any_fails_in_at_most_the_level_of_one():
    """And without the correction, of twenty it were one in three."""
    values_rm = np.random.default_rng(4).random((4000, 20))
    wrong = [any(holm([partial(breaks_at, p) for p in row], alpha=0.025)) for row in values_rm]

    assert np.mean(wrong) <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 4000)
    assert np.mean((values_rm <= 0.025).any(axis=1)) > 0.3


def test_no_bound_that_is_infinite_is_written():
    """JSON has no word for it."""
    found = Estimate(value=0.5, n=3, at=lambda _: (-math.inf, 0.7)).to_dict()

    assert found == {"value": 0.5, "low": None, "high": 0.7, "n": 3}
