"""Difference of two means over users, with bounds that hold however often one looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of the challenger's users less that of the champion's."""

    estimate: float | None
    """None where an arm has no user."""

    low: float
    high: float
    n: int
    """Users of the challenger."""

    m: int
    """Users of the champion."""

    def __str__(self) -> str:
        if self.estimate is None:
            return f"no users in an arm ({self.n} and {self.m})"
        return f"{self.estimate:+.4g} [{self.low:.4g}, {self.high:.4g}]"


def difference(
    one_u: Floats,
    other_u: Floats,
    *,
    alpha: float,
    least: int,
    cap: float | None = None,
    deviation: float | None = None,
) -> Difference:
    """Return the challenger's mean less the champion's, with an asymptotic confidence sequence.

    Args:
        one_u: A number of each of the challenger's users, shape [n]. One per user: requests of one
            user are alike, and bounds made of them are far too narrow.
        other_u: The same of the champion's, shape [m].
        alpha: Chance that ``low`` is ever above the true difference; the same again for ``high``
            below it. Both hold with ``1 - 2 alpha``.
        least: Users that each arm needs; with fewer, nothing is known (bounds are infinite). The
            bounds are narrowest about there.
        cap: Numbers farther from 0 than this are cut off there. It must be fixed beforehand.
        deviation: Standard deviation between users, assumed beforehand. Give it where users come
            back and their numbers change between looks: it keeps the scale of the bounds fixed.

    The variance is the pooled one: that of an arm with few users and rare large numbers is too
    small as long as it has met none. Where the arms' own variances make the bounds wider, they do.
    Where nothing varies, ``deviation`` is taken for the truth, and without it nothing is known.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), Annals of Statistics 52,
    2613–2640: one-sided, with a normal mixture.

    Raises:
        ValueError: A number is not finite, or an argument is out of its range.
    """
    _refuse(alpha, least, cap, deviation)
    one_u, other_u = _cut(one_u, cap), _cut(other_u, cap)
    n, m = len(one_u), len(other_u)
    if not n or not m:
        return Difference(estimate=None, low=-math.inf, high=math.inf, n=n, m=m)
    estimate = float(one_u.mean() - other_u.mean())
    half = math.inf
    if min(n, m) >= max(2, least):
        assumed = deviation * deviation if deviation else 0.0
        variance = _variance(one_u, other_u) or assumed / _pairs(n, m)
        usual = (assumed or variance * _pairs(n, m)) / least
        half = math.sqrt(variance) * _errors(usual / variance, alpha) if variance else math.inf
    return Difference(estimate=estimate, low=estimate - half, high=estimate + half, n=n, m=m)


def _pairs(n: int, m: int) -> float:
    """Return 1 / (1/n + 1/m), that many users against a known mean tell as much."""
    return 1 / (1 / n + 1 / m)


def _variance(one_u: Floats, other_u: Floats) -> float:
    """Return the variance of the difference, from both arms together or from each: the larger."""
    n, m = len(one_u), len(other_u)
    one, other = float(one_u.var(ddof=1)), float(other_u.var(ddof=1))
    pooled = ((n - 1) * one + (m - 1) * other) / (n + m - 2)
    return max(pooled / _pairs(n, m), one / n + other / m)


def _errors(ripeness: float, alpha: float) -> float:
    """Return how many standard errors a one-sided bound is away.

    Args:
        ripeness: The variance where the bounds are to be narrowest, over the variance now.
    """
    spread = max(1.0, -2 * math.log(2 * alpha))
    ripe = ripeness * (spread + math.log(spread) + 1)
    return math.sqrt(2 * (1 + 1 / ripe) * math.log1p(math.sqrt(ripe + 1) / (2 * alpha)))


def _cut(value_u: Floats, cap: float | None) -> Floats:
    value_u = np.asarray(value_u, np.float64)
    if not np.isfinite(value_u).all():
        raise ValueError("a user's number is not finite; leave out users of whom nothing is known.")
    return value_u if cap is None else np.clip(value_u, -cap, cap)


def _refuse(alpha: float, least: int, cap: float | None, deviation: float | None) -> None:
    if not 0 < alpha < 1 or least < 1:
        raise ValueError(f"alpha {alpha} and least {least}; give a share, and 1 or more users.")
    for name, number in (("cap", cap), ("deviation", deviation)):
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}; give more than 0, or nothing.")
