"""Means over rows with studentized bootstrap intervals, all from one set of Poisson weights.

What no row shows no interval made of rows knows. Harm that falls on one row of so many that a
sample of n often holds none, on fewer than about 4 in n, is not excluded by any bound found here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.stats.estimates import Bounds, Estimate
from penstock.stats.intervals import MANY, exact_net

ENOUGH = 100
"""Rows that differ from which a resampled bound is wrong as rarely as it says. Of 40 losses it is
wrong up to twice as often, so that of fewer it is asked to be wrong more rarely in proportion."""

RESAMPLES = 1999
"""With one more than that, ``alpha / 2`` of them is a whole number at the usual levels."""

CELLS = 16_384
"""Most units that are weighed. More rows than that are put together at random, and the sums of so
many cells are resampled in their place: the same interval in bounded time and memory."""

AT_ONCE = 1024
"""Cells whose weights are multiplied together."""

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Values:
    """A number of each row, and what such a number can be."""

    values_n: Floats
    lowest: float
    highest: float
    step: float = 0.0
    """The least distance between two numbers that differ; 0 where any distance is possible."""

    def less(self, other: Values) -> Values:
        """Return the paired differences, row by row.

        Raises:
            ValueError: There are not as many of the one as of the other.
        """
        if len(self.values_n) != len(other.values_n):
            raise ValueError(
                f"{len(self.values_n)} values cannot be paired with {len(other.values_n)}; score "
                "both models on the same holdout revision."
            )
        return Values(
            values_n=self.values_n - other.values_n,
            lowest=self.lowest - other.highest,
            highest=self.highest - other.lowest,
            step=min(self.step, other.step),
        )


class Draws:
    """Bootstrap resamples of n rows, shared by everything that is estimated from them.

    Every row has a weight of its own in each resample, drawn from Poisson(1): as if the number of
    rows were drawn too. So the weights of a slice's rows are a bootstrap of that slice.
    """

    def __init__(self, n: int, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> None:
        self._cell_n = np.arange(n) if n <= CELLS else rng.integers(0, CELLS, n)
        self._weights_cb = _poisson((min(n, CELLS), resamples), rng=rng)

    def mean(self, values: Values, where_n: Rows | None = None) -> Estimate | None:
        """Return the mean of the values of some rows, or all; None of no row.

        The interval is the bootstrap-t, whose error at a bound falls with 1 / n rather than
        1 / √n: losses are skewed. Where fewer than ``MANY`` rows differ from their median there is
        too little to resample, and it is exact: :func:`penstock.stats.intervals.exact_net`.

        Source: Hall (1988), Annals of Statistics 16, 927–953; Poisson weights as in Chamandy et al.
        (2012), *Estimating Uncertainty for Massive Data Streams*, Google.
        """
        chosen = np.ones(len(values.values_n), bool) if where_n is None else where_n
        values_m = values.values_n[chosen]
        if not len(values_m):
            return None
        median = float(np.quantile(values_m, 0.5, method="lower"))
        up, down = int((values_m > median).sum()), int((values_m < median).sum())
        if up + down < MANY:
            return _exact(values, values_m, median, up, down)
        stricter = min(1.0, (up + down) / ENOUGH)
        return self._resampled(values, values_m, self._cell_n[chosen], stricter)

    def _resampled(
        self, values: Values, values_m: Floats, cell_m: NDArray[np.int64], stricter: float
    ) -> Estimate:
        value, m = float(values_m.mean()), len(values_m)
        error = float(values_m.std(ddof=1)) / math.sqrt(m)
        t_b = np.sort(self._studentized(values_m - value, cell_m))

        def at(alpha: float) -> Bounds:
            rank = math.floor(stricter * alpha / 2 * (len(t_b) + 1)) - 1
            if rank < 0:
                return values.lowest, values.highest
            low, high = value - error * t_b[-1 - rank], value - error * t_b[rank]
            return max(values.lowest, float(low)), min(values.highest, float(high))

        return Estimate(value=value, n=m, at=at)

    def _studentized(self, centred_m: Floats, cell_m: NDArray[np.int64]) -> Floats:
        """Return each resample's mean over its own standard error; the ratio of two sums."""
        cells, of_m = np.unique(cell_m, return_inverse=True)
        counts_c = np.bincount(of_m).astype(np.float64)
        sums_c = np.bincount(of_m, weights=centred_m).astype(np.float64)
        columns = [counts_c, sums_c, sums_c**2, sums_c * counts_c, counts_c**2]
        n_b, sum_b, squares_b, mixed_b, counts_b = self._sums(columns, cells)
        mean_b = sum_b / np.maximum(n_b, 1)
        spread_b = squares_b - 2 * mean_b * mixed_b + mean_b**2 * counts_b
        return sum_b / np.sqrt(np.maximum(spread_b, 1e-12 * squares_b.max()))

    def _sums(self, columns: Sequence[Floats], cells: NDArray[np.int64]) -> Floats:
        """Return the weighted sums over the cells, shape [s, b]; in single precision, for speed."""
        columns_sc = np.stack(columns).astype(np.float32)
        total = np.zeros((len(columns), self._weights_cb.shape[1]))
        for start in range(0, len(cells), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            total += columns_sc[:, part] @ self._weights_cb[cells[part]].astype(np.float32)
        return total


def _exact(values: Values, values_m: Floats, median: float, up: int, down: int) -> Estimate:
    n, most = len(values_m), max(values.highest - median, median - values.lowest)

    def at(alpha: float) -> Bounds:
        low, high = exact_net(up, down, n, alpha=alpha, most=most, least=values.step)
        return max(values.lowest, median + low), min(values.highest, median + high)

    return Estimate(value=float(values_m.mean()), n=n, at=at)


def _poisson(shape: tuple[int, int], *, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return numbers of a Poisson distribution of mean 1, to the nearest 1 / 65 536 of a chance."""
    chances = [math.exp(-1) / math.factorial(k) for k in range(9)]
    ends = np.round(np.cumsum(chances) * 65_536).astype(np.int64)
    of_chance = np.searchsorted(ends, np.arange(65_536), side="right").astype(np.uint8)
    return of_chance[rng.integers(0, 65_536, shape, dtype=np.uint16)]
