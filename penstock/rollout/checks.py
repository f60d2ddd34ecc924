"""Questions on shares of users, each with the numbers that people and plots are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penstock.rollout.evidence import Answers, Met
from penstock.stats import eprocess, exceedance
from penstock.stats.sequential import share
from penstock.verdict import Check, Outcome

NOTHING = "nothing measured yet"
FEW = 20
"""Failing users of both arms, below whom a ratio of them is not asked to be known."""

SPENT = "; nobody is left to compare with, the steps before proved it"


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How sure a check must be."""

    alpha: float
    """To fail: what a check has of the policy's, which all checks of a step share."""

    beta: float
    """To pass: the policy's, for each check, as all must pass."""

    least: int
    """Users that each arm needs to pass."""

    spent: bool = False
    """Nobody is left with the champion, and as much time was looked at as there was of it: bounds
    get no narrower. What is not worse for sure passes then, as the steps before have proved it."""

    def split(self, parts: int) -> Levels:
        """Return the levels of each of several checks that fail as one."""
        return replace(self, alpha=self.alpha / max(1, parts))


@dataclass(frozen=True, kw_only=True)
class Found:
    """One question and its answer, before it is a check of the verdict."""

    name: str
    role: str
    """``process``, ``errors``, ``latency``, ``split``, ``primary``, ``guardrail``, ``shadow``."""

    outcome: Outcome
    reason: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    side: str = "below"
    """Of the limit on which the number must stay: ``below`` or ``above``."""

    unit: str = "share"
    users: tuple[int, int] | None = None
    """Of the challenger and of the champion."""

    needed: int | None = None
    """Users of the challenger without whom it cannot pass."""

    alpha: float | None = None

    def check(self) -> Check:
        """Return it for the verdict."""
        return Check(
            name=self.name,
            outcome=self.outcome,
            reason=self.reason,
            value=_finite(self.estimate),
            limit=_finite(self.limit),
        )

    def row(self) -> Mapping[str, Any]:
        """Return it for people and plots; what is not known, or infinite, is None."""
        users = None if self.users is None else dict(zip(ARMS, self.users, strict=True))
        return {
            "name": self.name,
            "role": self.role,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "estimate": _finite(self.estimate),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "limit": _finite(self.limit),
            "side": self.side,
            "unit": self.unit,
            "users": users,
            "needed": self.needed,
            "alpha": self.alpha,
        }


ARMS = ("challenger", "champion")


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def at_most(
    name: str, met: Met, usual: Met, limit: float, levels: Levels, *, role: str = "errors"
) -> Found:
    """Pass when users surely meet no more of it than the limit, fail when they surely do.

    It fails only what they surely meet more of than the champion's users, where there are any: what
    both meet is no fault of the version.

    >>> levels, nobody = Levels(alpha=0.01, beta=0.05, least=50), Met(events=0, users=0)
    >>> at_most("errors", nobody, nobody, 0.05, levels).outcome
    <Outcome.ERROR: 'error'>
    >>> at_most("errors", Met(events=0, users=400), nobody, 0.05, levels).outcome
    <Outcome.PASS: 'pass'>
    >>> met = Met(events=30, users=100)
    >>> at_most("errors", met, nobody, 0.05, levels).outcome
    <Outcome.FAIL: 'fail'>
    >>> at_most("errors", met, Met(events=90, users=300), 0.05, levels).outcome
    <Outcome.INCONCLUSIVE: 'inconclusive'>
    """
    sure = share(met.events, met.users, alpha=levels.alpha)
    likely = share(met.events, met.users, alpha=levels.beta)
    own = not usual.users or _more(met, usual, levels.alpha).low > 0
    bounds = f"{sure.estimate or 0:.1%} [{sure.low:.1%}, {likely.high:.1%}]"
    reason = f"{bounds} of {met.users} users, at most {limit:.1%}"
    fails = sure.low > limit
    return Found(
        name=name,
        role=role,
        outcome=_outcome(
            met.users, fails=fails and own, passes=likely.high <= limit, levels=levels
        ),
        reason=_reason(met.users, reason + ("" if own or not fails else ", as the champion's")),
        estimate=sure.estimate,
        low=sure.low,
        high=likely.high,
        limit=limit,
        users=(met.users, usual.users),
        needed=levels.least,
        alpha=levels.alpha,
    )


def at_most_more(
    name: str, met: Met, usual: Met, more: float, levels: Levels, *, role: str = "errors"
) -> Found:
    """Pass when users surely meet at most ``more`` above the champion's, fail when they do not.

    Without users of the champion nothing of it is usual.

    >>> levels = Levels(alpha=0.01, beta=0.05, least=50)
    >>> usual, quiet = Met(events=90, users=800), Met(events=0, users=800)
    >>> at_most_more("refused", Met(events=60, users=800), usual, 0.05, levels).outcome
    <Outcome.PASS: 'pass'>
    >>> at_most_more("refused", Met(events=160, users=800), quiet, 0.05, levels).outcome
    <Outcome.FAIL: 'fail'>
    """
    if not usual.users:
        return at_most(name, met, usual, more, levels, role=role)
    sure, likely = _more(met, usual, levels.alpha), _more(met, usual, levels.beta)
    reason = f"{likely} of {met.users} users above the champion's, at most {more:.1%}"
    return Found(
        name=name,
        role=role,
        outcome=_outcome(
            min(met.users, usual.users),
            fails=sure.low > more,
            passes=likely.high <= more or levels.spent,
            levels=levels,
        ),
        reason=_reason(met.users, reason + spent(levels, likely.high <= more)),
        estimate=sure.estimate,
        low=sure.low,
        high=likely.high,
        limit=more,
        users=(met.users, usual.users),
        needed=levels.least,
        alpha=levels.alpha,
    )


def _more(met: Met, usual: Met, alpha: float) -> exceedance.Excess:
    return exceedance.slower(
        met.events, met.users, usual_over=usual.events, usual_n=usual.users, alpha=alpha
    )


def spent(levels: Levels, proved: bool) -> str:
    """Return what is said of a comparison that passes for want of anybody to compare with."""
    return SPENT if levels.spent and not proved else ""


def _outcome(users: int, *, fails: bool, passes: bool, levels: Levels) -> Outcome:
    if not users:
        return Outcome.ERROR
    if fails:
        return Outcome.FAIL
    return Outcome.PASS if passes and users >= levels.least else Outcome.INCONCLUSIVE


def _reason(users: int, reason: str) -> str:
    return reason if users else NOTHING


def failing(challenger: Answers, champion: Answers, *, paired: bool) -> tuple[int, int]:
    """Return the failing users of both arms, as :func:`against` counts them.

    Args:
        paired: Both were asked the same, as in shadow: who failed with both tells nothing.
    """
    one, other = challenger.failing, champion.failing
    if paired:
        one, other = np.setdiff1d(one, other), np.setdiff1d(other, one)
    return len(one), len(other)


def against(
    name: str,
    counts: tuple[int, int],
    users: tuple[int, int],
    *,
    design: float,
    limit: float,
    levels: Levels,
) -> Found:
    """Hold the rate of failing users against the champion's.

    It fails when it surely is higher than the champion's and by the estimate more than ``limit``
    times that: within the limit, a little worse is tolerable, however sure. It passes when it is
    within the limit at the level of a pass. With fewer than ``FEW`` failing users it passes too,
    unless it fails: so few never show more, and :func:`at_most` bounds what they can hide.

    Args:
        counts: Failing users of the challenger and of the champion.
        users: All users of both.
        design: The challenger's share of users, as designed.
    """
    sure = eprocess.ratio(*counts, share=design, alpha=levels.alpha)
    likely = eprocess.ratio(*counts, share=design, alpha=levels.beta)
    above = sure.estimate is not None and sure.estimate > limit
    proved = likely.high <= limit or sum(counts) < FEW
    bounds = f"×{sure.estimate or 0:.2f} [{sure.low:.2f}, {likely.high:.2f}]"
    told = "none with either" if sure.estimate is None else f"{bounds}, {counts[0]} to {counts[1]}"
    return Found(
        name=name,
        role="errors",
        outcome=_outcome(
            min(users), fails=above and sure.low > 1, passes=proved or levels.spent, levels=levels
        ),
        reason=_reason(min(users), f"{told}, at most ×{limit:g}{spent(levels, proved)}"),
        estimate=sure.estimate,
        low=sure.low,
        high=likely.high,
        limit=limit,
        unit="×",
        users=users,
        needed=levels.least,
        alpha=levels.alpha,
    )
