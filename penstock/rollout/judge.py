"""Judge a step's evidence against the plan. Pure; may be asked after every request.

Every check holds under repeated looks. What fails may do so as soon as it is sure; what passes
needs the least number of users besides. A version as good as the champion is failed at a step, by
any check, with chance ``alpha`` at most: half of it is the errors', which must be seen soonest, the
other checks share the rest. To go back for good takes two such strikes. Each check passes a version
that is worse by its limit with chance ``beta`` at most; as all must pass, none is corrected for the
others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from penstock.rollout import answering, measures, segments, shadowing, silences
from penstock.rollout.checks import Found, Levels
from penstock.rollout.evidence import Evidence
from penstock.rollout.judgement import Effect, Judgement
from penstock.rollout.measures import Compared
from penstock.rollout.plan import Plan, Step
from penstock.rollout.table import BUCKETS, buckets_for
from penstock.stats import mismatch
from penstock.verdict import Outcome, Verdict

PROCESS = "challenger process"
"""Name of the check whose failure is critical: it does not wait for any soak."""

WHOLE = "evidence"
SPLIT = "split of users"

SILENT = 0.5
"""Share of the policy's ``evidence_timeout`` after which a silent log is an error: people are
called then, and have the rest of it before everybody goes back."""

SETTLE_S = 1.0
"""Both slots' logs are written this much later: newer users of one may lack of the other."""

ALWAYS = 4
"""Checks with a part of alpha at any step: failing users, the same against the champion's, refused
and slow ones."""


def judge(plan: Plan, evidence: Evidence, step: Step, *, now: datetime) -> Judgement:
    """Return what a step's evidence comes to."""
    found = [_process(evidence), _whole(plan, evidence, step, now=now.timestamp())]
    if found[1].outcome is Outcome.ERROR:
        # One arm may lack records: whatever the two say of each other may be wrong.
        return _judgement(found, critical=_critical(found))
    levels, share = levels_of(plan, evidence, step), share_of(step)
    found += answering.judged(plan, evidence, step, share, levels)
    critical = _critical(found) or _too_many(plan, evidence, found)
    if step.shadow:
        asked = plan.policy.shadow
        found += shadowing.judged(asked, evidence, levels)
        return _judgement(
            found, critical=critical, parts=shadowing.segments(asked, evidence, levels)
        )
    if plan.first:
        return _judgement(found, critical=critical)
    if 0 < share < 1:
        found.append(_split(evidence, share, levels, now=now.timestamp()))
    compared = measures.compared(plan, evidence, share, levels, now=now.timestamp())
    critical = critical or _unsafe(plan, compared)
    parts = segments.judged(plan, evidence, share, levels, now=now.timestamp())
    return _decided(plan, [*found, *parts.found], compared, critical, parts.rows)


def levels_of(plan: Plan, evidence: Evidence, step: Step) -> Levels:
    """Return how sure each check must be; all parts of alpha together are the policy's.

    Of the half that is the errors', see :func:`penstock.rollout.answering.judged`.
    """
    policy = plan.policy
    if step.shadow:
        asked = ALWAYS + len(shadowing.ASKED) + bool(evidence.slices)
    else:
        kinds = len(segments.KINDS) if evidence.slices else 0
        asked = ALWAYS + 2 + len(policy.guardrails) + kinds
    alpha = policy.alpha / 2 / (asked - 1)
    return Levels(
        alpha=alpha, beta=policy.beta, least=policy.min_users, spent=_spent(evidence, step)
    )


def _spent(evidence: Evidence, step: Step) -> bool:
    """Return whether the champion's users are those of before, and have been looked at in full."""
    usual_s = evidence.champion.lasts_s
    return step.percent == 100 and 0 < usual_s <= evidence.challenger.lasts_s


def share_of(step: Step) -> float:
    """Return the share of users that a step's table gives the challenger."""
    return buckets_for(step.percent) / BUCKETS


def _process(evidence: Evidence) -> Found:
    return Found(
        name=PROCESS,
        role="process",
        outcome=Outcome.PASS if evidence.alive else Outcome.FAIL,
        reason="up and ready" if evidence.alive else "crashed or not ready",
        unit="",
    )


def _whole(plan: Plan, evidence: Evidence, step: Step, *, now: float) -> Found:
    lost, most = evidence.lost_share, plan.policy.max_log_loss
    problem = evidence.conflict or _stale(plan, evidence, step, now=now)
    if not problem and lost > most:
        problem = f"{lost:.1%} of records were lost, at most {most:.1%}"
    return Found(
        name=WHOLE,
        role="process",
        outcome=Outcome.ERROR if problem else Outcome.PASS,
        reason=problem or f"{lost:.2%} of records were lost{_unnamed(evidence)}",
        estimate=lost,
        limit=most,
    )


def _unnamed(evidence: Evidence) -> str:
    return "; users are requests, as no user is named" if evidence.anonymous else ""


def _stale(plan: Plan, evidence: Evidence, step: Step, *, now: float) -> str:
    """Return whose log is silent, where it should not be."""
    arms = {"challenger": evidence.challenger}
    if step.percent < 100:
        arms["champion"] = evidence.champion
    for name, arm in arms.items():
        silent_s = now - arm.at_n[-1] if len(arm) else 0.0
        if silent_s > SILENT * plan.evidence_timeout.total_seconds():
            return f"the {name}'s newest record is {silent_s:.0f} s old"
    return ""


def _critical(found: Sequence[Found]) -> str:
    """Return why it cannot wait; the process comes first."""
    failed = found[0].outcome is Outcome.FAIL
    return f"{PROCESS}: {found[0].reason}" if failed else ""


def _too_many(plan: Plan, evidence: Evidence, found: Sequence[Found]) -> str:
    """Return why failures cannot wait: they fail the version, and are too many by the estimate.

    To wait until so many are sure would give them a first strike and go back up again.
    """
    names = (answering.FAILING, answering.RATIO)
    failed = [f for f in found if f.name in names and f.outcome is Outcome.FAIL]
    one, limit = evidence.challenger, plan.policy.critical_error_share
    met = one.met(one.failed_n)
    if not failed or met.events <= limit * met.users:
        return ""
    told = f"{met.events / met.users:.0%} of {met.users} users, critical above {limit:.0%}"
    return f"{failed[0].name}: {told}; {failed[0].reason}"


def _unsafe(plan: Plan, compared: Sequence[Compared]) -> str:
    """Return which measure of safety surely got worse; empty where none did."""
    declared = (plan.policy.primary, *plan.policy.guardrails)
    failed = [
        f"{measure.name}: {one.found.reason}"
        for measure, one in zip(declared, compared, strict=True)
        if measure.critical and one.found.outcome is Outcome.FAIL
    ]
    return "; ".join(failed)


def _split(evidence: Evidence, share: float, levels: Levels, *, now: float) -> Found:
    """Ask whether users were divided as the table says: else nothing else can be believed."""
    arms = [
        arm.where(arm.at_n <= now - SETTLE_S) for arm in (evidence.challenger, evidence.champion)
    ]
    settled = [arm.users for arm in arms]
    found = mismatch.split(*settled, share=share, alpha=levels.alpha)
    if found.failed:
        # It is no fault of the table's, or the version's, where one of them was down.
        arms = silences.without(*arms, share=share, alpha=levels.alpha)
        settled = [arm.users for arm in arms]
        found = mismatch.split(*settled, share=share, alpha=levels.alpha)
    estimate, users = found.estimate or 0.0, sum(settled)
    outcome = Outcome.FAIL if found.failed else Outcome.PASS
    return Found(
        name=SPLIT,
        role="split",
        outcome=outcome if users else Outcome.ERROR,
        reason=f"{settled[0]} of {users} users, {estimate:.1%}; the table gives {share:.1%}",
        estimate=found.estimate,
        limit=share,
        users=(settled[0], settled[1]),
        alpha=levels.alpha,
    )


def _decided(
    plan: Plan,
    found: list[Found],
    compared: Sequence[Compared],
    critical: str,
    parts: Sequence[Mapping[str, Any]],
) -> Judgement:
    """Apply the decision table to the primary measure and everything else."""
    primary, rest = compared[0], [*found, *(c.found for c in compared[1:])]
    others = Verdict(tuple(f.check() for f in rest))
    parity = primary.effect is Effect.PARITY and not plan.policy.accept_parity
    first = primary.found
    if parity:
        # Safe is not enough here, and more users may still show that it is better.
        reason = f"{first.reason}; no better is not enough"
        first = replace(first, outcome=Outcome.INCONCLUSIVE, reason=reason)
    no_value = parity and primary.surely_no_more and others.outcome is Outcome.PASS
    judged = _judgement([first, *rest], primary.effect, critical=critical, parts=parts)
    reason = _reason(judged, others, first, no_value=no_value)
    return replace(judged, reason=reason, no_value=no_value)


def _reason(judged: Judgement, others: Verdict, primary: Found, *, no_value: bool) -> str:
    told = f"{primary.name} {primary.reason}"
    if no_value:
        return f"no value: {told}; safe, and of no use"
    if judged.effect is Effect.BETTER and others.outcome is Outcome.FAIL:
        return f"trade-off: {told}, but {others.reason}"
    if judged.effect is Effect.WORSE:
        return f"worse: {told}"
    if judged.outcome is Outcome.PASS:
        word = "better" if judged.effect is Effect.BETTER else "no worse"
        return f"{word}: {told}; {others.reason}"
    return judged.verdict.reason


def _judgement(
    found: Sequence[Found],
    effect: Effect = Effect.UNCLEAR,
    *,
    critical: str,
    parts: Sequence[Mapping[str, Any]] = (),
) -> Judgement:
    verdict = Verdict(tuple(f.check() for f in found))
    return Judgement(
        verdict=verdict,
        effect=effect,
        reason=verdict.reason,
        critical=critical,
        rows=tuple(f.row() for f in found),
        segments=tuple(parts),
    )
