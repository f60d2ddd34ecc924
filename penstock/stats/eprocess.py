"""Does the challenger fail more users than the champion? A test that may be looked at at any time.

Of users who met something rare (an error, a slow answer) each is the challenger's with a chance
that only the design and the ratio of the two rates decide: share · r / (share · r + 1 - share).
Nothing else is needed, neither how often errors come nor how many users there are, and an incident
that hits both arms alike moves nothing. Count users, not requests: requests of one user fail
together, users do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EFFECTS = np.geomspace(1.1, 20.0, 24)
"""How many times the tested ratio the true one may be: what the evidence is spread over."""

LOG_WEIGHTS = np.log(EFFECTS**-0.5 / (EFFECTS**-0.5).sum())
"""Of each effect; small ones are met more often and are harder to see."""

FARTHEST = 1e6
"""Ratios beyond this, either way, are not told apart."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Rate of the challenger over the champion's, with a confidence sequence."""

    estimate: float | None
    """None without an event; infinite where the champion had none."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.estimate is None:
            return "no events"
        return f"×{self.estimate:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(challenger: int, champion: int, *, share: float, alpha: float) -> Ratio:
    """Return how many times the champion's rate the challenger's is.

    Args:
        challenger: Its users who met the event.
        champion: The same of the champion's.
        share: The challenger's share of all users, as designed, between 0 and 1.
        alpha: Chance that ``low`` is ever above the true ratio, however often one looks; the same
            again for ``high`` below it. Both hold with ``1 - 2 alpha``.

    Bounds are where the evidence of :func:`log_evidence` reaches ``1 / alpha``.

    >>> print(ratio(30, 100, share=0.1, alpha=0.01))
    ×2.70 [1.24, 5.35]

    Raises:
        ValueError: A count is negative, or a share or level is not between 0 and 1.
    """
    _refuse(challenger, champion, share, alpha)
    limit = -math.log(alpha)

    low = _lowest(challenger, champion, share, limit)
    # The champion's rate over the challenger's is the same question the other way round.
    other = _lowest(champion, challenger, 1 - share, limit)
    estimate = _estimate(challenger, champion, share)
    return Ratio(estimate=estimate, low=low, high=1 / other if other else math.inf)


def log_evidence(challenger: int, champion: int, *, share: float, ratio: float = 1.0) -> float:
    """Return the log of the evidence that the ratio of rates is above ``ratio``.

    The evidence is a mixture of likelihood ratios. Where the true ratio is at most ``ratio`` it
    ever reaches ``1 / alpha`` with chance at most ``alpha`` (Ville's inequality), as its mean stays
    at most 1. It falls as ``ratio`` rises.

    Source: Robbins (1970), Annals of Mathematical Statistics 41, 1397–1409; the conditional split
    is that of Przyborowski and Wilenski (1940), Biometrika 31, 313–323.

    Raises:
        ValueError: As :func:`ratio`.
    """
    _refuse(challenger, champion, share, 0.5)
    odds = share / (1 - share) * ratio
    # log of (q'/q)^a ((1 - q')/(1 - q))^b where q = odds / (1 + odds) and q' has odds · effect.
    lost_k = np.log1p(odds * EFFECTS) - math.log1p(odds)
    gained_k = np.log(EFFECTS) - lost_k
    terms_k = LOG_WEIGHTS + challenger * gained_k - champion * lost_k
    most = float(terms_k.max())
    return most + math.log(float(np.exp(terms_k - most).sum()))


def _lowest(challenger: int, champion: int, share: float, limit: float) -> float:
    """Return the largest ratio against which the evidence reaches the limit; 0 for none."""
    inside, outside = -math.log(FARTHEST), math.log(FARTHEST)
    if log_evidence(challenger, champion, share=share, ratio=1 / FARTHEST) < limit:
        return 0.0
    for _ in range(40):
        middle = (inside + outside) / 2
        if log_evidence(challenger, champion, share=share, ratio=math.exp(middle)) < limit:
            outside = middle
        else:
            inside = middle
    return math.exp(inside)


def _estimate(challenger: int, champion: int, share: float) -> float | None:
    if not champion:
        return math.inf if challenger else None
    return challenger / share / (champion / (1 - share))


def _refuse(challenger: int, champion: int, share: float, alpha: float) -> None:
    if challenger < 0 or champion < 0:
        raise ValueError(f"{challenger} and {champion} events; a count is 0 or more.")
    if not (0 < share < 1 and 0 < alpha < 1):
        raise ValueError(
            f"share {share} and alpha {alpha}; both lie between 0 and 1. Where one arm has all the "
            "users, compare with the champion's users of the step before."
        )
