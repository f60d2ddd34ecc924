"""Judge a challenger's scores against the policy and the champion's scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.stats.intervals import paired_difference, wilson
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import AtLeast, AtMost, NoWorse, Rule

ALPHA = 0.05
"""Every interval is two-sided at 1 - ALPHA, divided among the slices where there are several."""

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one model made of the holdout."""

    labels_n: NDArray[np.int64]
    decided_n: NDArray[np.int64]

    @property
    def right_n(self) -> NDArray[np.float64]:
        """1 where the decision was right, else 0, shape [n]."""
        return (self.labels_n == self.decided_n).astype(np.float64)


def judge(
    rules: tuple[Rule, ...],
    challenger: Scores,
    champion: Scores | None,
    *,
    budget: Mapping[str, Any],
    classes: int,
    rng: np.random.Generator,
) -> Verdict:
    """Return the verdict of every rule. Only a pass may be registered.

    Args:
        budget: What the artifact that will serve costs, by name of the measure.
        champion: Scores on the same holdout; None when no version serves yet, which each rule that
            compares then says.

    Raises:
        ValueError: A rule asks for a metric that is not known, or the labels differ.
    """
    if champion is not None and not np.array_equal(champion.labels_n, challenger.labels_n):
        raise ValueError(
            "challenger and champion were scored on different labels; score both models on the "
            "same holdout revision."
        )
    checks: list[Check] = []
    for rule in rules:
        if isinstance(rule, AtMost):
            checks.append(judge_at_most(budget, rule))
            continue
        if rule.metric != "accuracy":
            raise ValueError(f"the gate knows the metric 'accuracy', not {rule.metric!r}.")
        if isinstance(rule, AtLeast):
            checks.append(judge_at_least(challenger, rule))
        elif rule.slices:
            checks += _slices(challenger, champion, rule, classes=classes, rng=rng)
        else:
            checks.append(judge_no_worse(challenger, champion, rule, alpha=ALPHA, rng=rng))
    return Verdict(tuple(checks))


def judge_at_least(challenger: Scores, rule: AtLeast) -> Check:
    """Pass when the whole interval reaches the floor, fail when none of it does."""
    right, n = int(challenger.right_n.sum()), len(challenger.right_n)
    low, high = wilson(right, n, alpha=ALPHA)
    outcome = (
        Outcome.ERROR
        if n == 0
        else Outcome.PASS
        if low >= rule.value
        else Outcome.FAIL
        if high < rule.value
        else Outcome.INCONCLUSIVE
    )
    share = right / n if n else 0.0
    return Check(
        name=rule.metric,
        outcome=outcome,
        reason=f"{share:.4f} [{low:.4f}, {high:.4f}], at least {rule.value:g}",
        value=share,
        limit=rule.value,
    )


def judge_at_most(budget: Mapping[str, Any], rule: AtMost) -> Check:
    """Pass when what was measured lies at or below the value; what was not measured is an error."""
    numbers = {n: float(v) for n, v in budget.items() if isinstance(v, int | float)}
    value = numbers.get(rule.metric)
    if value is None or not math.isfinite(value):
        why = budget.get("problem") or f"measured were {', '.join(sorted(numbers)) or 'nothing'}"
        return Check(name=rule.metric, outcome=Outcome.ERROR, reason=why, limit=rule.value)
    return Check(
        name=rule.metric,
        outcome=Outcome.PASS if value <= rule.value else Outcome.FAIL,
        reason=f"{value:.4g}, at most {rule.value:g}",
        value=value,
        limit=rule.value,
    )


def judge_no_worse(
    challenger: Scores,
    champion: Scores | None,
    rule: NoWorse,
    *,
    alpha: float,
    rng: np.random.Generator,
    name: str = "",
) -> Check:
    """Non-inferiority: pass when the whole interval of the paired difference lies above -margin."""
    name = name or f"{rule.metric} no worse than the champion's"
    if champion is None:
        reason = "no champion serves yet, so there is none to be worse than"
        return Check(name=name, outcome=Outcome.PASS, reason=reason, limit=-rule.margin)
    if not len(challenger.right_n):
        return Check(name=name, outcome=Outcome.ERROR, reason="no examples", limit=-rule.margin)
    mean, low, high = paired_difference(
        challenger.right_n, champion.right_n, alpha=alpha, resamples=RESAMPLES, rng=rng
    )
    outcome = (
        Outcome.PASS
        if low > -rule.margin
        else Outcome.FAIL
        if high < -rule.margin
        else Outcome.INCONCLUSIVE
    )
    return Check(
        name=name,
        outcome=outcome,
        reason=f"{mean:+.4f} [{low:+.4f}, {high:+.4f}], margin {rule.margin:g}",
        value=mean,
        limit=-rule.margin,
    )


def _slices(
    challenger: Scores,
    champion: Scores | None,
    rule: NoWorse,
    *,
    classes: int,
    rng: np.random.Generator,
) -> Iterator[Check]:
    for label in range(classes):
        where = challenger.labels_n == label
        yield judge_no_worse(
            _of(challenger, where),
            None if champion is None else _of(champion, where),
            rule,
            alpha=ALPHA / classes,
            rng=rng,
            name=f"{rule.metric} of class {label} no worse",
        )


def _of(scores: Scores, where: NDArray[np.bool_]) -> Scores:
    return Scores(labels_n=scores.labels_n[where], decided_n=scores.decided_n[where])
