"""What a network's logits decide, and how good that is: numbers in, numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

UNDECIDED = -1
"""Decision of a row whose logits are not all finite; no label is."""


def probabilities(logits_nk: NDArray[np.floating]) -> Floats:
    """Return the softmax of each row, shape [n, k]; rows that are not finite become NaN."""
    logits = np.asarray(logits_nk, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def decisions(logits_nk: NDArray[np.floating], *, threshold: float | None) -> Labels:
    """Return the decided class of each row, shape [n].

    Args:
        threshold: Probability of class 1 from which the decision is 1; None takes the most likely
            class.
    """
    finite = np.isfinite(logits_nk).all(axis=1)
    if threshold is None:
        decided = np.asarray(logits_nk).argmax(axis=1)
    else:
        decided = (probabilities(logits_nk)[:, 1] >= threshold).astype(np.int64)
    return np.where(finite, decided, UNDECIDED)


def scores(logits_nk: NDArray[np.floating]) -> Floats:
    """Return the log-odds of class 1, shape [n]: what a task of two classes ranks by."""
    return np.asarray(logits_nk[:, 1], np.float64) - np.asarray(logits_nk[:, 0], np.float64)


def measured(
    metric: str, logits_nk: NDArray[np.floating], labels_n: Labels, *, threshold: float | None
) -> float | None:
    """Return a task's metric, greater is better; None where the rows cannot tell.

    Args:
        metric: ``accuracy`` or ``auc``.

    Raises:
        ValueError: It is another.
    """
    if metric == "accuracy":
        if not len(labels_n):
            return None
        return float((decisions(logits_nk, threshold=threshold) == labels_n).mean())
    if metric == "auc":
        return auc(scores(logits_nk), labels_n)
    raise ValueError(f"there is no metric {metric!r}; there are accuracy and auc.")


def auc(scores_n: Floats, labels_n: Labels) -> float | None:
    """Return the area under the ROC curve: how often a 1 ranks above a 0, ties counting half.

    None without both labels or with a score that is not finite. Source: Mann and Whitney (1947),
    Annals of Mathematical Statistics 18, 50–60.

    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    ones = int((labels_n == 1).sum())
    zeros = len(labels_n) - ones
    if not ones or not zeros or not np.isfinite(scores_n).all():
        return None
    above = float(rankdata(scores_n)[labels_n == 1].sum()) - ones * (ones + 1) / 2
    return above / (ones * zeros)
