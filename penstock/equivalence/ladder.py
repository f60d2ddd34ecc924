"""Compare the outputs of one step with those of the step before, overall and on each slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.stats import distance
from penstock.verdict import Check, Outcome
from penstock.workload import Rung

ALL = "all"

FLOOR = 1e-3
"""Outputs smaller than this count as this in relative errors."""

NOT_FINITE = 1e300
"""Written for an error that is infinite, which JSON cannot hold."""

WORST = 20


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One step against the one before, on one slice."""

    slice: str
    n: int
    agreement: float
    """Share of examples with the same decision."""

    snr_db: float
    max_abs_error: float
    mean_abs_error: float
    max_relative_error: float
    """With a floor of ``FLOOR``."""

    least_cosine: float
    accuracy: float
    accuracy_drop: float
    """Accuracy of the step before minus this step's, 0 to 1."""


def compare(
    before_nk: NDArray[np.float64],
    after_nk: NDArray[np.float64],
    labels_n: NDArray[np.int64],
    *,
    classes: int,
) -> list[Comparison]:
    """Return the comparison over all rows, then over each class.

    Args:
        before_nk, after_nk: Logits of the two steps, shape [n, k].
        labels_n: True classes, shape [n].

    Raises:
        ValueError: The shapes do not fit together, or there is no row.
    """
    if before_nk.shape != after_nk.shape or len(labels_n) != len(before_nk) or not len(labels_n):
        raise ValueError(
            f"outputs of shape {before_nk.shape} and {after_nk.shape} for {len(labels_n)} labels; "
            "run both steps on the same, non-empty holdout revision."
        )
    slices = [(ALL, np.ones(len(labels_n), bool))]
    slices += [(f"class {c}", labels_n == c) for c in range(classes)]
    return [
        _one(name, before_nk[where], after_nk[where], labels_n[where])
        for name, where in slices
        if where.any()
    ]


def _one(
    name: str,
    before_nk: NDArray[np.float64],
    after_nk: NDArray[np.float64],
    labels_n: NDArray[np.int64],
) -> Comparison:
    decided_before, decided_after = before_nk.argmax(axis=1), after_nk.argmax(axis=1)
    accuracy = float((decided_after == labels_n).mean())
    finite = bool(np.isfinite(after_nk).all())
    return Comparison(
        slice=name,
        n=len(labels_n),
        agreement=float((decided_before == decided_after).mean()) if finite else 0.0,
        snr_db=distance.snr_db(before_nk, after_nk),
        max_abs_error=float(np.abs(before_nk - after_nk).max()) if finite else NOT_FINITE,
        mean_abs_error=min(distance.mean_abs_error(before_nk, after_nk), NOT_FINITE),
        max_relative_error=min(
            distance.relative_error(before_nk, after_nk, floor=FLOOR), NOT_FINITE
        ),
        least_cosine=distance.least_cosine(before_nk, after_nk),
        accuracy=accuracy,
        accuracy_drop=float((decided_before == labels_n).mean()) - accuracy,
    )


def worst(
    before_nk: NDArray[np.float64], after_nk: NDArray[np.float64], *, most: int = WORST
) -> list[tuple[int, int, int, float]]:
    """Return the inputs that fare worst: row, decision before, decision after, largest error.

    Those that are decided otherwise come first, then those with the largest errors; an output that
    is not finite is the largest.
    """
    errors = np.nan_to_num(np.abs(before_nk - after_nk).max(axis=1), nan=NOT_FINITE,
                           posinf=NOT_FINITE)  # fmt: skip
    one, other = before_nk.argmax(axis=1), after_nk.argmax(axis=1)
    order = np.lexsort((-errors, one == other))[:most]
    return [(int(i), int(one[i]), int(other[i]), float(errors[i])) for i in order]


def judge(
    step: str, comparisons: list[Comparison], rung: Rung, *, min_support: int
) -> Iterator[Check]:
    """Yield the checks of one step. A slice with too few rows is inconclusive, never a pass.

    Args:
        step: Name of the step in the checks: ``onnx``, ``int8``.
        min_support: Rows a slice needs to be judged.
    """
    for found in comparisons:
        whole = found.slice == ALL
        least = rung.min_agreement if whole else rung.min_slice_agreement
        most = rung.max_accuracy_drop if whole else rung.max_slice_accuracy_drop
        if not whole and found.n < min_support:
            yield Check(
                name=f"{step} {found.slice}",
                outcome=Outcome.INCONCLUSIVE,
                reason=f"{found.n} rows, {min_support} needed",
            )
            continue
        yield _at_least(f"{step} {found.slice} agreement", found.agreement, least, found.n)
        yield _at_most(f"{step} {found.slice} accuracy drop", found.accuracy_drop, most)
        if whole:
            yield _at_least(f"{step} signal to noise (dB)", found.snr_db, rung.min_snr_db, found.n)


def _at_least(name: str, value: float, limit: float, n: int) -> Check:
    return Check(
        name=name,
        outcome=Outcome.PASS if value >= limit else Outcome.FAIL,
        reason=f"{value:.4g} on {n} rows, at least {limit:g}",
        value=value,
        limit=limit,
    )


def _at_most(name: str, value: float, limit: float) -> Check:
    return Check(
        name=name,
        outcome=Outcome.PASS if value <= limit else Outcome.FAIL,
        reason=f"{value:+.4f}, at most {limit:g}",
        value=value,
        limit=limit,
    )
