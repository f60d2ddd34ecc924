"""How unequally decisions fall on groups: adverse impact ratio, equal opportunity difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from penstock.stats.estimates import Bounds, Estimate
from penstock.stats.intervals import share_difference, share_ratio
from penstock.stats.scored import Rows, Scored

Counts = tuple[int, int]
"""Successes and trials."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """What was decided of one group."""

    name: str
    decided: Counts
    """Rows decided favourably, of all."""

    deserving: Counts
    """Rows decided favourably, of those whose label is the favourable one."""


def groups(scored: Scored, where: Mapping[str, Rows], *, favourable: int) -> list[Group]:
    """Return what was decided of each group.

    Args:
        where: Rows of each group, shape [n].
        favourable: The decision that is good for whom it is about.
    """
    favoured_n = scored.decided_n == favourable
    deserving_n = scored.labels_n == favourable
    return [
        Group(
            name=name,
            decided=(int(favoured_n[rows].sum()), int(rows.sum())),
            deserving=(int(favoured_n[rows & deserving_n].sum()), int((rows & deserving_n).sum())),
        )
        for name, rows in where.items()
    ]


def adverse_impact_ratio(groups: Sequence[Group]) -> Estimate | None:
    """Return the least favourable share of a group over the greatest.

    None with fewer than two groups that have rows, or where nobody is favoured. A least over a
    greatest looks unequal by chance alone, the more so the more groups there are, and a bootstrap
    adds that chance once more. But it is also the least ratio of any two groups, so it reaches a
    floor exactly when every two groups' does: the lower bound is the least of theirs, and needs no
    correction for their number (an intersection-union test; Berger 1982, Technometrics 24,
    295-300). The upper bound is the least of theirs at a level divided by their number, for any of
    them could be the least by chance (Bonferroni).
    """
    counts = [g.decided for g in groups if g.decided[1]]
    if len(counts) < 2 or not any(favoured for favoured, _ in counts):
        return None
    shares = [favoured / n for favoured, n in counts]
    pairs = [pair for pair in permutations(counts, 2) if pair[1][0]]

    def at(alpha: float) -> Bounds:
        low = min(share_ratio(*pair, alpha=alpha)[0] for pair in pairs)
        high = min(share_ratio(*pair, alpha=alpha / len(pairs))[1] for pair in pairs)
        return min(low, 1.0), min(high, 1.0)

    return Estimate(value=min(shares) / max(shares), n=sum(n for _, n in counts), at=at)


def equal_opportunity_difference(groups: Sequence[Group]) -> Estimate | None:
    """Return the greatest difference between groups of the favourable share of who deserves it.

    None with fewer than two groups that have such rows. Bounds come from every two groups, as for
    :func:`adverse_impact_ratio`: the upper is the greatest of theirs, the lower the greatest at a
    level divided by their number.
    """
    counts = [g.deserving for g in groups if g.deserving[1]]
    if len(counts) < 2:
        return None
    shares = [favoured / n for favoured, n in counts]
    pairs = list(permutations(counts, 2))

    def at(alpha: float) -> Bounds:
        low = max(share_difference(*pair, alpha=alpha / len(pairs))[0] for pair in pairs)
        high = max(share_difference(*pair, alpha=alpha)[1] for pair in pairs)
        return max(low, 0.0), high

    value = max(shares) - min(shares)
    return Estimate(value=value, n=sum(n for _, n in counts), at=at)


def share(counts: Counts) -> float | None:
    """Return successes over trials; None of no trial."""
    return counts[0] / counts[1] if counts[1] else None
