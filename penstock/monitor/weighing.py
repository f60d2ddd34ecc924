"""What one distance says: moved, not moved, or too few users to tell. Pure."""

from __future__ import annotations

from penstock.stats.drift import Distance
from penstock.verdict import Check, Outcome


def weighed(
    name: str, distance: Distance, limit: float, *, stands: bool = True, slack: float = 0.0
) -> Check:
    """Return the check of a distance.

    It passes where it surely keeps its limit and fails where it exceeds it and chance is no
    explanation. Where chance alone reaches the limit between samples of these sizes, nothing is
    said: below some 370 users on each side that is so of KS at 0.1, below some 170 of PSI at 0.2.

    Args:
        stands: Whether it is significant among all that were looked at together.
        slack: What it may be understated by.
    """
    value, noise = distance.value, distance.noise
    reason = f"{value:.3f}, at most {limit:g}; chance alone reaches {noise:.3f}"
    if noise >= limit:
        outcome, reason = Outcome.INCONCLUSIVE, f"{reason}: too few users to tell"
    elif value > limit and stands:
        outcome = Outcome.FAIL
    elif value > limit:
        outcome, reason = Outcome.INCONCLUSIVE, f"{reason}, and many features were looked at"
    elif value + slack > limit:
        outcome = Outcome.INCONCLUSIVE
        reason = f"{reason}; between the points of the profile it may be {slack:.3f} more"
    else:
        outcome = Outcome.PASS
    return Check(name=name, outcome=outcome, reason=reason, value=value, limit=limit)
