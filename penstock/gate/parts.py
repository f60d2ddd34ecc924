"""Ask a rule of parts of the rows: of every slice, and of the groups of every attribute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from penstock.gate.evidence import Evidence
from penstock.gate.rules import Limit, Question, answer, answer_all, too_few
from penstock.policy import FAIR_RISING, AtLeast, AtMost, NoWorse
from penstock.stats import fairness
from penstock.stats.estimates import Estimate
from penstock.stats.losses import LEAST_PROBABILITY, clipped
from penstock.stats.measures import allowed
from penstock.stats.slices import ALL
from penstock.verdict import Check, Outcome

Ruled = AtLeast | AtMost | NoWorse
Measured = Callable[[str, str], Estimate | None]
"""Of a metric and a part of the rows."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A check, and what it is of."""

    check: Check
    metric: str
    part: str = ALL
    margin: float | None = None


def judge_slices(
    evidence: Evidence, rule: Ruled, limit: Limit, measured: Measured
) -> list[Finding]:
    """Ask a rule of all rows and, where it says so, of every slice too.

    A rule of slices leaves all rows to another rule of its kind that asks the metric of them alone.

    Raises:
        ValueError: The workload has no such metric.
    """
    declared = evidence.declared
    if rule.metric not in allowed(declared.classes, declared.costs):
        raise ValueError(
            f"{rule}: {declared.name} has the metrics "
            f"{', '.join(allowed(declared.classes, declared.costs))}; ask for one of them."
        )
    checks: dict[str, Check] = {}
    if not _left_to_another(rule, declared.gate):
        whole = _question(evidence, rule, ALL, limit, measured)
        checks[ALL] = answer(whole, min_support=declared.min_support)
    if rule.slices:
        asked = [_question(evidence, rule, part, limit, measured) for part in evidence.slices]
        answers = answer_all(asked, min_support=declared.min_support)
        checks |= dict(zip(evidence.slices, answers, strict=True)) or {"no slice": _no_slice(rule)}
    margin = rule.margin if isinstance(rule, NoWorse) else None
    return [
        Finding(check=check, metric=rule.metric, part=part, margin=margin)
        for part, check in checks.items()
    ]


def _left_to_another(rule: Ruled, gate: tuple[object, ...]) -> bool:
    others = (other for other in gate if isinstance(other, type(rule)) and not other.slices)
    return rule.slices and any(other.metric == rule.metric for other in others)


def _question(
    evidence: Evidence, rule: Ruled, part: str, limit: Limit, measured: Measured
) -> Question:
    where_n = evidence.measures.parts[part]
    note = ""
    if rule.metric == "log_loss" and (few := clipped(evidence.challenger.part(where_n))):
        note = f"{few} probabilities below {LEAST_PROBABILITY:g} count as that"
    return Question(
        name=_name(rule, part),
        estimate=measured(rule.metric, part),
        limit=limit,
        n=int(where_n.sum()),
        unmeasured=f"{rule.metric} needs rows of both labels; these have one, ask another metric",
        note=note,
        signed=isinstance(rule, NoWorse),
    )


def _name(rule: Ruled, part: str) -> str:
    of = "" if part == ALL else f" of {part}"
    if not isinstance(rule, NoWorse):
        return f"{rule.metric}{of}"
    return f"{rule.metric}{of} no worse" + (" than the champion's" if part == ALL else "")


def _no_slice(rule: Ruled) -> Check:
    return Check(
        name=_name(rule, "every slice"),
        outcome=Outcome.ERROR,
        reason="no slice came with the scores; give the rows of those that are declared",
    )


def judge_groups(evidence: Evidence, metric: str, limit: Limit) -> list[Finding]:
    """Ask a fairness metric of every sensitive attribute.

    Groups with too few rows are left out and named; what is left may show harm but no pass.
    """
    declared = evidence.declared
    questions = [_of_attribute(evidence, s.name, metric, limit) for s in declared.sensitive]
    checks = answer_all(questions, min_support=declared.min_support)
    return [
        Finding(check=check, metric=metric, part=s.name)
        for s, check in zip(declared.sensitive, checks, strict=True)
    ]


def _of_attribute(evidence: Evidence, attribute: str, metric: str, limit: Limit) -> Question:
    groups = evidence.fair.get(attribute, [])
    ratio, support = metric in FAIR_RISING, evidence.declared.min_support
    rows = {g.name: (g.decided if ratio else g.deserving)[1] for g in groups}
    seen = [g for g in groups if rows[g.name] >= support]
    what = f"{metric} of {attribute}"
    measure = fairness.adverse_impact_ratio if ratio else fairness.equal_opportunity_difference
    small = [too_few(f"group {name!r} has", n, support) for name, n in rows.items() if n < support]
    return Question(
        name=what,
        estimate=measure(seen),
        limit=limit,
        n=sum(rows.values()),
        unmeasured="nobody was decided favourably, so no group less often than another",
        unseen=", ".join(small),
    )
