"""Laws of fairness: no number of equal groups looks unequal, and no unequal one looks equal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from penstock.stats.fairness import (
    Group,
    adverse_impact_ratio,
    equal_opportunity_difference,
    groups,
)
from penstock.stats.scored import Scored

RUNS = 1500
SLACK = 3 * np.sqrt(0.025 * 0.975 / RUNS)
COUNTS = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def of(*counts: tuple[int, int]) -> list[Group]:
    """Return groups in which so many of so many are favoured, of all and of the deserving."""
    return [Group(name=str(i), decided=c, deserving=c) for i, c in enumerate(counts)]


def drawn(shares: list[float], n: int, seed: int) -> list[list[Group]]:
    """Return groups drawn with these true shares."""
    rows = np.random.default_rng(seed).binomial(n, shares, (RUNS, len(shares)))
    return [of(*((int(k), n) for k in row)) for row in rows]


def outcomes(one: tuple[float, int], other: tuple[float, int]) -> Iterator[tuple[int, int, float]]:
    """Yield the counts of two groups of these shares and rows, and their chance; not the rarest."""
    chances = [binom.pmf(np.arange(n + 1), n, share) for share, n in (one, other)]
    for i, j in product(*(np.flatnonzero(chance > 1e-5) for chance in chances)):
        yield int(i), int(j), chances[0][i] * chances[1][j]


@given(st.lists(COUNTS, min_size=2, max_size=6), st.floats(0.001, 0.2))
def test_the_values_are_least_over_greatest_and_greatest_less_least(
    counts: list[tuple[int, int]], alpha: float
):
    """Between their bounds, which are as far as such numbers go."""
    shares = [k / n for k, n in counts]
    ratio = adverse_impact_ratio(of(*counts))
    gap = equal_opportunity_difference(of(*counts))

    if max(shares) == 0:
        assert ratio is None
    else:
        assert ratio is not None
        low, high = ratio.at(alpha)
        assert ratio.value == min(shares) / max(shares)
        assert 0 <= low <= ratio.value + 1e-9
        assert ratio.value - 1e-9 <= high <= 1
    assert gap is not None
    low, high = gap.at(alpha)
    assert gap.value == max(shares) - min(shares)
    assert 0 <= low <= gap.value + 1e-9
    assert gap.value - 1e-9 <= high <= 1 + 1e-9


@pytest.mark.parametrize("shares", [[0.64, 0.8], [0.64, 0.8, 0.8, 0.8], [0.64, 0.7, 0.75, 0.8]])
def test_an_inequality_of_exactly_the_limit_seldom_passes_and_seldom_fails(shares: list[float]):
    """Either in 2.5 % at most, however many groups there are."""
    samples = drawn(shares, 500, seed=3)
    ratios = [found for s in samples if (found := adverse_impact_ratio(s))]
    gaps = [found for s in samples if (found := equal_opportunity_difference(s))]

    assert np.mean([found.low >= 0.8 for found in ratios]) <= 0.025 + SLACK
    assert np.mean([found.high < 0.8 for found in ratios]) <= 0.025 + SLACK
    assert np.mean([found.high <= 0.16 for found in gaps]) <= 0.025 + SLACK
    assert np.mean([found.low > 0.16 for found in gaps]) <= 0.025 + SLACK


@pytest.mark.parametrize(("n", "m"), [(300, 30), (30, 300), (40, 40)])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_groups_of_unequal_size_at_the_limit_seldom_pass_and_seldom_fail(
    n: int, m: int, share: float
):
    """By every outcome there is, without chance: 2.5 %, and what the method gives away of it.

    With Wilson's interval of each, 300 beside 30 at 0.95 passed in 4.1 %.
    """
    ends = np.zeros(4)
    for one, other, chance in outcomes((0.8 * share, n), (share, m)):
        ratio = adverse_impact_ratio(of((one, n), (other, m)))
        assert ratio is not None
        ends[:2] += chance * (ratio.low >= 0.8), chance * (ratio.high < 0.8)
    for one, other, chance in outcomes((share - 0.15, n), (share, m)):
        gap = equal_opportunity_difference(of((one, n), (other, m)))
        assert gap is not None
        ends[2:] += chance * (gap.high <= 0.15), chance * (gap.low > 0.15)

    assert (ends <= 0.025).all()


def test_many_equal_groups_are_not_called_unequal_for_what_chance_makes_of_them():
    """Of eight groups the least over the greatest is 0.86 by chance alone, and none of it fails."""
    ratios = [r for s in drawn([0.7] * 8, 150, seed=4) if (r := adverse_impact_ratio(s))]

    assert np.mean([r.value for r in ratios]) < 0.87
    assert np.mean([r.high < 0.95 for r in ratios]) <= 0.025


def test_equal_groups_of_many_rows_pass_and_very_unequal_ones_fail():
    """Nine times in ten: 2000 rows of each show a ratio of 0.8 and a difference of 0.1."""
    equal, unequal = drawn([0.8, 0.8, 0.8], 2000, seed=5), drawn([0.55, 0.8, 0.8], 2000, seed=6)

    assert np.mean([r.low >= 0.8 for s in equal if (r := adverse_impact_ratio(s))]) >= 0.9
    assert np.mean([g.high <= 0.1 for s in equal if (g := equal_opportunity_difference(s))]) >= 0.9
    assert np.mean([r.high < 0.8 for s in unequal if (r := adverse_impact_ratio(s))]) >= 0.9
    assert np.mean([g.low > 0.1 for s in unequal if (g := equal_opportunity_difference(s))]) >= 0.9


def test_nothing_is_compared_with_no_group():
    """One group, groups without rows, and shares of which none is above 0."""
    assert adverse_impact_ratio(of((3, 4))) is None
    assert adverse_impact_ratio(of((3, 4), (0, 0))) is None
    assert adverse_impact_ratio(of((0, 4), (0, 5))) is None
    assert equal_opportunity_difference(of((3, 4), (0, 0))) is None


def test_a_group_that_gets_nothing_has_a_ratio_of_nothing():
    """However the other fares."""
    found = adverse_impact_ratio(of((0, 50), (30, 50)))

    assert found is not None
    assert (found.value, found.low) == (0, 0)
    assert found.high < 0.3


def test_who_is_favoured_and_who_deserves_it_is_counted_from_decisions_and_labels():
    """The favourable decision is class 0 here: to lend."""
    scored = Scored(
        labels_n=np.array([0, 0, 1, 0, 1]),
        logits_nk=np.eye(2)[[0, 1, 0, 0, 1]] * 5,
        threshold=0.5,
    )
    rows = {"a": np.array([True, True, True, False, False]), "b": np.arange(5) > 2}

    assert groups(scored, rows, favourable=0) == [
        Group(name="a", decided=(2, 3), deserving=(1, 2)),
        Group(name="b", decided=(1, 2), deserving=(1, 1)),
    ]
