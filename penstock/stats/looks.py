"""Repeated looks with an interval made for one: when, and with how much of alpha."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Look:
    """What may be looked at now."""

    n: int
    """The first so many users; who came later waits for the next look."""

    alpha: float


def doubling(n: int, *, least: int, alpha: float) -> Look | None:
    """Return the newest look of those at ``least`` users, twice as many, four times, and so on.

    Look k = 1, 2, … has ``alpha / (k (k + 1))``, which add up to ``alpha``: a fixed-sample interval
    of each look holds at all of them together. None with fewer than ``least`` users.

    >>> doubling(1_000, least=200, alpha=0.03)
    Look(n=800, alpha=0.0025)

    Raises:
        ValueError: ``least`` is not above 0.
    """
    if least < 1:
        raise ValueError(f"least is {least}; a look needs a user.")
    k = (n // least).bit_length()
    return Look(n=least << (k - 1), alpha=alpha / (k * (k + 1))) if k else None
