"""Judge a challenger's scores against the policy and the champion's scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.gate import numbers
from penstock.gate.evidence import Evidence, not_finite, refuse_mismatch
from penstock.gate.parts import Finding, judge_groups, judge_slices
from penstock.gate.rules import Limit, Question, answer, too_few
from penstock.policy import (
    BUDGETS,
    DATA_AGE,
    FAIR_FALLING,
    FAIR_RISING,
    RISING,
    AtLeast,
    AtMost,
    LeastCost,
    NoWorse,
    Rule,
)
from penstock.stats.measures import Measures
from penstock.stats.operating import ENOUGH_TO_CHOOSE
from penstock.stats.scored import Rows, Scored
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Workload

Found = list[Finding]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict of every rule, and the numbers behind it."""

    verdict: Verdict
    numbers: dict[str, Any]
    """What the gate keeps as ``scores.json``: plain values, every number finite or None."""


def judge(
    declared: Workload,
    challenger: Scored,
    champion: Scored | None,
    *,
    slices: Mapping[str, Rows],
    groups: Mapping[str, Mapping[str, Rows]],
    validation: Scored | None,
    budget: Mapping[str, Any],
    data_age_days: float | None,
    rng: np.random.Generator,
    incomparable: str = "",
) -> Judgement:
    """Return the verdict of every rule. Only a pass may be registered.

    A rule passes when the whole interval of what it asks for lies on the good side of its limit,
    fails when all of it lies on the bad side, and is inconclusive otherwise. Intervals are
    two-sided at 95 %: each bound alone is meant to be wrong in 2.5 %, and is by simulation in 3.3 %
    at most (``tests/gate/test_levels.py``). What could not be measured is an error.

    Args:
        champion: Scored on the same holdout; None when no version serves yet, which each rule that
            compares then says, or where one serves that is ``incomparable``.
        slices: Rows of each, shape [n]; the declared ones, and each class where it is one.
        groups: Rows of each group, shape [n], of each sensitive attribute.
        validation: The challenger on the validation rows, on which the threshold of least cost is
            chosen.
        budget: What the artifact that will serve costs, by name of the measure.
        data_age_days: How old the training rows are; see :func:`gathered.data_age_days`.
        rng: Of all resampling: the same seed and scores give the same judgement.
        incomparable: Why a champion that serves could not be scored; each rule that compares is
            then an error.

    Raises:
        ValueError: Scores, slices and groups are not of one holdout and task, or a rule asks for a
            metric that there is not.
    """
    refuse_mismatch(declared, challenger, champion, validation, slices=slices, groups=groups)
    scores = {"": challenger, " of the champion": champion, " on validation rows": validation}
    if broken := tuple(not_finite(scores)):
        nothing = numbers.none(declared, challenger.n, incomparable=incomparable)
        return Judgement(verdict=Verdict(broken), numbers=nothing)
    evidence = Evidence(
        declared=declared,
        challenger=challenger,
        champion=champion,
        incomparable=incomparable,
        slices=slices,
        groups=groups,
        validation=validation,
        budget=budget,
        data_age_days=data_age_days,
        measures=Measures.of(challenger, champion, slices, costs=declared.costs, rng=rng),
    )
    found = [finding for rule in declared.gate for finding in judge_rule(evidence, rule)]
    verdict = Verdict(tuple(finding.check for finding in found))
    return Judgement(verdict=verdict, numbers=numbers.of(evidence, found))


def judge_rule(evidence: Evidence, rule: Rule) -> Found:
    """Return the answers to one rule: of all rows, and of each slice or attribute it asks of."""
    if isinstance(rule, LeastCost):
        return [judge_least_cost(evidence, rule)]
    if isinstance(rule, NoWorse):
        return judge_no_worse(evidence, rule)
    if isinstance(rule, AtLeast):
        return judge_at_least(evidence, rule)
    return judge_at_most(evidence, rule)


def judge_at_least(evidence: Evidence, rule: AtLeast) -> Found:
    """Pass when the whole interval reaches the floor, fail when none of it does."""
    limit = Limit(value=rule.value, rising=True, said=f"at least {rule.value:g}")
    if rule.metric in FAIR_RISING:
        return judge_groups(evidence, rule.metric, limit)
    return judge_slices(evidence, rule, limit, evidence.measures.challenger)


def judge_at_most(evidence: Evidence, rule: AtMost) -> Found:
    """Pass when the whole interval lies at or below the ceiling, fail when all of it is above."""
    limit = Limit(value=rule.value, rising=False, said=f"at most {rule.value:g}")
    if rule.metric in BUDGETS:
        return [Finding(check=judge_budget(evidence.budget, rule), metric=rule.metric)]
    if rule.metric == DATA_AGE:
        age, recorded = evidence.data_age_days, evidence.declared.recorded
        check = judge_data_age(age, rule, recorded=recorded)
        return [Finding(check=check, metric=rule.metric)]
    if rule.metric in FAIR_FALLING:
        return judge_groups(evidence, rule.metric, limit)
    return judge_slices(evidence, rule, limit, evidence.measures.challenger)


def judge_no_worse(evidence: Evidence, rule: NoWorse) -> Found:
    """Non-inferiority: pass when the whole interval of the paired difference is within the margin.

    The difference is the challenger's metric less the champion's. Worse is less where a metric is
    better when greater, and more where it is better when smaller.
    """
    if evidence.champion is None:
        return [Finding(check=_without_champion(evidence, rule), metric=rule.metric)]
    rising = rule.metric in RISING
    limit = Limit(
        value=-rule.margin if rising else rule.margin, rising=rising, said=f"margin {rule.margin:g}"
    )
    return judge_slices(evidence, rule, limit, evidence.measures.difference)


def _without_champion(evidence: Evidence, rule: NoWorse) -> Check:
    """Return a pass where none serves; one that serves and could not be scored is no such case."""
    name = f"{rule.metric} no worse{' on any slice' if rule.slices else ''}"
    if why := evidence.incomparable:
        reason = f"the champion could not be scored: {why}"
        return Check(name=name, outcome=Outcome.ERROR, reason=reason, limit=rule.margin)
    reason = "no champion serves yet, so there is none to be worse than"
    return Check(name=name, outcome=Outcome.PASS, reason=reason)


def judge_least_cost(evidence: Evidence, rule: LeastCost) -> Finding:
    """Pass when the operating threshold surely costs hardly more than the best one.

    The best is chosen on validation rows, so the holdout rows on which both are compared, each row
    with itself, had no say in it. The level is conditional on that choice: that some other
    threshold costs less than the chosen one is not covered, so there must be rows enough to choose.
    """
    declared, best = evidence.declared, evidence.best_threshold
    if declared.costs is None:
        raise ValueError(f"{rule}: {declared.name} declares no costs; declare what errors cost.")
    rows = 0 if evidence.validation is None else evidence.validation.n
    enough = max(ENOUGH_TO_CHOOSE, declared.min_support)
    question = Question(
        name="regret of the operating threshold",
        estimate=evidence.regret,
        limit=Limit(value=rule.max_regret, rising=False, said=f"at most {rule.max_regret:g}"),
        n=evidence.challenger.n,
        unmeasured="no validation rows to choose the best threshold on; score the challenger there",
        unseen=too_few("validation has", rows, enough) if 0 < rows < enough else "",
        note=f"best from {best:.4g}" if best is not None else "",
        signed=True,
    )
    check = answer(question, min_support=declared.min_support)
    return Finding(check=check, metric="regret")


def judge_budget(budget: Mapping[str, Any], rule: AtMost) -> Check:
    """Pass when what was measured lies at or below the value; what was not measured is an error.

    So is what was measured beside a problem, and what takes no time or no memory.
    """
    known = {n: float(v) for n, v in budget.items() if _is_number(v)}
    if (problem := budget.get("problem")) or known.get(rule.metric, 0.0) <= 0:
        found = f"measured were {', '.join(f'{n} {known[n]:g}' for n in sorted(known)) or 'none'}"
        reason = f"{problem or found}; measure the artifact that serves"
        return Check(name=rule.metric, outcome=Outcome.ERROR, reason=reason, limit=rule.value)
    return _single(rule, known[rule.metric])


def judge_data_age(age_days: float | None, rule: AtMost, *, recorded: bool) -> Check:
    """Pass when the training rows are young enough; an unknown age is an error.

    Args:
        recorded: Whether it counts until the rows were taken, and not until now.
    """
    if age_days is None or not math.isfinite(age_days) or age_days < 0:
        reason = f"the age is {age_days}; give the days since the training rows' events"
        return Check(name=rule.metric, outcome=Outcome.ERROR, reason=reason, limit=rule.value)
    until = "until the recording was taken, not until now" if recorded else "until now"
    return _single(rule, age_days, said=f" days; nine training rows in ten are as old, {until}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _single(rule: AtMost, value: float, *, said: str = "") -> Check:
    return Check(
        name=rule.metric,
        outcome=Outcome.PASS if value <= rule.value else Outcome.FAIL,
        reason=f"{value:.4g}, at most {rule.value:g}{said}",
        value=value,
        limit=rule.value,
    )
