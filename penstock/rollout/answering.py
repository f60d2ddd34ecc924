"""What is asked at every step, of every workload: failures, refusals, slow answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from penstock.release import Rollout
from penstock.rollout.checks import NOTHING, Found, Levels, against, at_most, at_most_more, failing
from penstock.rollout.evidence import LEAST_P99, Answers, Evidence, Floats
from penstock.rollout.plan import Plan, Step
from penstock.verdict import Outcome

FAILING = "failing users"
RATIO = "failing users against the champion's"
REFUSED = "refused users"
SLOW = "slow users"
P99 = "p99"

STRETCHES = 5
"""Windows of time over which the p99 is too high in turn, before it is a strike by itself."""


def judged(plan: Plan, evidence: Evidence, step: Step, share: float, levels: Levels) -> list[Found]:
    """Return these checks; a first version, without a champion, has absolute limits only."""
    policy, one, other = plan.policy, evidence.challenger, evidence.champion
    found = [
        too_many(policy, one, other, levels),
        at_most_more(
            REFUSED, one.met(one.refused_n), other.met(other.refused_n),
            policy.max_refused_share, levels,
        ),
        slow(policy, one, other, slow_limit_ms(policy, other), levels),
    ]  # fmt: skip
    if not plan.first:
        # Steps begin their evidence anew, so a version at the limit must slip through each of them.
        steps = sum(0 < step.percent < 100 for step in plan.steps)
        half = replace(levels, alpha=policy.alpha / 2, beta=policy.beta ** (1 / max(1, steps)))
        found.insert(1, ratio(policy, one, other, share, half, paired=step.shadow))
        found.append(stretched(plan, one, other))
    return found


def too_many(policy: Rollout, one: Answers, other: Answers, levels: Levels) -> Found:
    """Hold the failures that users meet against the policy's limit."""
    met, usual = one.met(one.failed_n), other.met(other.failed_n)
    return at_most(FAILING, met, usual, policy.max_error_share, levels)


def ratio(
    policy: Rollout, one: Answers, other: Answers, share: float, levels: Levels, *, paired: bool
) -> Found:
    """Hold failing users against the champion's, of as much time.

    Args:
        share: The challenger's share of users; 1 where the champion's are those of before.
        paired: Both were asked the same requests.
    """
    if paired:
        share = 0.5
    elif share == 1:
        # The longer users are looked at the more of them have failed once.
        span_s = min(one.lasts_s, other.lasts_s)
        one, other = one.within(span_s), other.within(span_s)
        share = (one.users + 1) / (one.users + other.users + 2)
    return against(
        RATIO,
        failing(one, other, paired=paired),
        (one.users, other.users),
        design=share,
        limit=policy.max_error_ratio,
        levels=levels,
    )


def slow_limit_ms(policy: Rollout, champion: Answers) -> float:
    """Return from where an answer is slow: so many times the champion's p99, and never less."""
    return max(policy.slow_floor_ms, policy.slow_ratio * (usual_p99_ms(champion) or 0.0))


def usual_p99_ms(champion: Answers) -> float | None:
    """Return the champion's p99; None while it is but its slowest request."""
    return champion.quantile_ms(0.99) if len(champion) >= LEAST_P99 else None


def slow(policy: Rollout, one: Answers, other: Answers, limit_ms: float, levels: Levels) -> Found:
    """Hold the slow answers that users meet against the champion's."""
    met, usual = (arm.met(arm.latency_ms_n > limit_ms) for arm in (one, other))
    name = f"{SLOW}, over {limit_ms:.0f} ms"
    return at_most_more(name, met, usual, policy.max_slow_share, levels, role="latency")


def stretched(plan: Plan, one: Answers, other: Answers) -> Found:
    """Hold the p99 over the policy's time against the champion's: what a person would look at.

    The time is cut into windows, each with requests enough to have a p99, so that a time scaled
    down to milliseconds makes no blip a strike. It fails when it is too high in each of them, and
    takes no part of alpha: it is a limit, not a test.
    """
    limit_ms = slow_limit_ms(plan.policy, other)
    p99_w = windows(one, plan.slow_for.total_seconds() / STRETCHES)
    high = p99_w > limit_ms
    outcome = Outcome.INCONCLUSIVE
    if not len(one):
        outcome = Outcome.ERROR
    elif len(high) == STRETCHES and high.all():
        outcome = Outcome.FAIL
    elif len(high) and usual_p99_ms(other) is not None and not high[0]:
        outcome = Outcome.PASS
    newest = float(p99_w[0]) if len(p99_w) else None
    told = NOTHING if newest is None else f"{newest:.1f} ms, {high.sum()} of {STRETCHES} windows"
    return Found(
        name=P99,
        role="latency",
        outcome=outcome,
        reason=f"{told} over {limit_ms:.0f} ms" if newest is not None else told,
        estimate=newest,
        limit=limit_ms,
        unit="ms",
        users=(one.users, other.users),
    )


def windows(answers: Answers, lasts_s: float) -> Floats:
    """Return the p99 of the newest windows of time, shape [at most STRETCHES], newest first.

    Args:
        lasts_s: Least time of each; it is longer where it has too few requests.
    """
    answered_n = ~np.isnan(answers.latency_ms_n)
    at_n, latency_ms_n = answers.at_n[answered_n], answers.latency_ms_n[answered_n]
    found: list[float] = []
    end = len(at_n)
    while end >= LEAST_P99 and len(found) < STRETCHES:
        begin = min(end - LEAST_P99, int(np.searchsorted(at_n, at_n[end - 1] - lasts_s)))
        if not begin and found and at_n[end - 1] - at_n[0] < lasts_s:
            break
        found.append(float(np.quantile(latency_ms_n[begin:end], 0.99)))
        end = begin
    return np.asarray(found) if found else np.empty(0)
