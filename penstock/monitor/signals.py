"""Signals: what of a verdict retrain decides on, and what kind of drift it shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.monitor.look import Found
from penstock.stats.slices import ALL
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Workload

UNKNOWN = "unknown"


def of(declared: Workload, found: Found) -> dict[str, Any]:
    """Return what ``signals.json`` holds, plain values."""
    psi: Mapping[str, float] = {} if found.moved is None else found.moved.psi
    worst = max(psi, key=lambda name: psi[name], default=None)
    return {
        "workload": declared.name,
        "version": found.version,
        "since": found.asked.since.isoformat(),
        "until": found.asked.until.isoformat(),
        "errors": [f"{c.name}: {c.reason}" for c in found.verdict.checks
                   if c.outcome is Outcome.ERROR],
        "evidence": _told(found.evidence),
        "quality": _told(found.quality),
        "drift": {**_told(found.drift), "feature": worst, "psi": None if worst is None else
                  psi[worst]},
        "scores": _told(found.scores),
        "performance": _performance(found),
        "diagnosis": diagnosis(found),
    }  # fmt: skip


def _told(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the worst outcome, and the sentence that decided; ``unknown`` of nothing."""
    if not checks:
        return {"outcome": UNKNOWN, "reason": "nothing was looked at"}
    verdict = Verdict(tuple(checks))
    return {"outcome": str(verdict.outcome), "reason": verdict.reason}


def _performance(found: Found) -> dict[str, Any]:
    """Return how the metric fared on all rows, and on which slices it fell."""
    if not found.realized:
        return {"outcome": UNKNOWN, "reason": "no outcomes are known", "metric": None,
                "registered": None, "drop": None, "fallen": []}  # fmt: skip
    whole = next(one for one in found.realized if one.part == ALL)
    return {
        "outcome": str(whole.check.outcome),
        "reason": whole.check.reason,
        "metric": whole.metric,
        "registered": None if whole.registered is None else whole.registered["value"],
        "drop": None if whole.change is None else -whole.change[0],
        "fallen": [
            one.part
            for one in found.realized
            if one.part != ALL and one.check.outcome is Outcome.FAIL
        ],
    }


def diagnosis(found: Found) -> str:
    """Return in a sentence what moved: what is asked, p(x), or what is right, p(y given x)."""
    moved = _worst((*found.drift, *found.scores))
    right = _worst(found.performance[:1])
    said = {
        Outcome.FAIL: "p(x) moved",
        Outcome.PASS: "p(x) did not move",
        Outcome.INCONCLUSIVE: "whether p(x) moved, too few users tell",
    }.get(moved, "nothing is known of p(x)")
    if right is Outcome.FAIL:
        kind = "concept drift" if moved is not Outcome.FAIL else "what is right fell with it"
        return f"{said}; p(y given x): the metric fell, {kind}"
    if right is Outcome.PASS:
        return f"{said}; p(y given x): the metric holds"
    few = "too few outcomes tell" if right is Outcome.INCONCLUSIVE else "no outcomes, so unknown"
    return f"{said}; p(y given x): {few}"


def _worst(checks: Sequence[Check]) -> Outcome:
    """Return the worst outcome; of nothing, an error."""
    return Verdict(tuple(checks)).outcome
