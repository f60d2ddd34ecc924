"""Measures: a number of each user, and its mean held against that of the champion's users."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from penstock.release import Measure
from penstock.rollout.checks import NOTHING, Found, Levels, spent
from penstock.rollout.evidence import Answers, Evidence, Floats, Ints
from penstock.rollout.judgement import Effect
from penstock.rollout.plan import Plan
from penstock.stats import confseq, cuped, power
from penstock.verdict import Outcome


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Which answers count, and as what."""

    now: float
    begun: float
    """Unix seconds: the step's beginning, with its burn-in."""

    attribution_s: float
    silent_means: float | None

    @property
    def waits(self) -> bool:
        """Whether outcomes may still come of all that was answered: none is no error yet."""
        return self.now - self.begun <= self.attribution_s


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A measure of both arms."""

    found: Found
    effect: Effect
    surely_no_more: bool = False
    """It surely is not better by a whole margin."""


def compared(
    plan: Plan, evidence: Evidence, share: float, levels: Levels, *, now: float
) -> list[Compared]:
    """Return the primary measure and the guardrails, held against the champion's.

    Args:
        share: The challenger's share of users.
        now: Unix seconds.
    """
    terms = terms_of(plan, evidence, now=now)
    made: list[Compared] = []
    for measure in (plan.policy.primary, *plan.policy.guardrails):
        one_u, other_u = per_user(measure, evidence, terms)
        role = "primary" if measure is plan.policy.primary else "guardrail"
        made.append(
            compare(measure, one_u, other_u, role=role, share=share, levels=levels, terms=terms)
        )
    return made


def terms_of(plan: Plan, evidence: Evidence, *, now: float) -> Terms:
    """Return which answers count at a step."""
    return Terms(
        now=now,
        begun=evidence.since + plan.burn_in.total_seconds(),
        attribution_s=plan.attribution.total_seconds(),
        silent_means=plan.policy.silent_means,
    )


def counted(answers: Answers, source: str, terms: Terms) -> tuple[Floats, Ints]:
    """Return the values that count and whose they are; burn-in is left to the caller.

    Where silence means something, an answer counts when its time is over and not before: outcomes
    that come early are those that come at all, and would make any two versions look alike.
    """
    value_n = answers.values_n.get(source)
    if value_n is None:
        value_n = np.full(len(answers), math.nan)
    given_n = ~np.isnan(answers.latency_ms_n)
    came_n = answers.came_at_n.get(source)
    if terms.attribution_s and came_n is not None:
        late_n = came_n - answers.at_n > terms.attribution_s
        value_n = np.where(late_n, math.nan, value_n)
    if terms.silent_means is not None:
        given_n &= answers.at_n + terms.attribution_s <= terms.now
        value_n = np.where(np.isnan(value_n), terms.silent_means, value_n)
    chosen_n = given_n & ~np.isnan(value_n)
    return value_n[chosen_n], answers.user_n[chosen_n]


def means(value_n: Floats, user_n: Ints) -> tuple[Floats, Ints]:
    """Return each user's mean and whose it is, both of shape [users]."""
    if not len(user_n):
        return np.empty(0), np.empty(0, np.int64)
    count_u = np.bincount(user_n)
    sum_u = np.bincount(user_n, weights=value_n)
    there_u = np.flatnonzero(count_u)
    return sum_u[there_u] / count_u[there_u], there_u


def per_user(measure: Measure, evidence: Evidence, terms: Terms) -> tuple[Floats, Floats]:
    """Return a number of each user of both arms, made quieter by what they were like before."""
    champion = evidence.champion
    if len(champion) and champion.at_n[0] >= evidence.since:
        champion = champion.where(champion.at_n >= terms.begun)
    challenger = evidence.challenger.where(evidence.challenger.at_n >= terms.begun)
    value_u, user_u = _capped(measure, challenger, terms)
    other_v, user_v = _capped(measure, champion, terms)
    before_w, user_w = _capped(measure, evidence.earlier, terms)
    users = np.concatenate([user_u, user_v])
    known = np.full(int(max(users.max(initial=-1), user_w.max(initial=-1))) + 1, math.nan)
    known[user_w] = before_w
    both = cuped.adjusted(np.concatenate([value_u, other_v]), known[users])
    return both[: len(value_u)], both[len(value_u) :]


def _capped(measure: Measure, answers: Answers, terms: Terms) -> tuple[Floats, Ints]:
    value_u, user_u = means(*counted(answers, measure.source, terms))
    return (value_u if measure.cap is None else np.clip(value_u, -measure.cap, measure.cap)), user_u


def needed(measure: Measure, levels: Levels, *, share: float) -> int:
    """Return the users of the challenger without whom a pass would say too little.

    The formula gives two arms of one size. With many champions to each challenger fewer of these
    give the same variance of the difference.
    """
    # Against a whole margin at the level of a pass, one-sided, and as likely to be shown.
    equal = power.users(measure.deviation, measure.margin, alpha=2 * levels.beta, beta=levels.beta)
    odds = min(1.0, share / (1 - share)) if share < 1 else 1.0
    return max(levels.least, math.ceil(equal * (1 + odds) / 2))


def compare(
    measure: Measure,
    one_u: Floats,
    other_u: Floats,
    *,
    role: str,
    share: float,
    levels: Levels,
    terms: Terms,
) -> Compared:
    """Hold the challenger's users, shape [u], against the champion's, shape [v].

    It is worse when its mean surely is and by the estimate more than the margin; better when it
    surely is; at parity when it surely is no worse by a margin.
    """
    least, sign = needed(measure, levels, share=share), 1 if measure.rises else -1
    sure, likely = (
        confseq.difference(
            sign * one_u,
            sign * other_u,
            alpha=level,
            least=levels.least,
            deviation=measure.deviation,
        )
        for level in (levels.alpha, levels.beta)
    )
    effect = _effect(measure, sure, likely, least, levels)
    proved = likely.low > -measure.margin
    estimate = None if sure.estimate is None else sign * sure.estimate
    low, high = sorted((sign * likely.low, sign * sure.high))
    found = Found(
        name=measure.name,
        role=role,
        outcome=_outcome(effect, nothing=estimate is None, waits=terms.waits),
        reason=_told(measure, estimate, (low, high), len(one_u), len(other_u), least)
        + (spent(levels, proved) if effect is Effect.PARITY else ""),
        estimate=estimate,
        low=low,
        high=high,
        limit=-sign * measure.margin,
        side="above" if measure.rises else "below",
        unit="per user",
        users=(len(one_u), len(other_u)),
        needed=least,
        alpha=levels.alpha,
    )
    return Compared(found=found, effect=effect, surely_no_more=likely.high < measure.margin)


def _effect(
    measure: Measure,
    sure: confseq.Difference,
    likely: confseq.Difference,
    least: int,
    levels: Levels,
) -> Effect:
    """Return the effect; numbers are turned so that more is better."""
    if sure.estimate is None:
        return Effect.UNCLEAR
    if sure.high < 0 and sure.estimate < -measure.margin:
        return Effect.WORSE
    if sure.n < least or (likely.low <= -measure.margin and not levels.spent):
        return Effect.UNCLEAR
    return Effect.BETTER if likely.low > 0 else Effect.PARITY


def _outcome(effect: Effect, *, nothing: bool, waits: bool) -> Outcome:
    if nothing:
        return Outcome.INCONCLUSIVE if waits else Outcome.ERROR
    if effect is Effect.WORSE:
        return Outcome.FAIL
    return Outcome.INCONCLUSIVE if effect is Effect.UNCLEAR else Outcome.PASS


def _told(
    measure: Measure,
    estimate: float | None,
    bounds: tuple[float, float],
    n: int,
    m: int,
    least: int,
) -> str:
    if estimate is None:
        return f"{NOTHING}: {n} and {m} users have an outcome {measure.source!r}"
    side, limit = ("no lower", -measure.margin) if measure.rises else ("no higher", measure.margin)
    users = f"{n} of {least} users" if n < least else f"{n} users"
    return f"{estimate:+.4f} [{bounds[0]:+.4f}, {bounds[1]:+.4f}], {side} than {limit:+g}, {users}"
