"""Laws of the confidence sequence and the fixed-sample intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.distance import EQUAL_DB, snr_db
from penstock.stats.intervals import wilson
from penstock.stats.sequential import log_evidence, share

COUNTS = st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.floats(0.001, 0.2))
def test_bounds_hold_the_estimate(counts: tuple[int, int], alpha: float):
    """The estimate lies between the bounds, and they lie between 0 and 1."""
    found = share(*counts, alpha=alpha)

    assert 0 <= found.low <= (found.estimate or 0.0) <= found.high <= 1 or found.trials == 0


@given(COUNTS)
def test_a_stricter_level_is_wider(counts: tuple[int, int]):
    """A smaller alpha never narrows the interval."""
    loose, strict = share(*counts, alpha=0.1), share(*counts, alpha=0.001)

    assert strict.low <= loose.low + 1e-9
    assert strict.high >= loose.high - 1e-9


@given(COUNTS)
def test_bounds_are_where_the_evidence_reaches_the_limit(counts: tuple[int, int]):
    """Outside the interval the evidence against a share is at least 1 / alpha."""
    found = share(*counts, alpha=0.05)

    if found.high < 1:
        assert log_evidence(*counts, found.high + 1e-9) >= -np.log(0.05) - 1e-6
    if found.low > 0:
        assert log_evidence(*counts, found.low - 1e-9) >= -np.log(0.05) - 1e-6


@pytest.mark.parametrize("p", [0.01, 0.05, 0.3])
def test_the_true_share_is_covered_at_every_look_at_once(p: float):
    """However often one looks, the true share ever leaves in at most alpha of runs."""
    rng = np.random.default_rng(11)
    alpha, runs, n = 0.05, 2000, 400
    events = np.cumsum(rng.random((runs, n)) < p, axis=1)

    limit = -np.log(alpha)
    missed = sum(
        any(log_evidence(int(row[i]), i + 1, p) > limit for i in range(0, n, 7)) for row in events
    )

    assert missed / runs <= alpha


def test_the_mean_of_shares_is_covered_at_every_look_at_once():
    """Of users, each with a share of failed requests, the mean ever leaves in at most alpha."""
    rng, runs, missed = np.random.default_rng(12), 400, 0
    for _ in range(runs):
        total_n = np.cumsum(rng.binomial(10, rng.beta(0.2, 3.8, 400)) / 10)
        found = [share(float(total_n[n - 1]), n, alpha=0.05) for n in range(20, 401, 20)]
        missed += any(not f.low <= 0.05 <= f.high for f in found)

    assert missed / runs <= 0.05


@given(COUNTS)
def test_wilson_holds_the_share(counts: tuple[int, int]):
    """The Wilson interval holds the observed share and nothing outside 0 to 1."""
    low, high = wilson(*counts, alpha=0.05)

    assert 0 <= low <= high <= 1
    if counts[1]:
        assert low - 1e-12 <= counts[0] / counts[1] <= high + 1e-12


def test_equal_outputs_are_capped_and_broken_ones_are_no_evidence():
    """Bit-equal outputs give the cap; a NaN gives its negative."""
    x = np.array([1.0, 2.0])

    assert snr_db(x, x) == EQUAL_DB
    assert snr_db(x, np.array([1.0, np.nan])) == -EQUAL_DB
