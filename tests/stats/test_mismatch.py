"""Laws of the sample-ratio test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.mismatch import split

COUNTS = st.integers(0, 2000)


def ever(rng: np.random.Generator, true: float, users: int, *, every: int = 50) -> int | None:
    """Return after how many users of 10 % by design the split is found wrong."""
    challenger_n = np.cumsum(rng.random(users) < true)
    for n in range(every, users + 1, every):
        challenger = int(challenger_n[n - 1])
        if split(challenger, n - challenger, share=0.1, alpha=0.002).failed:
            return n
    return None


def test_a_right_split_is_seldom_called_wrong():
    """Looked at every fifty of 10,000 users, at most alpha of right splits fail."""
    rng = np.random.default_rng(2)
    found = [ever(rng, 0.1, 10_000) is not None for _ in range(400)]

    assert sum(found) <= 3  # of 400 at 0.2 %, four or more come once in 115 times


@pytest.mark.parametrize(("true", "within"), [(0.09, 20_000), (0.08, 6_000)])
def test_a_wrong_split_is_found(true: float, within: int):
    """9 % for 10 % is found in the median within 20,000 users, 8 % within 6,000."""
    rng = np.random.default_rng(4)
    found = [ever(rng, true, 60_000, every=200) or math.inf for _ in range(60)]

    assert np.median(found) <= within


@given(COUNTS, COUNTS, st.floats(0.01, 0.99))
def test_arms_may_be_swapped(one: int, other: int, share: float):
    """It is the same split from the champion's side."""
    found = split(one, other, share=share, alpha=0.01)
    swapped = split(other, one, share=1 - share, alpha=0.01)

    assert found.log_evidence == pytest.approx(swapped.log_evidence, abs=1e-6)


@given(st.integers(0, 200), st.floats(0.05, 0.95))
def test_the_evidence_has_mean_one(n: int, share: float):
    """Over all splits of so many users by the design, the evidence is 1 in the mean."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(a + 1) - math.lgamma(n - a + 1)
        + a * math.log(share) + (n - a) * math.log1p(-share)
        + split(a, n - a, share=share, alpha=0.01).log_evidence
        for a in range(n + 1)
    ]  # fmt: skip

    assert sum(map(math.exp, logs)) == pytest.approx(1)


def test_nobody_is_no_mismatch():
    """Without a user there is nothing to say."""
    found = split(0, 0, share=0.1, alpha=0.01)

    assert (found.failed, found.estimate, found.log_evidence) == (False, None, 0.0)


@pytest.mark.parametrize("wrong", [(-1, 1, 0.1, 0.1), (1, 1, 0.0, 0.1), (1, 1, 0.1, 1.0)])
def test_what_cannot_be_is_refused(wrong: tuple[int, int, float, float]):
    """A negative count, or a share or level that is none."""
    with pytest.raises(ValueError, match=r"count|between"):
        split(wrong[0], wrong[1], share=wrong[2], alpha=wrong[3])
