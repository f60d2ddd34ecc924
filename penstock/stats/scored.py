"""Scored: what one model made of labelled rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from penstock.stats import metrics

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One model's outputs for rows whose labels are known."""

    labels_n: Labels
    """True classes, from 0, shape [n]."""

    logits_nk: NDArray[np.floating]
    """Shape [n, k]; they may hold what is not finite, which :attr:`finite_n` tells."""

    threshold: float | None
    """Probability of class 1 from which the decision is 1; None takes the most likely class."""

    def __post_init__(self) -> None:
        labels, logits = np.asarray(self.labels_n), np.asarray(self.logits_nk)
        if labels.ndim != 1 or logits.ndim != 2 or len(labels) != len(logits):
            raise ValueError(
                f"labels of shape {labels.shape} for logits of shape {logits.shape}; give [n] "
                "labels and [n, k] logits of the same rows."
            )
        if logits.shape[1] < 2 or (self.threshold is not None and logits.shape[1] != 2):
            raise ValueError(
                f"logits are of {logits.shape[1]} classes; give 2 where there is a threshold, and "
                "2 or more where there is none."
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels are {labels.dtype}; give whole numbers, the classes.")
        if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
            raise ValueError(
                f"labels run from {labels.min()} to {labels.max()} for logits of "
                f"{logits.shape[1]} classes; give classes from 0 on."
            )

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.labels_n)

    @property
    def classes(self) -> int:
        """Classes that the model knows."""
        return self.logits_nk.shape[1]

    @cached_property
    def finite_n(self) -> Rows:
        """Rows all of whose logits are finite numbers."""
        return np.asarray(np.isfinite(self.logits_nk).all(axis=1))

    @cached_property
    def probability_nk(self) -> Floats:
        """Probability of each class, shape [n, k]; NaN in rows that are not finite."""
        return metrics.probabilities(self.logits_nk)

    @cached_property
    def decided_n(self) -> Labels:
        """The decided class of each row, shape [n]; ``metrics.UNDECIDED`` where not finite."""
        return metrics.decisions(self.logits_nk, threshold=self.threshold)

    @property
    def right_n(self) -> Floats:
        """1 where the decision was right, else 0, shape [n]."""
        return (self.labels_n == self.decided_n).astype(np.float64)

    @property
    def odds_n(self) -> Floats:
        """Log-odds of class 1, shape [n]: what two classes are ranked by."""
        return metrics.scores(self.logits_nk)

    def part(self, where_n: Rows) -> Scored:
        """Return the rows where ``where_n``, of shape [n], is true."""
        return Scored(
            labels_n=self.labels_n[where_n],
            logits_nk=self.logits_nk[where_n],
            threshold=self.threshold,
        )
