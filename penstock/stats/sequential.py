"""Tests and intervals that stay valid however often one looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRIOR = 0.5
"""Both parameters of the Beta mixture (Jeffreys' prior)."""


@dataclass(frozen=True)
class Share:
    """Events among trials, with a confidence sequence for the true share."""

    events: float
    trials: int
    low: float
    high: float

    @property
    def estimate(self) -> float | None:
        """Events per trial, or None before the first trial."""
        return self.events / self.trials if self.trials else None

    def __str__(self) -> str:
        if self.estimate is None:
            return "no trials"
        return f"{self.estimate:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.trials}"


def share(events: float, trials: int, *, alpha: float) -> Share:
    """Return a share with its confidence sequence.

    The bounds hold at every number of trials at once with probability at least ``1 - alpha``, so a
    decision may look after every request. Trials must be independent given the true share, which
    holds for requests of different users and not for many requests of one.

    Args:
        events: Events, or a sum of one number from 0 to 1 of each trial: of users, the share of
            each one's requests. The bounds then hold for the mean, as a likelihood ratio is convex
            in each number.
        trials: How many there were.
        alpha: Chance that a bound is ever wrong.

    The sequence is where a Beta(½, ½) mixture of likelihood ratios stays below 1/alpha (Ville's
    inequality). Source: Robbins (1970), Annals of Mathematical Statistics 41, 1397–1409.

    >>> print(share(0, 200, alpha=0.01))
    0.0% [0.0%, 3.8%] of 200
    """
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events in {trials} trials; a count must lie between 0 and n.")
    if trials == 0:
        return Share(0, 0, 0.0, 1.0)
    centre = events / trials
    return Share(
        events,
        trials,
        _bound(events, trials, inside=centre, outside=0.0, alpha=alpha),
        _bound(events, trials, inside=centre, outside=1.0, alpha=alpha),
    )


def log_evidence(events: float, trials: int, p: float) -> float:
    """Return the log of the mixture likelihood ratio against a true share of ``p``."""
    return _mixture(events, trials) - _likelihood(events, trials, p)


def _mixture(events: float, trials: int) -> float:
    """Return the log of the likelihood, in the mean over the mixture."""
    return _log_beta(PRIOR + events, PRIOR + trials - events) - _log_beta(PRIOR, PRIOR)


def _likelihood(events: float, trials: int, p: float) -> float:
    """Return the log of the likelihood of a true share of ``p``."""
    misses = trials - events
    if (p <= 0 and events) or (p >= 1 and misses):
        return -math.inf
    return (events * math.log(p) if events else 0.0) + (misses * math.log1p(-p) if misses else 0.0)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _bound(events: float, trials: int, *, inside: float, outside: float, alpha: float) -> float:
    """Return the share between ``inside`` and ``outside`` at which the evidence reaches 1/alpha."""
    least = _mixture(events, trials) + math.log(alpha)
    if _likelihood(events, trials, outside) > least:
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        if _likelihood(events, trials, middle) > least:
            inside = middle
        else:
            outside = middle
    return outside
