"""Every metric of one model, and of one less another, on all rows and on parts, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from penstock.policy import FALLING, RISING, TWO_CLASSES, Costs
from penstock.stats import losses, miscalibration, operating
from penstock.stats.areas import area, area_difference
from penstock.stats.estimates import Bounds, Estimate
from penstock.stats.intervals import at_least, at_most
from penstock.stats.means import Draws, Values
from penstock.stats.scored import Rows, Scored
from penstock.stats.slices import ALL


def allowed(classes: int, costs: Costs | None) -> list[str]:
    """Return the metrics of a model that a task of so many classes has."""
    every = [m for m in (*RISING, *FALLING) if classes == 2 or m not in TWO_CLASSES]
    return [m for m in every if m != "expected_cost" or costs is not None]


class Measures:
    """The metrics of a challenger and a champion; each is computed once, when first asked for.

    A method returns None where there is nothing to measure: no champion, no row, and for ``auc``
    rows of one label only.

    Raises:
        ValueError: A part is called as all rows are.
    """

    def __init__(
        self,
        challenger: Scored,
        champion: Scored | None,
        parts: Mapping[str, Rows],
        *,
        costs: Costs | None,
        draws: Draws,
        noise_rb: miscalibration.Floats,
    ) -> None:
        if ALL in parts:
            raise ValueError(f"a slice is called {ALL!r}, as all rows are; give it another name.")
        self.parts = {ALL: np.ones(challenger.n, bool), **parts}
        self.draws, self._noise_rb = draws, noise_rb
        self._ours, self._theirs = _Rows(challenger, costs), champion and _Rows(champion, costs)
        self._measured, self._compared = cache(self._measure), cache(self._compare)

    @classmethod
    def of(
        cls,
        challenger: Scored,
        champion: Scored | None,
        parts: Mapping[str, Rows],
        *,
        costs: Costs | None,
        rng: np.random.Generator,
    ) -> Measures:
        """Return the measures of two models with chance of their own."""
        draws, noise_rb = Draws(challenger.n, rng=rng), miscalibration.noise(rng=rng)
        return cls(challenger, champion, parts, costs=costs, draws=draws, noise_rb=noise_rb)

    def challenger(self, metric: str, part: str = ALL) -> Estimate | None:
        """Return the challenger's metric on a part of the rows."""
        return self._measured(self._ours, metric, part)

    def champion(self, metric: str, part: str = ALL) -> Estimate | None:
        """Return the champion's metric on a part of the rows."""
        return self._measured(self._theirs, metric, part) if self._theirs else None

    def difference(self, metric: str, part: str = ALL) -> Estimate | None:
        """Return the challenger's metric less the champion's, of the same rows."""
        return self._compared(self._theirs, metric, part) if self._theirs else None

    def _measure(self, model: _Rows, metric: str, part: str) -> Estimate | None:
        where_n = self.parts[part]
        labels_m = model.scored.labels_n[where_n]
        if metric == "auc":
            return area(model.scored.odds_n[where_n], labels_m)
        if metric == "accuracy":
            return _share(model.scored.right_n[where_n])
        if metric == "calibration_error":
            probability_n, happened_n = losses.predicted(model.scored)
            return miscalibration.calibration_error(
                probability_n[where_n], happened_n[where_n], self._noise_rb
            )
        return self.draws.mean(model.values(metric), where_n)

    def _compare(self, theirs: _Rows, metric: str, part: str) -> Estimate | None:
        where_n, ours = self.parts[part], self._ours
        if metric == "auc":
            one, other = (model.scored.odds_n[where_n] for model in (ours, theirs))
            return area_difference(one, other, ours.scored.labels_n[where_n])
        if metric == "calibration_error":
            one, other = (self._measured(model, metric, part) for model in (ours, theirs))
            return None if one is None or other is None else miscalibration.difference(one, other)
        return self.draws.mean(ours.values(metric).less(theirs.values(metric)), where_n)


class _Rows:
    """A model's rows, and what each of them adds to a metric, computed once."""

    def __init__(self, scored: Scored, costs: Costs | None) -> None:
        self.scored = scored
        known: dict[str, Callable[[Scored], Values]] = dict(losses.BY_ROW)
        if costs is not None:
            known["expected_cost"] = lambda scored: operating.costs_of(scored, costs)

        def values(metric: str) -> Values:
            return known[metric](scored)

        self.values = cache(values)


def _share(right_m: losses.Floats) -> Estimate | None:
    """Return a share with the exact bounds of Clopper and Pearson (1934).

    Wilson's are shorter, but near 1 the upper one is wrong too often: of 300 rows and a share of
    0.99 in 3.8 % on average for 2.5 %, and far more often at the levels that many slices ask for.
    """
    n, right = len(right_m), int(right_m.sum())
    if not n:
        return None

    def at(alpha: float) -> Bounds:
        return at_least(right, n, alpha=alpha / 2), at_most(right, n, alpha=alpha / 2)

    return Estimate(value=right / n, n=n, at=at)
