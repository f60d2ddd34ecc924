"""Laws of looks at doubling samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.looks import doubling


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.floats(0.001, 0.5))
def test_a_look_uses_at_least_half_of_what_is_there(n: int, least: int, alpha: float):
    """It never uses more users than there are, nor fewer than half; below the least, none."""
    look = doubling(n, least=least, alpha=alpha)

    assert (look is None) == (n < least)
    if look:
        assert n / 2 < look.n <= n
        assert look == doubling(look.n, least=least, alpha=alpha)


@given(st.integers(1, 100), st.floats(0.001, 0.5))
def test_all_looks_together_spend_alpha_at_most(least: int, alpha: float):
    """However many looks there are, their levels add up to no more than alpha."""
    looks = [doubling(least << k, least=least, alpha=alpha) for k in range(60)]

    assert sum(look.alpha for look in looks if look) <= alpha


def test_a_look_needs_a_user():
    """A least of 0 would be a look at nothing."""
    with pytest.raises(ValueError, match="least"):
        doubling(10, least=0, alpha=0.1)
