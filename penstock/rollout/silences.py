"""Silences: times in which an arm says nothing at all, though by its share of users it had to.

A server that is down leaves no record of its users, and so does a log that ended. Those whom the
other arm answers meanwhile would make it look as if the table had given it more than its share.
"""

from __future__ import annotations

import math

import numpy as np

from penstock.rollout.evidence import Answers, Bools


def without(one: Answers, other: Answers, *, share: float, alpha: float) -> tuple[Answers, Answers]:
    """Return both arms without what either was answered while the other was silent.

    Args:
        share: Of users, that the first arm has.
        alpha: As unlikely as this, that an arm has none of so many users, is a silence.
    """
    return (
        one.where(~_while_silent(one, other, share=1 - share, alpha=alpha)),
        other.where(~_while_silent(other, one, share=share, alpha=alpha)),
    )


def _while_silent(arm: Answers, other: Answers, *, share: float, alpha: float) -> Bools:
    """Return which answers of an arm lie between two of the other with too many users between."""
    gap_n = np.searchsorted(other.at_n, arm.at_n)
    gap_u = np.unique(np.stack([gap_n, arm.user_n]), axis=1)[0]
    users_g = np.bincount(gap_u, minlength=len(other) + 1)
    silent_g = users_g * math.log1p(-share) < math.log(alpha)
    return silent_g[gap_n]
