"""The numbers behind a judgement, as plain values: what the report draws and others read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from penstock.gate.evidence import Evidence
from penstock.gate.parts import Finding
from penstock.stats import fairness, losses, operating
from penstock.stats.calibration import reliability
from penstock.stats.estimates import ALPHA, Estimate
from penstock.stats.intervals import wilson
from penstock.stats.measures import allowed
from penstock.stats.scored import Scored
from penstock.verdict import worst
from penstock.workload import Workload

POINTS = 200
"""Most points of a curve: more than a plot of it shows."""


def none(declared: Workload, n: int, *, incomparable: str = "") -> dict[str, Any]:
    """Return the numbers of scores that none may be computed from.

    Args:
        incomparable: Why a champion that serves was not scored.
    """
    nothing = {"challenger": None, "champion": None, "difference": None}
    return {
        "n": n,
        "metric": declared.metric,
        "threshold": declared.threshold,
        "incomparable": incomparable,
        "metrics": {m: dict(nothing) for m in allowed(declared.classes, declared.costs)},
        "slices": [],
        "fairness": [],
        "costs": None,
        "roc": None,
        "roc_thresholds": None,
        "reliability": [],
        "confusion": [],
        "by_class": [],
    }


def of(evidence: Evidence, found: Sequence[Finding]) -> dict[str, Any]:
    """Return every number of a judgement; all are finite or None."""
    declared, challenger, champion = evidence.declared, evidence.challenger, evidence.champion
    empty = none(declared, challenger.n, incomparable=evidence.incomparable)
    if not challenger.n:
        return empty
    metrics = {metric: _compared(evidence, metric) for metric in empty["metrics"]}
    two = declared.classes == 2
    return {
        **empty,
        "metrics": metrics,
        "slices": [s for name in evidence.slices for s in _slice(evidence, name, found)],
        "fairness": [_fairness(name, groups) for name, groups in evidence.fair.items()],
        "costs": _costs(evidence),
        "roc": {"challenger": roc(challenger), "champion": champion and roc(champion)}
        if two
        else None,
        "roc_thresholds": roc_thresholds(challenger) if two else None,
        "reliability": [vars(b) for b in reliability(*losses.predicted(challenger))],
        "confusion": _confusion(challenger).tolist(),
        "by_class": [_class(challenger, label) for label in range(challenger.classes)],
    }


def _compared(evidence: Evidence, metric: str, part: str | None = None) -> dict[str, Any]:
    measures, args = evidence.measures, (metric,) if part is None else (metric, part)
    return {
        "challenger": _plain(measures.challenger(*args)),
        "champion": _plain(measures.champion(*args)),
        "difference": _plain(measures.difference(*args)),
    }


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_dict()


def _slice(evidence: Evidence, name: str, found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return a slice's numbers by the task's metric and by each that the policy asks of slices."""
    known = allowed(evidence.declared.classes, evidence.declared.costs)
    of_slice = [f for f in found if f.part == name and f.metric in known]
    metrics = dict.fromkeys([evidence.declared.metric, *(f.metric for f in of_slice)])
    rows = int(evidence.slices[name].sum())
    summed: list[dict[str, Any]] = []
    for metric in metrics:
        asked = [f for f in of_slice if f.metric == metric]
        outcome = worst(tuple(f.check.outcome for f in asked)) if asked else None
        margins = [f.margin for f in asked if f.margin is not None]
        summed.append(
            {
                "name": name,
                "n": rows,
                "metric": metric,
                **_compared(evidence, metric, name),
                "outcome": None if outcome is None else str(outcome),
                "margin": margins[0] if margins else None,
            }
        )
    return summed


def _fairness(attribute: str, groups: list[fairness.Group]) -> dict[str, Any]:
    return {
        "attribute": attribute,
        "groups": [
            {
                "name": g.name,
                "n": g.decided[1],
                "favoured": fairness.share(g.decided),
                "deserving": g.deserving[1],
                "opportunity": fairness.share(g.deserving),
            }
            for g in groups
        ],
        "adverse_impact_ratio": _plain(fairness.adverse_impact_ratio(groups)),
        "equal_opportunity_difference": _plain(fairness.equal_opportunity_difference(groups)),
    }


def _costs(evidence: Evidence) -> dict[str, Any] | None:
    costs, usual = evidence.declared.costs, evidence.declared.threshold
    if costs is None or usual is None:
        return None
    scored = evidence.challenger
    thresholds_t = thinned(np.unique(np.append(scored.probability_nk[:, 1], usual)))
    mean_t = operating.mean_costs(scored, costs, thresholds_t)
    return {
        **vars(costs),
        "threshold": usual,
        "best_threshold": evidence.best_threshold,
        "regret": _plain(evidence.regret),
        "curve": np.column_stack([thresholds_t, mean_t]).tolist(),
    }


def roc(scored: Scored) -> list[list[float]] | None:
    """Return points of the ROC curve, false then true positive rate; None without both labels."""
    ones, zeros = (np.sort(scored.odds_n[scored.labels_n == label]) for label in (1, 0))
    if not len(ones) or not len(zeros):
        return None
    at_t = _cuts(scored)
    rates = [1 - np.searchsorted(side, at_t, side="left") / len(side) for side in (zeros, ones)]
    return np.column_stack(rates).tolist()


def roc_thresholds(scored: Scored) -> list[float]:
    """Return the probability from which class 1 is decided at each point of the ROC curve."""
    return special.expit(_cuts(scored)).tolist()


def _cuts(scored: Scored) -> NDArray[np.float64]:
    """Return log-odds from which class 1 is decided: first so high that it never is."""
    return np.concatenate([[np.inf], thinned(np.unique(scored.odds_n))[::-1]])


def thinned(values_t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most about POINTS of sorted values, the first and the last among them."""
    if len(values_t) <= POINTS - 1:
        return values_t
    return values_t[np.linspace(0, len(values_t) - 1, POINTS - 1).round().astype(int)]


def _confusion(scored: Scored) -> NDArray[np.int64]:
    """Return how often each label, by row, was decided to be each class, by column."""
    counts = np.bincount(
        scored.labels_n * scored.classes + scored.decided_n, minlength=scored.classes**2
    )
    return counts.reshape(scored.classes, scored.classes)


def _class(scored: Scored, label: int) -> dict[str, Any]:
    right_n = scored.right_n[scored.labels_n == label]
    low, high = wilson(int(right_n.sum()), len(right_n), alpha=ALPHA)
    share = float(right_n.mean()) if len(right_n) else None
    return {"class": label, "n": len(right_n), "accuracy": share, "low": low, "high": high}
