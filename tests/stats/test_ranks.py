"""Laws of rank agreement between two models."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock.stats.ranks import (
    bootstrap,
    discordance,
    implied_discordance,
    kendall,
    overlap,
    spearman,
)

SCORES = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        *(arrays(np.float64, n, elements=st.floats(-9, 9, width=16)) for _ in range(2))
    )
)


def normal_pair(spearman_wanted: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return normal scores of a rank correlation."""
    rng = np.random.default_rng(9)
    pearson = 2 * math.sin(math.pi * spearman_wanted / 6)
    one_n = rng.normal(size=n)
    return one_n, pearson * one_n + math.sqrt(1 - pearson**2) * rng.normal(size=n)


def test_a_rank_correlation_of_92_percent_is_12_percent_of_pairs_the_other_way_round():
    """Not 8 %, as is often said."""
    one_n, other_n = normal_pair(0.92, 20_000)

    assert spearman(one_n, other_n) == pytest.approx(0.92, abs=0.003)
    assert discordance(one_n, other_n) == pytest.approx(0.123, abs=0.003)
    assert implied_discordance(0.92) == pytest.approx(0.1227, abs=0.0002)


def test_implied_discordance_at_its_ends():
    """Alike is none, unrelated a half, opposite all."""
    assert [implied_discordance(r) for r in (1.0, 0.0, -1.0)] == pytest.approx(
        [0, 0.5, 1], abs=1e-7
    )


@given(SCORES)
def test_agreement_is_symmetric_and_knows_only_order(scores):
    """Either way round it is the same, and so after any change that keeps the order."""
    one_n, other_n = scores
    for measure in (spearman, kendall):
        found = measure(one_n, other_n)
        assert found == pytest.approx(measure(other_n, one_n))
        assert found == pytest.approx(measure(3 * one_n + 5, other_n))
        if found is not None:
            assert -1 - 1e-9 <= found <= 1 + 1e-9
            assert measure(-one_n, other_n) == pytest.approx(-found)


@given(SCORES)
def test_discordance_is_what_counting_pairs_gives(scores):
    """Without ties it is the share of pairs that are put the other way round."""
    one_n, other_n = scores
    if len(set(one_n)) == len(set(other_n)) == len(one_n):
        pairs = list(combinations(range(len(one_n)), 2))
        turned = sum((one_n[i] - one_n[j]) * (other_n[i] - other_n[j]) < 0 for i, j in pairs)
        assert discordance(one_n, other_n) == pytest.approx(turned / len(pairs))


def test_what_never_varies_has_no_order():
    """A model that says one thing to all agrees with nobody, and does not disagree."""
    flat, rising = np.ones(5), np.arange(5.0)

    assert spearman(flat, rising) is None
    assert kendall(flat, rising) is None
    assert discordance(flat, rising) is None
    assert kendall(np.ones(1), np.ones(1)) is None
    assert spearman(np.empty(0), np.empty(0)) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_overlap_is_what_sets_give(seed: int, top: int):
    """The mean over groups of the shared part of both first rows; small groups say nothing."""
    rng = np.random.default_rng(seed)
    groups_n = rng.integers(0, 5, 40)
    one_n, other_n = rng.permutation(40).astype(float), rng.permutation(40).astype(float)
    expected = []
    for g in set(groups_n.tolist()):
        rows = np.flatnonzero(groups_n == g)
        if len(rows) > top:
            best = [set(rows[np.argsort(-s[rows])[:top]]) for s in (one_n, other_n)]
            expected.append(len(best[0] & best[1]) / top)

    found = overlap(one_n, other_n, groups_n, top=top)
    assert found == (pytest.approx(np.mean(expected)) if expected else None)


def _mean(value_n: np.ndarray, rows_k: np.ndarray) -> float:
    return float(value_n[rows_k].mean())


def test_the_bootstrap_knows_users():
    """Rows of a user are alike: drawn by row, the interval is far too narrow."""
    rng = np.random.default_rng(11)
    covered, widths = [], []
    for _ in range(120):
        level_u = rng.normal(0, 1, 40)
        users_n = np.repeat(np.arange(40), 20)
        mean = partial(_mean, level_u[users_n] + 0.2 * rng.normal(size=800))
        by_user, by_row = (
            bootstrap(who_n, mean, rng, alpha=0.05, resamples=200)
            for who_n in (users_n, np.arange(800))
        )
        covered.append((by_user.low <= 0 <= by_user.high, by_row.low <= 0 <= by_row.high))
        widths.append((by_user.high - by_user.low) / (by_row.high - by_row.low))

    by_user, by_row = np.mean(covered, axis=0)
    assert by_user >= 0.83  # nominal 0.90; percentiles of 40 users are a little too narrow
    assert by_row < 0.5
    assert np.median(widths) > 3


def test_the_bootstrap_is_the_same_with_the_same_chance():
    """Seeded alike, it gives the same interval, with the estimate inside."""
    one_n, other_n = normal_pair(0.8, 200)
    found = [
        bootstrap(
            np.arange(200) // 4, lambda r: spearman(one_n[r], other_n[r]),
            np.random.default_rng(1), alpha=0.05,
        )
        for _ in range(2)
    ]  # fmt: skip

    assert found[0] == found[1]
    assert found[0].estimate is not None
    assert found[0].low <= found[0].estimate <= found[0].high


def test_nothing_to_estimate_has_no_bounds():
    """A statistic that is None has an infinite interval."""
    found = bootstrap(np.arange(3), lambda _: None, np.random.default_rng(1), alpha=0.05)

    assert (found.estimate, found.low, found.high) == (None, -math.inf, math.inf)
    with pytest.raises(ValueError, match="alpha"):
        bootstrap(np.arange(3), lambda _: 1.0, np.random.default_rng(1), alpha=0.0)
