"""Judge whether what the champion says has moved from what it said of the holdout. Pure.

No label is needed: a model that suddenly decides otherwise, or is less sure, is often the first to
notice that its world is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.monitor.weighing import weighed
from penstock.stats.drift import CHANCE, Distance, js_distance, psi_distance
from penstock.verdict import Check, Outcome
from penstock.watching import Watch

Floats = NDArray[np.float64]


def judge(
    scores: Mapping[str, Any], answered: pa.Table, watch: Watch, *, users: int
) -> list[Check]:
    """Return checks of the decisions' distribution and of the mean confidence.

    Args:
        scores: What the package's ``scores.json`` holds of the holdout.
        answered: Answered requests, with a list of ``label`` and ``probability`` for each.
        users: Of the requests; those of one user are alike.
    """
    decided = np.asarray(pc.list_flatten(answered["label"]).to_numpy())
    chance = np.asarray(pc.list_flatten(answered["probability"]).cast(pa.float64()).to_numpy())
    if not len(decided) or len(decided) != len(chance):
        reason = "no answer holds both a decision and its probability"
        return [Check(name="scores", outcome=Outcome.ERROR, reason=reason)]
    units = min(users, len(decided))
    return [*_decisions(scores, decided, watch, units), _confidence(scores, decided, chance, watch,
                                                                    units)]  # fmt: skip


def _decisions(
    scores: Mapping[str, Any], decided: NDArray[np.int64], watch: Watch, units: int
) -> list[Check]:
    """Return how far the shares of the decided classes are from those of the holdout."""
    confusion = np.array(scores["confusion"], np.float64)
    if not confusion.size:
        return [_unknown("decisions")]
    reference = confusion.sum(axis=0)
    counted = np.bincount(decided, minlength=len(reference)).astype(np.float64)
    if len(counted) > len(reference):
        reason = f"class {len(counted) - 1} was decided, the holdout knows {len(reference)} classes"
        return [Check(name="scores: decisions", outcome=Outcome.ERROR, reason=reason)]
    pair = reference, counted * (units / counted.sum())
    found = {
        "PSI": (psi_distance(*pair), watch.psi),  # pyright: ignore[reportArgumentType] - scaled
        "JS": (js_distance(*pair), watch.js),  # pyright: ignore[reportArgumentType]
    }
    return [weighed(f"scores: decisions {name}", *given) for name, given in found.items()]


def _confidence(
    scores: Mapping[str, Any], decided: NDArray[np.int64], chance: Floats, watch: Watch, units: int
) -> Check:
    """Return how far the mean probability is from the holdout's.

    It is that of class 1 of two, else of what was decided, as the gate's bins have it.
    """
    bins = scores["reliability"]
    if not bins:
        return _unknown("confidence")
    two = len(scores["confusion"]) == 2
    said = np.where(decided == 1, chance, 1 - chance) if two else chance
    n = np.array([b["n"] for b in bins], np.float64)
    mean = float((n * [b["predicted"] for b in bins]).sum() / n.sum())
    # Bins are of neighbours: what varies within one is little beside what varies between them.
    spread = float((n * ([b["predicted"] for b in bins] - np.array(mean)) ** 2).sum() / n.sum())
    # Of few answers, which may all be alike, the holdout says how much they vary.
    scale = float(np.sqrt(spread / n.sum() + max(float(said.var()), spread) / units))
    value = abs(float(said.mean()) - mean)
    normal = NormalDist()
    distance = Distance(
        value=value,
        noise=normal.inv_cdf(1 - CHANCE / 2) * scale,
        p=2 * normal.cdf(-value / scale) if scale > 0 else float(value == 0),
    )
    check = weighed("scores: confidence", distance, watch.max_confidence_change)
    what = "mean probability of class 1" if two else "mean probability of what is decided"
    said_of = f"{what} {said.mean():.3f}, {mean:.3f} on the holdout: {check.reason}"
    return Check(name=check.name, outcome=check.outcome, reason=said_of, value=value,
                 limit=check.limit)  # fmt: skip


def _unknown(what: str) -> Check:
    reason = "the package does not say what it was on the holdout; register the version again"
    return Check(name=f"scores: {what}", outcome=Outcome.ERROR, reason=reason)
