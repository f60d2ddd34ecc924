"""How far probabilities may truly be off: an interval of the expected calibration error.

Its estimate is too great by chance: of a perfectly calibrated model every bin is off a little, and
no bin makes up for another. A bootstrap adds that chance once more. So bounds are found the other
way round: for each true error, how large an estimate would chance make of it?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.stats.calibration import binned
from penstock.stats.estimates import Bounds, Estimate

DRAWS = 999
BINS = 10

HALVINGS = 15
"""Of the search for a bound, which is found so to 3e-5."""

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]


def noise(*, rng: np.random.Generator) -> Floats:
    """Return standard normal draws, shape [draws, bins], for every estimate of one judgement."""
    return rng.standard_normal((DRAWS, BINS))


@dataclass(frozen=True, kw_only=True)
class _Bins:
    """What was predicted and what happened in each bin; arrays of shape [b]."""

    weight_b: Floats
    """Share of all rows."""

    predicted_b: Floats
    gap_b: Floats
    """Share that happened less the mean prediction."""

    expected_b: Floats
    """Variance of one row's gap if the predictions are right: mean of p · (1 - p)."""

    seen_b: Floats
    """Variance of one row's gap, as it was seen."""

    noise_rb: Floats
    """Standard normal draws over the root of the bin's rows."""

    @classmethod
    def of(cls, probability_n: Floats, happened_n: Rows, noise_rb: Floats) -> _Bins:
        gap_n = happened_n - probability_n
        parts = binned(probability_n, noise_rb.shape[1])
        rows_b = np.array([len(part) for part in parts])
        return cls(
            weight_b=rows_b / rows_b.sum(),
            predicted_b=np.array([probability_n[part].mean() for part in parts]),
            gap_b=np.array([gap_n[part].mean() for part in parts]),
            expected_b=np.array([(p * (1 - p)).mean() for p in (probability_n[i] for i in parts)]),
            seen_b=np.array([gap_n[part].var() for part in parts]),
            noise_rb=noise_rb[:, : len(parts)] / np.sqrt(rows_b),
        )

    @property
    def error(self) -> float:
        return float(self.weight_b @ np.abs(self.gap_b))

    def least(self, alpha: float) -> float:
        """Return the error less all that chance could have added to it."""
        happened_b = self.predicted_b + self.gap_b
        variance_b = np.maximum(self.expected_b, happened_b * (1 - happened_b))
        added_r = np.abs(self.noise_rb * np.sqrt(variance_b)) @ self.weight_b
        return max(0.0, self.error - float(np.quantile(added_r, 1 - alpha / 2)))

    def most(self, alpha: float) -> float:
        """Return the greatest true error that could have looked as small as this."""
        found = [self._hidden(direction_b, alpha) for direction_b in self._directions()]
        return max(self.error, *found)

    def _directions(self) -> Iterator[Floats]:
        """Yield ways to spread a true error over the bins, which say how far each is off by 1."""
        noise_b = np.sqrt(self.expected_b) * self.noise_rb.std(axis=0)
        even_b = np.ones_like(self.weight_b)
        total = float(self.weight_b @ noise_b)
        sizes = (even_b, noise_b / total if total else even_b)
        for sign_b in (np.where(self.predicted_b > 0.5, -1, 1), np.where(self.gap_b < 0, -1, 1)):
            yield from (sign_b * size_b for size_b in sizes)

    def _hidden(self, direction_b: Floats, alpha: float) -> float:
        """Return the greatest true error in a direction that looks so small by chance."""
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self._seen_by_chance(self._moved(direction_b, middle), alpha) <= self.error:
                low = middle
            else:
                high = middle
        return float(self.weight_b @ np.abs(self._moved(direction_b, high)))

    def _moved(self, direction_b: Floats, far: float) -> Floats:
        """Return the true gaps so far in a direction; no share leaves 0 to 1."""
        return np.clip(self.predicted_b + far * direction_b, 0, 1) - self.predicted_b

    def _seen_by_chance(self, true_gap_b: Floats, alpha: float) -> float:
        """Return how small an estimate these true gaps give with a chance of ``alpha / 2``.

        The variance is that of rows which happen as often as is supposed here, not of those that
        were seen: of a bin in which all happened, the latter knows none. It is at least the latter.
        """
        moved_b = true_gap_b * (1 - 2 * self.predicted_b) - true_gap_b**2
        variance_b = np.maximum(self.expected_b + moved_b, self.seen_b)
        gap_rb = true_gap_b + self.noise_rb * np.sqrt(variance_b)
        # No share that happens lies outside 0 to 1: where all should happen, often all does.
        seen_rb = np.clip(gap_rb, -self.predicted_b, 1 - self.predicted_b)
        error_r = np.abs(seen_rb) @ self.weight_b
        return float(np.quantile(error_r, alpha / 2))


def calibration_error(probability_n: Floats, happened_n: Rows, noise_rb: Floats) -> Estimate | None:
    """Return the expected calibration error of bins of equal counts; None of no row.

    The upper bound is the greatest true error of which so small an estimate would be seen with a
    chance of ``alpha / 2``. A true error may be spread over the bins in many ways; taken are those
    that hide it best: as much in every bin or in proportion to the bin's noise, towards the middle
    or the way the gaps were seen. The lower bound takes off the estimate all that chance could have
    added to it, which no spread exceeds.

    Args:
        probability_n: Predicted probabilities of what happened or not, shape [n].
        noise_rb: From :func:`noise`.
    """
    if not len(probability_n):
        return None
    bins = _Bins.of(probability_n, happened_n, noise_rb)

    def at(alpha: float) -> Bounds:
        return bins.least(alpha), bins.most(alpha)

    return Estimate(value=bins.error, n=len(probability_n), at=at)


def difference(challenger: Estimate, champion: Estimate) -> Estimate:
    """Return how much greater one error is than another, with bounds from either's own.

    Each takes half of the error (Bonferroni). No resampling of pairs is sound here: the chance in
    an estimate depends on the true error, and is greatest for the model that is calibrated best.
    """

    def at(alpha: float) -> Bounds:
        (one_low, one_high), (low, high) = challenger.at(alpha / 2), champion.at(alpha / 2)
        return one_low - high, one_high - low

    return Estimate(value=challenger.value - champion.value, n=challenger.n, at=at)
