"""Are more users slow than usual? Latency as a share: who met an answer slower than a limit.

A limit at the champion's p99, or so many times that, turns a question on a quantile into one on a
share, for which tests exist that one may look at all the time. Few servers make p99 differ by
themselves, so hold the share against a margin, not against equality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penstock.stats import eprocess
from penstock.stats.sequential import share


@dataclass(frozen=True, kw_only=True)
class Excess:
    """Share of slow users or answers of the challenger, less that of the champion."""

    estimate: float | None
    """None where an arm has no user."""

    low: float
    high: float

    def __str__(self) -> str:
        if self.estimate is None:
            return "no users in an arm"
        return f"{self.estimate:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


def slower(over: float, n: int, *, usual_over: float, usual_n: int, alpha: float) -> Excess:
    """Return by how much more users are slow with the challenger, at every look at once.

    Args:
        over: The challenger's users who met an answer slower than the limit, or the sum of each
            user's share of such answers: that does not grow with how long one looks.
        n: Its users.
        usual_over, usual_n: The same of the champion's, by the same limit.
        alpha: Chance that a bound is ever wrong, both together.

    Each share has a confidence sequence at half of ``alpha``, so the two need not be independent.

    >>> print(slower(60, 1_000, usual_over=90, usual_n=9_000, alpha=0.01))
    +5.0% [+1.8%, +9.1%]

    Raises:
        ValueError: A count does not lie between 0 and its users.
    """
    one, other = share(over, n, alpha=alpha / 2), share(usual_over, usual_n, alpha=alpha / 2)
    if one.estimate is None or other.estimate is None:
        return Excess(estimate=None, low=-1.0, high=1.0)
    return Excess(
        estimate=one.estimate - other.estimate, low=one.low - other.high, high=one.high - other.low
    )


def log_evidence(over: int, n: int, *, usual_over: int, usual_n: int) -> float:
    """Return the log of the evidence that slow users are more frequent with the challenger at all.

    It sees a p99 a tenth higher. :func:`slower` asks whether that matters.

    Args:
        over, n, usual_over, usual_n: As for :func:`slower`; the users' ratio must be as designed.
    """
    if not n or not usual_n:
        return -math.inf
    return eprocess.log_evidence(over, usual_over, share=n / (n + usual_n))
