"""Did users get the arms in the shares that were set? If not, nothing else can be believed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import betaln

PRIOR_USERS = 200.0
"""Weight of the designed share in the mixture: as if that many users had been seen before."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How users are divided, against the design."""

    log_evidence: float
    failed: bool
    """The split is not the designed one: evidence of at least ``1 / alpha``, now."""

    estimate: float | None
    """The challenger's share of users; None without any."""


def split(challenger: int, champion: int, *, share: float, alpha: float) -> Split:
    """Return whether users are divided as designed; it may be asked after each of them.

    Args:
        challenger, champion: Users of each arm.
        share: The challenger's share as designed, between 0 and 1.
        alpha: Chance that a right division ever looks wrong.

    The evidence is a Beta mixture of likelihood ratios around the designed share.

    Source: Lindon and Malek (2022), Anytime-valid inference for multinomial count data, Neural
    Information Processing Systems 35.

    >>> split(1_000, 9_000, share=0.1, alpha=0.001).failed
    False
    >>> split(850, 9_150, share=0.1, alpha=0.001).failed
    True

    Raises:
        ValueError: A count is negative, or a share is not between 0 and 1.
    """
    if challenger < 0 or champion < 0:
        raise ValueError(f"{challenger} and {champion} users; a count is 0 or more.")
    if not (0 < share < 1 and 0 < alpha < 1):
        raise ValueError(f"share {share} and alpha {alpha}; both lie between 0 and 1.")
    a, b = PRIOR_USERS * share, PRIOR_USERS * (1 - share)
    mixture = float(betaln(a + challenger, b + champion) - betaln(a, b))
    evidence = mixture - challenger * math.log(share) - champion * math.log1p(-share)
    users = challenger + champion
    return Split(
        log_evidence=evidence,
        failed=evidence >= -math.log(alpha),
        estimate=challenger / users if users else None,
    )
