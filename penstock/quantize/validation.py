"""Judge a graph on validation rows: the newest training rows, which set no range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from penstock.stats import comparison, metrics
from penstock.stats.distance import snr_db
from penstock.verdict import Check, Outcome
from penstock.workload import Network

Floats = NDArray[np.float64]

MOST_ROWS = 8192
"""Validation rows used at most, evenly spaced: every trial of a layer runs all of them."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good a graph's answers are, beside those of the float graph."""

    metric: float | None
    """Of the task; None where the rows cannot tell."""

    agreement: float
    snr_db: float


@dataclass(frozen=True)
class Validation:
    """Rows with labels, and what the float graph says of them."""

    declared: Network
    inputs_n: NDArray[np.float32]
    labels_n: NDArray[np.int64]
    slices: Mapping[str, NDArray[np.bool_]]
    reference_nk: Floats

    def score(self, logits_nk: Floats) -> Score:
        """Return how good these answers are."""
        limit = self.declared.threshold
        one, other = (
            metrics.decisions(nk, threshold=limit) for nk in (self.reference_nk, logits_nk)
        )
        return Score(
            metric=metrics.measured(
                self.declared.metric, logits_nk, self.labels_n, threshold=limit
            ),
            agreement=float((one == other).mean()),
            snr_db=snr_db(self.reference_nk, logits_nk),
        )

    def gaps(self, logits_nk: Floats) -> dict[str, float]:
        """Return the checks of the int8 step that fail, and how far each is beyond its limit.

        The same checks as the equivalence stage's, overall and on each slice with enough rows; a
        smaller slice decides nothing here, all rows do however few they are. A check that cannot
        be answered, and could be for the float graph, is beyond its limit by 1.
        """
        gaps: dict[str, float] = {}
        for check in self._checks(logits_nk):
            if check.outcome is Outcome.FAIL:
                assert check.value is not None
                assert check.limit is not None
                gaps[check.name] = abs(check.value - check.limit)
            elif check.outcome is Outcome.ERROR and check.name not in self._unanswerable:
                gaps[check.name] = 1.0
        return gaps

    @cached_property
    def _unanswerable(self) -> frozenset[str]:
        """Names of checks that even the float graph beside itself has no answer for."""
        itself = self._checks(self.reference_nk)
        return frozenset(c.name for c in itself if c.outcome is Outcome.ERROR)

    def _checks(self, logits_nk: Floats) -> Iterator[Check]:
        found = comparison.compare(
            self.reference_nk,
            logits_nk,
            self.labels_n,
            self.slices,
            metric=self.declared.metric,
            threshold=self.declared.threshold,
        )
        rules = self.declared.equivalence
        least = min(rules.min_slice_support, len(self.labels_n))
        return comparison.judge("int8", found, rules.int8, min_support=least)


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` of n row numbers, evenly spaced, in order.

    >>> evenly(10, 4)
    array([0, 2, 5, 7])
    """
    kept = min(n, most)
    return np.arange(kept) * n // max(kept, 1)
