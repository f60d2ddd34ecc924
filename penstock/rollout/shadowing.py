"""The checks of a shadow step, from how copies agree with their originals; overall and by slice.

A shadow shows that a version can answer, and how it differs. It never shows that users are better
off: that takes the canary, which every plan with a champion has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from penstock.release import Shadow
from penstock.rollout.agreeing import (
    KENDALL,
    OTHERWISE,
    OVERLAP,
    SPEARMAN,
    Pairs,
    agreement,
    bounds,
    looked,
)
from penstock.rollout.checks import NOTHING, Found, Levels
from penstock.rollout.evidence import Copies, Evidence
from penstock.stats.divergence import Divergence, sequential_ks
from penstock.stats.looks import Look
from penstock.stats.ranks import Interval
from penstock.verdict import Outcome

COVERAGE, DIVERGENCE, IN_SLICES = "copies that can be compared", "divergence", "copies in slices"

ASKED = (OTHERWISE, SPEARMAN, KENDALL, OVERLAP, DIVERGENCE)
"""What copies are asked and can fail a version; coverage cannot."""


def judged(shadow: Shadow, evidence: Evidence, levels: Levels) -> list[Found]:
    """Return the checks of a shadow step."""
    copies, limits = evidence.copies, limits_of(shadow)
    look = looked(copies, least=levels.least)
    found = [_coverage(shadow, copies, levels)]
    found += [_check(name, limit, copies, look, shadow, levels) for name, limit in limits.items()]
    if shadow.max_divergence is not None:
        found.append(_divergence(copies, shadow.max_divergence, levels))
    return found + _in_slices(shadow, evidence, levels)


def limits_of(shadow: Shadow) -> dict[str, float]:
    """Return the limits of what a look finds, of those that the policy sets."""
    limits = {
        OTHERWISE: shadow.max_disagreement_share,
        SPEARMAN: shadow.min_spearman,
        KENDALL: shadow.min_kendall,
        OVERLAP: shadow.min_overlap,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}


def segments(shadow: Shadow, evidence: Evidence, levels: Levels) -> list[Mapping[str, Any]]:
    """Return a row of all copies and one of each slice, for people."""
    rows = [_row("all", shadow, evidence, evidence.copies, levels)]
    for k, name in enumerate(evidence.slices):
        part = evidence.in_slice(k)
        rows.append(_row(name, shadow, part, evidence.copies.in_slice(k), levels))
    return rows


def _check(
    name: str,
    limit: float,
    copies: Copies,
    look: tuple[Pairs, Look] | None,
    shadow: Shadow,
    levels: Levels,
) -> Found:
    """Hold what the newest look found against its limit."""
    below = name == OTHERWISE
    empty = Found(
        name=name,
        role="shadow",
        outcome=Outcome.INCONCLUSIVE if len(copies) else Outcome.ERROR,
        reason=f"{len(copies)} copies compared, no look yet" if len(copies) else NOTHING,
        limit=limit,
        side="below" if below else "above",
        unit="share" if name in (OTHERWISE, OVERLAP) else "correlation",
        needed=levels.least,
        alpha=levels.alpha,
    )
    if look is None:
        return empty
    agreed, part = agreement(look[0], shadow.top), look[1].alpha
    found, share = agreed.found[name], name in (OTHERWISE, OVERLAP)
    if found.estimate is None:
        return replace(empty, reason=f"no {name} of {agreed.pairs} copies: nothing to rank")
    sure = bounds(found, levels.alpha * part, agreed.users, share=share)
    likely = bounds(found, levels.beta * part, agreed.users, share=share)
    low, high = (sure[0], likely[1]) if below else (likely[0], sure[1])
    fails, passes = (low > limit, high <= limit) if below else (high < limit, low >= limit)
    outcome = Outcome.PASS if passes else Outcome.INCONCLUSIVE
    return replace(
        empty,
        outcome=Outcome.FAIL if fails else outcome,
        reason=(
            f"{found.estimate:.3f} [{low:.3f}, {high:.3f}] of {agreed.pairs} copies, "
            f"{'at most' if below else 'at least'} {limit:g}"
        ),
        estimate=found.estimate,
        low=low,
        high=high,
        users=(agreed.users, agreed.users),
    )


def _coverage(shadow: Shadow, copies: Copies, levels: Levels) -> Found:
    """Ask whether the copies that are there are most of those sent: others may be the bad ones."""
    covered, least = copies.coverage, shadow.min_coverage
    outcome = Outcome.PASS if covered is not None and covered >= least else Outcome.INCONCLUSIVE
    told = f"{copies.joined} of {copies.sent} copies, at least {least:.0%}"
    return Found(
        name=COVERAGE,
        role="shadow",
        outcome=outcome if len(copies) else Outcome.ERROR,
        reason=told if len(copies) else NOTHING,
        estimate=covered,
        limit=least,
        side="above",
        needed=levels.least,
    )


def _divergence(copies: Copies, limit: float, levels: Levels) -> Found:
    """Hold the distance of the scores' distributions against its limit, one score of each user."""
    sure, likely = _distance(copies, levels.alpha), _distance(copies, levels.beta)
    users = len(np.unique(copies.user_n))
    passes = likely.high <= limit and users >= levels.least
    outcome = Outcome.PASS if passes else Outcome.INCONCLUSIVE
    told = f"{sure.estimate or 0:.3f} [{sure.low:.3f}, {likely.high:.3f}] of {users} users"
    return Found(
        name=DIVERGENCE,
        role="shadow",
        outcome=Outcome.FAIL if sure.low > limit else outcome,
        reason=f"{told}, at most {limit:g}" if sure.estimate is not None else NOTHING,
        estimate=sure.estimate,
        low=sure.low,
        high=likely.high,
        limit=limit,
        users=(users, users),
        needed=levels.least,
        alpha=levels.alpha,
    )


def _distance(copies: Copies, level: float) -> Divergence:
    known = np.flatnonzero(~np.isnan(copies.one_n) & ~np.isnan(copies.other_n))
    _, first_u = np.unique(copies.user_n[known], return_index=True)
    chosen_u = known[first_u]
    return sequential_ks(copies.one_n[chosen_u], copies.other_n[chosen_u], alpha=level)


def _in_slices(shadow: Shadow, evidence: Evidence, levels: Levels) -> list[Found]:
    """Return one check that each slice with copies enough can fail; none where no slice has."""
    each, judged_slices = levels.split(len(evidence.slices)), 0
    for k, name in enumerate(evidence.slices):
        copies = evidence.copies.in_slice(k)
        look = looked(copies, least=levels.least) if len(copies) >= shadow.min_support else None
        if look is None:
            continue
        judged_slices += 1
        for asked, limit in limits_of(shadow).items():
            found = _check(asked, limit, copies, look, shadow, each.split(len(ASKED)))
            if found.outcome is Outcome.FAIL:
                return [replace(found, name=IN_SLICES, reason=f"{name}: {asked} {found.reason}")]
    if not judged_slices:
        return []
    told = f"{judged_slices} of {len(evidence.slices)} slices have copies enough"
    return [
        Found(
            name=IN_SLICES,
            role="shadow",
            outcome=Outcome.PASS,
            reason=f"{told}, none surely differs too much",
            unit="",
            alpha=each.alpha,
        )
    ]


def _row(
    name: str, shadow: Shadow, evidence: Evidence, copies: Copies, levels: Levels
) -> Mapping[str, Any]:
    """Return what people are shown of some copies; None is not known, as of too few."""
    look = looked(copies, least=levels.least) if len(copies) >= shadow.min_support else None
    agreed = None if look is None else agreement(look[0], shadow.top)
    one, other = evidence.challenger.summary(), evidence.champion.summary()
    rows = {} if agreed is None else {kind: _plain(v) for kind, v in agreed.found.items()}
    return {
        "name": name,
        "pairs": len(copies),
        "users": {"challenger": one["users"], "champion": other["users"]},
        "coverage": copies.coverage,
        "decided_otherwise": rows.get(OTHERWISE),
        **{kind: rows.get(kind) for kind in (SPEARMAN, KENDALL, OVERLAP)},
        "divergence": None if agreed is None else _plain(_distance(copies, levels.beta)),
        "psi": None if agreed is None else agreed.psi,
        "p99_ms": {"challenger": one["p99_ms"], "champion": other["p99_ms"]},
        "errors": {"challenger": one["errors"], "champion": other["errors"]},
    }


def _plain(found: Interval | Divergence) -> Mapping[str, float] | None:
    if found.estimate is None:
        return None
    return {"estimate": found.estimate, "low": found.low, "high": found.high}
