"""Slices of users, each judged on its own where enough of its users were met.

They can fail a version and never pass it: a slice with too few users says nothing, and all users
are judged besides. The part of alpha of each question is divided by the slices declared, however
many of them are large enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.rollout import answering, measures
from penstock.rollout.checks import Found, Levels
from penstock.rollout.evidence import Evidence
from penstock.rollout.measures import Terms
from penstock.rollout.plan import Plan
from penstock.verdict import Outcome

KINDS = (FAILING, SLOW, PRIMARY) = ("failing users", "slow users", "primary measure")
"""What each slice is asked."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the slices come to."""

    found: list[Found]
    """A check of each kind, where some slice has users enough."""

    rows: list[Mapping[str, Any]]
    """Each slice for people."""


def judged(plan: Plan, evidence: Evidence, share: float, levels: Levels, *, now: float) -> Parts:
    """Return checks that only slices can fail, and a row for each slice.

    Args:
        share: The challenger's share of users.
        now: Unix seconds.
    """
    each = levels.split(len(evidence.slices))
    terms = measures.terms_of(plan, evidence, now=now)
    limit_ms = answering.slow_limit_ms(plan.policy, evidence.champion)
    asked: dict[str, Mapping[str, Found]] = {}
    rows: list[Mapping[str, Any]] = []
    for k, name in enumerate(evidence.slices):
        part = evidence.in_slice(k)
        users = {"challenger": part.challenger.users, "champion": part.champion.users}
        found: Mapping[str, Found] = {}
        if min(users.values()) >= levels.least:
            found = asked[name] = _asked(plan, part, share, each, terms, limit_ms)
        rows.append(_row(plan, name, users, found))
    together = [together_of(kind, asked, len(evidence.slices)) for kind in KINDS if asked]
    return Parts(found=together, rows=rows)


def _asked(
    plan: Plan, part: Evidence, share: float, levels: Levels, terms: Terms, limit_ms: float
) -> Mapping[str, Found]:
    """Return what one slice comes to, by kind; slow is what is slow overall."""
    policy, one, other = plan.policy, part.challenger, part.champion
    failing = (
        answering.too_many(policy, one, other, levels.split(2)),
        answering.ratio(policy, one, other, share, levels.split(2), paired=False),
    )
    values = measures.per_user(policy.primary, part, terms)
    compared = measures.compare(
        policy.primary, *values, role="primary", share=share, levels=levels, terms=terms
    )
    return {
        FAILING: next((f for f in failing if f.outcome is Outcome.FAIL), failing[0]),
        SLOW: answering.slow(policy, one, other, limit_ms, levels),
        PRIMARY: compared.found,
    }


def together_of(kind: str, asked: Mapping[str, Mapping[str, Found]], declared: int) -> Found:
    """Return one check of a kind of all slices; it names the first that fails."""
    for name, found in asked.items():
        if found[kind].outcome is Outcome.FAIL:
            return replace(
                found[kind], name=f"{kind} in slices", reason=f"{name}: {found[kind].reason}"
            )
    first = next(iter(asked.values()))[kind]
    return Found(
        name=f"{kind} in slices",
        role=first.role,
        outcome=Outcome.PASS,
        reason=f"{len(asked)} of {declared} slices have users enough, none is surely worse",
        unit="",
        alpha=first.alpha,
    )


def _row(
    plan: Plan, name: str, users: Mapping[str, int], found: Mapping[str, Found]
) -> Mapping[str, Any]:
    """Return a slice for people; one with too few users has no effects."""
    numbers = {
        kind: {key: f.row()[key] for key in ("estimate", "low", "high", "limit", "outcome")}
        for kind, f in found.items()
    }
    return {
        "name": name,
        "users": users,
        "effects": {plan.policy.primary.name: numbers[PRIMARY]} if numbers else {},
        "failing": numbers.get(FAILING),
        "slow": numbers.get(SLOW),
        "outcome": _outcome(found),
    }


def _outcome(found: Mapping[str, Found]) -> str:
    if not found:
        return "too few users"
    failed = any(f.outcome is Outcome.FAIL for f in found.values())
    return str(Outcome.FAIL if failed else Outcome.PASS)
