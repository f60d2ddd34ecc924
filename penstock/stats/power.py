"""How many users a comparison needs, and what so many could show."""

from __future__ import annotations

import math
from statistics import NormalDist


def users(deviation: float, difference: float, *, alpha: float, beta: float) -> int:
    """Return the users that each of two equal arms needs: 2 (z_α/2 + z_β)² σ² / δ², rounded up.

    Args:
        deviation: Standard deviation between users, in the measure's units.
        difference: The smallest one to be found, in the same units; its sign does not count.
        alpha: Chance that a difference is found where there is none, two-sided.
        beta: Chance that one of this size is not found.

    Whether 5.1 % click instead of 5 %, at 5 % and 20 %:

    >>> users(math.sqrt(0.05 * 0.95), 0.001, alpha=0.05, beta=0.2)
    745644

    Raises:
        ValueError: A number is not above 0, or a chance is no share.
    """
    if not (deviation > 0 and difference):
        raise ValueError(f"deviation {deviation}, difference {difference}; neither may be 0.")
    return math.ceil(2 * (_reach(alpha, beta) * deviation / difference) ** 2)


def detectable(deviation: float, n: int, *, alpha: float, beta: float) -> float:
    """Return the smallest difference that ``n`` users in each arm can show.

    >>> round(detectable(math.sqrt(0.05 * 0.95), 25_000, alpha=0.05, beta=0.2), 4)
    0.0055

    Raises:
        ValueError: There is no user, or a number is out of its range.
    """
    if not (deviation > 0 and n > 0):
        raise ValueError(f"deviation {deviation} and {n} users; give more than 0 of both.")
    return _reach(alpha, beta) * deviation * math.sqrt(2 / n)


def users_of_shares(usual: float, other: float, *, alpha: float, beta: float) -> int:
    """Return the users that each arm needs to tell two shares apart, each with its own variance.

    >>> users_of_shares(0.05, 0.051, alpha=0.05, beta=0.2)
    752700

    Raises:
        ValueError: The shares are equal or none, or a chance is no share.
    """
    if usual == other or not (0 < usual < 1 and 0 < other < 1):
        raise ValueError(f"shares {usual} and {other}; give two different ones between 0 and 1.")
    variance = (usual * (1 - usual) + other * (1 - other)) / 2
    return users(math.sqrt(variance), other - usual, alpha=alpha, beta=beta)


def _reach(alpha: float, beta: float) -> float:
    """Return by how many standard errors the difference must stand out."""
    if not (0 < alpha < 1 and 0 < beta < 1):
        raise ValueError(f"alpha {alpha} and beta {beta}; both lie between 0 and 1.")
    return NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(1 - beta)
