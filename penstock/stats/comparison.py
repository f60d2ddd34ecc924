"""Compare one step's outputs with those of the step before, overall and on each slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from penstock.stats import distance, drops, metrics
from penstock.stats.slices import ALL
from penstock.verdict import Check, Outcome
from penstock.workload import Limits, Rung

FLOOR = 1e-3
"""Outputs smaller than this count as this in relative errors."""

EQUALITY = 1e-3
"""A limit of a metric's drop below this asks for equal decisions, not for a statement on a rate.

No row lost of n shows a rate below 3.8 / n, so thousands of rows could not bear out such a limit.
"""

NOT_FINITE = 1e300
"""Written for an error that is infinite, which JSON cannot hold."""

WORST = 20

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One step against the one before, on one slice."""

    slice: str
    n: int
    finite: bool
    """Whether every output of both steps is a finite number; nothing passes without."""

    agreement: float
    """Share of examples with the same decision."""

    flips: int
    """Examples with another decision."""

    snr_db: float
    max_abs_error: float
    mean_abs_error: float
    max_relative_error: float
    """With a floor of ``FLOOR``."""

    least_cosine: float
    rank_correlation: float | None
    """Spearman's, of the scores of two classes, or of all logits; None where nothing varies."""

    max_probability_change: float
    metric: float | None
    """Of this step; None where the rows cannot tell: no labels, or one label only."""

    metric_drop: float | None
    """Metric of the step before minus this step's."""

    drop_low: float | None
    drop_high: float | None
    """Bounds of the drop's interval, two-sided at 95 %; see :mod:`penstock.stats.drops`."""


def compare(
    before_nk: Floats,
    after_nk: Floats,
    labels_n: Labels | None,
    slices: Mapping[str, NDArray[np.bool_]],
    *,
    metric: str,
    threshold: float | None,
) -> list[Comparison]:
    """Return the comparison over all rows, then over each slice that has any.

    Args:
        before_nk: Logits of the step before, shape [n, k].
        after_nk: Logits of the step, shape [n, k].
        labels_n: True classes, shape [n]; None for inputs that have none.
        slices: Which rows each holds, shape [n].

    Raises:
        ValueError: The shapes do not fit together, there is no row, or a slice is called as all
            rows are.
    """
    n = len(before_nk)
    if ALL in slices:
        raise ValueError(f"a slice is called {ALL!r}, as all rows are; give it another name.")
    fits = before_nk.shape == after_nk.shape and (labels_n is None or len(labels_n) == n)
    if not fits or not n or any(len(mask) != n for mask in slices.values()):
        raise ValueError(
            f"outputs of shape {before_nk.shape} and {after_nk.shape} for "
            f"{'no' if labels_n is None else len(labels_n)} labels; run both steps on the same, "
            "non-empty holdout revision."
        )
    parts = {ALL: np.ones(n, bool), **slices}
    return [
        _one(
            name,
            before_nk[where],
            after_nk[where],
            None if labels_n is None else labels_n[where],
            metric=metric,
            threshold=threshold,
        )
        for name, where in parts.items()
        if where.any()
    ]


def _one(
    name: str,
    before_nk: Floats,
    after_nk: Floats,
    labels_n: Labels | None,
    *,
    metric: str,
    threshold: float | None,
) -> Comparison:
    finite = distance.finite(before_nk, after_nk)
    same = metrics.decisions(before_nk, threshold=threshold) == metrics.decisions(
        after_nk, threshold=threshold
    )
    lost = drops.drop(metric, before_nk, after_nk, labels_n, threshold=threshold)
    return Comparison(
        slice=name,
        n=len(before_nk),
        finite=finite,
        agreement=float(same.mean()) if finite else 0.0,
        flips=int((~same).sum()),
        snr_db=distance.snr_db(before_nk, after_nk),
        max_abs_error=float(np.abs(before_nk - after_nk).max()) if finite else NOT_FINITE,
        mean_abs_error=min(distance.mean_abs_error(before_nk, after_nk), NOT_FINITE),
        max_relative_error=min(
            distance.relative_error(before_nk, after_nk, floor=FLOOR), NOT_FINITE
        ),
        least_cosine=distance.least_cosine(before_nk, after_nk),
        rank_correlation=_rank_correlation(before_nk, after_nk) if finite else None,
        max_probability_change=_probability_change(before_nk, after_nk) if finite else 1.0,
        metric=None if lost is None else lost.metric,
        metric_drop=None if lost is None else lost.value,
        drop_low=None if lost is None else lost.low,
        drop_high=None if lost is None else lost.high,
    )


def _probability_change(before_nk: Floats, after_nk: Floats) -> float:
    change = np.abs(metrics.probabilities(before_nk) - metrics.probabilities(after_nk))
    return float(change.max())


def _rank_correlation(before_nk: Floats, after_nk: Floats) -> float | None:
    """Return Spearman's rank correlation: Pearson's of the ranks, ties at their mean rank."""
    if before_nk.shape[1] == 2:
        one, other = metrics.scores(before_nk), metrics.scores(after_nk)
    else:
        one, other = before_nk.ravel(), after_nk.ravel()
    ranks = np.stack([rankdata(one), rankdata(other)])
    if (ranks.std(axis=1) == 0).any():
        return None
    return float(np.clip(np.corrcoef(ranks)[0, 1], -1, 1))


def worst(
    before_nk: Floats, after_nk: Floats, *, threshold: float | None, most: int = WORST
) -> list[tuple[int, int, int, float]]:
    """Return the inputs that fare worst: row, decision before, decision after, largest error.

    Those that are decided otherwise come first, then those with the largest errors; an output that
    is not finite is the largest.
    """
    errors = np.nan_to_num(np.abs(before_nk - after_nk).max(axis=1), nan=NOT_FINITE,
                           posinf=NOT_FINITE)  # fmt: skip
    one = metrics.decisions(before_nk, threshold=threshold)
    other = metrics.decisions(after_nk, threshold=threshold)
    order = np.lexsort((-errors, one == other))[:most]
    return [(int(i), int(one[i]), int(other[i]), float(errors[i])) for i in order]


def judge(
    step: str, comparisons: list[Comparison], rung: Rung, *, min_support: int, labelled: bool = True
) -> Iterator[Check]:
    """Yield the checks of one step. Too few rows, of all or a slice, are inconclusive, not a pass.

    Overall, the whole interval of the metric's drop must lie under its limit; on a slice, which
    seldom has the rows for that, the drop itself. A limit below ``EQUALITY`` is of a step that
    should change nothing: it is kept too where no decision differs, which is a statement on these
    rows, whatever rate they could show; the reason says so. How many rows there are does not
    enter, or fewer would pass more easily. An output that is not finite fails its slice whatever
    the limits are and however few rows it has.

    Args:
        step: Name of the step in the checks: ``onnx``, ``int8``.
        min_support: Rows that all of them, or a slice, must be to be judged.
        labelled: Whether the inputs have labels; without them no metric is asked for.
    """
    for found in comparisons:
        whole = found.slice == ALL
        name = f"{step} {found.slice}"
        if not found.finite:
            yield finite(step, found)
            continue
        if found.n < min_support:
            yield unseen(name, found.n, min_support)
            continue
        limits = rung.whole if whole else rung.limits(found.slice)
        yield _at_least(f"{name} agreement", found.agreement, limits.min_agreement, found.n)
        if labelled:
            yield _drop_check(name, found, limits, whole=whole)
        yield from _optional(name, found, limits)


def unseen(name: str, n: int, min_support: int) -> Check:
    """Return the check of all rows or a slice, too few to say anything."""
    reason = f"{n} rows, {min_support} needed"
    return Check(name=name, outcome=Outcome.INCONCLUSIVE, reason=reason)


def finite(step: str, found: Comparison) -> Check:
    """Return the check that every output, of the step and of the one before, is a finite number."""
    said = "all outputs are finite" if found.finite else "an output is not a finite number"
    return Check(
        name=f"{step} {found.slice} finite",
        outcome=Outcome.PASS if found.finite else Outcome.FAIL,
        reason=f"{said}, {found.n} rows",
        value=float(found.finite),
        limit=1.0,
    )


def _optional(name: str, found: Comparison, limits: Limits) -> Iterator[Check]:
    if limits.min_snr_db is not None:
        yield _at_least(f"{name} signal to noise (dB)", found.snr_db, limits.min_snr_db, found.n)
    if limits.min_rank_correlation is not None:
        asked = f"{name} rank correlation"
        if found.rank_correlation is None:
            yield Check(
                name=asked, outcome=Outcome.ERROR, reason="the scores of one step are all equal"
            )
        else:
            yield _at_least(asked, found.rank_correlation, limits.min_rank_correlation, found.n)
    if limits.max_probability_change is not None:
        value, most = found.max_probability_change, limits.max_probability_change
        yield Check(
            name=f"{name} change of a probability",
            outcome=Outcome.PASS if value <= most else Outcome.FAIL,
            reason=f"{value:.4f} on {found.n} rows, at most {most:g}",
            value=value,
            limit=most,
        )


def _at_least(name: str, value: float, limit: float, n: int) -> Check:
    return Check(
        name=name,
        outcome=Outcome.PASS if value >= limit else Outcome.FAIL,
        reason=f"{value:.4g} on {n} rows, at least {limit:g}",
        value=value,
        limit=limit,
    )


def _drop_check(name: str, found: Comparison, limits: Limits, *, whole: bool) -> Check:
    limit, drop, high = limits.max_metric_drop, found.metric_drop, found.drop_high
    name = f"{name} metric drop"
    if drop is None:
        reason = f"{found.n} rows with one label only cannot tell"
        return Check(name=name, outcome=Outcome.INCONCLUSIVE, reason=reason, limit=limit)
    equal = limit < EQUALITY and found.flips == 0 and drop == 0
    unsure = whole and not equal and (high is None or high > limit)
    outcome = Outcome.INCONCLUSIVE if unsure else Outcome.PASS
    said = "no decision differs" if equal else f"{drop:+.4f}{_interval(found)}"
    return Check(
        name=name,
        outcome=Outcome.FAIL if drop > limit else outcome,
        reason=f"{said} on {found.n} rows, at most {limit:g}",
        value=drop,
        limit=limit,
    )


def _interval(found: Comparison) -> str:
    if found.drop_low is None or found.drop_high is None:
        return " (too few rows for an interval)"
    return f" [{found.drop_low:+.4f}, {found.drop_high:+.4f}]"
