"""Do two models put the same things first? Rank correlations, and intervals over users."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic with a fixed-sample interval: it holds at the one look it was made for."""

    estimate: float | None
    low: float
    high: float


def spearman(one_n: Floats, other_n: Floats) -> float | None:
    """Return the rank correlation of two models' scores, shape [n]; None where one never varies.

    It is not a share of pairs: 0.92 of normal scores means that about 12.3 % of pairs are put the
    other way round (:func:`implied_discordance`), not 8 %.
    """
    one_n, other_n = _ranked(one_n), _ranked(other_n)
    spread = math.sqrt(float(one_n @ one_n) * float(other_n @ other_n))
    return float(one_n @ other_n) / spread if spread else None


def kendall(one_n: Floats, other_n: Floats) -> float | None:
    """Return Kendall's τ-b of two models' scores, shape [n]; None where one never varies."""
    _same(one_n, other_n)
    if len(one_n) < 2:
        return None
    found: Any = stats.kendalltau(one_n, other_n)
    tau = float(found.statistic)
    return None if math.isnan(tau) else tau


def discordance(one_n: Floats, other_n: Floats) -> float | None:
    """Return the share of pairs that the models put the other way round: (1 - τ) / 2.

    Pairs that are equal for one of them are left out of it; None where one never varies.
    """
    tau = kendall(one_n, other_n)
    return None if tau is None else (1 - tau) / 2


def implied_discordance(spearman: float) -> float:
    """Return the share of discordant pairs of normal scores that have this rank correlation.

    >>> round(implied_discordance(0.92), 3)
    0.123
    """
    pearson = 2 * math.sin(math.pi * spearman / 6)
    return (1 - 2 / math.pi * math.asin(pearson)) / 2


def overlap(one_n: Floats, other_n: Floats, groups_n: Ints, *, top: int) -> float | None:
    """Return how much of the best ``top`` rows two models share, as a mean over groups.

    Args:
        one_n, other_n: Scores, shape [n]; more is better. Of equal ones the first comes first.
        groups_n: What is ranked together, such as the request, shape [n].
        top: Rows that count. Groups that have no more than that say nothing and are left out.

    None where no group has more.

    >>> overlap(np.array([3., 2, 1]), np.array([3., 1, 2]), np.array([0, 0, 0]), top=2)
    0.5
    """
    _same(one_n, other_n)
    _same(one_n, groups_n)
    _, group_n, size_g = np.unique(groups_n, return_inverse=True, return_counts=True)
    both_n = _best(one_n, group_n, size_g, top) & _best(other_n, group_n, size_g, top)
    shared_g = np.bincount(group_n, weights=both_n, minlength=len(size_g))
    counts_g = size_g > top
    return float((shared_g[counts_g] / top).mean()) if counts_g.any() else None


def bootstrap(
    users_n: NDArray[np.generic],
    statistic: Callable[[Ints], float | None],
    rng: np.random.Generator,
    *,
    alpha: float,
    resamples: int = 400,
) -> Interval:
    """Return a statistic with its percentile interval, users drawn anew with all their rows.

    Args:
        users_n: Whose row each is, shape [n].
        statistic: Takes the numbers of rows, shape [any], some of them several times.
        alpha: Chance that ``low`` is above the truth; the same again for ``high`` below it.
        resamples: Raised to ``2 / alpha`` where it is less; with fewer there is no such quantile.

    The interval holds at one look. To look again and again, see
    :func:`penstock.stats.looks.doubling`.

    Raises:
        ValueError: ``alpha`` is no share.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it must lie between 0 and 1.")
    estimate = statistic(np.arange(len(users_n)))
    if estimate is None:
        return Interval(estimate=None, low=-math.inf, high=math.inf)
    _, user_n, rows_u = np.unique(users_n, return_inverse=True, return_counts=True)
    order_n, ends_u = np.argsort(user_n, kind="stable"), np.cumsum(rows_u)
    drawn: list[float] = []
    for _ in range(max(resamples, math.ceil(2 / alpha))):
        picked_u = rng.integers(0, len(rows_u), len(rows_u))
        found = statistic(order_n[_spans(ends_u[picked_u] - rows_u[picked_u], rows_u[picked_u])])
        if found is not None:
            drawn.append(found)
    low, high = _quantiles(np.asarray(drawn), alpha)
    return Interval(estimate=estimate, low=min(low, estimate), high=max(high, estimate))


def _spans(starts_u: Ints, lengths_u: Ints) -> Ints:
    """Return start, start + 1, … of each span, one after the other."""
    ends_u = np.cumsum(lengths_u)
    return np.arange(ends_u[-1]) + np.repeat(starts_u - ends_u + lengths_u, lengths_u)


def _quantiles(drawn_b: Floats, alpha: float) -> tuple[float, float]:
    if len(drawn_b) < 1 / alpha:
        return -math.inf, math.inf
    low, high = np.quantile(drawn_b, [alpha, 1 - alpha])
    return float(low), float(high)


def _best(score_n: Floats, group_n: Ints, size_g: Ints, top: int) -> NDArray[np.bool_]:
    """Return which rows are among the first ``top`` of their group."""
    order_n = np.lexsort((-score_n, group_n))
    place_n = np.empty(len(score_n), np.int64)
    place_n[order_n] = np.arange(len(score_n)) - np.repeat(np.cumsum(size_g) - size_g, size_g)
    return place_n < top


def _ranked(score_n: Floats) -> Floats:
    ranks_n = stats.rankdata(score_n)
    return ranks_n - ranks_n.mean() if len(ranks_n) else ranks_n


def _same(one_n: NDArray[np.generic], other_n: NDArray[np.generic]) -> None:
    if one_n.shape != other_n.shape:
        raise ValueError(
            f"{one_n.shape} and {other_n.shape} differ in shape; pair the answers by request."
        )
