"""Has a distribution moved? PSI, KS and Jensen-Shannon, and what of them is noise.

Each has a customary threshold and says nothing of the sample: with few rows chance alone crosses
it. So each comes with the value that chance exceeds once in twenty, and with a p-value. Without
drift, PSI and eight times the Jensen-Shannon divergence are both close to (1/n + 1/m) times a
chi-squared variable of (bins - 1) degrees of freedom (Yurdakul 2018; Lin 1991), and the KS
statistic follows Kolmogorov's law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

BINS = 10
EMPTY = 1e-4
"""Share that an empty bin is given, so that the logarithms exist."""

CHANCE = 0.05
"""How often noise alone exceeds :attr:`Distance.noise`."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far two samples are apart by one measure."""

    value: float

    noise: float
    """What chance exceeds once in twenty between samples of these sizes without drift."""

    p: float
    """How often chance alone gives this value or more."""


def shares(counts: NDArray[np.integer]) -> Floats:
    """Return counts as shares, an empty bin with a share of ``EMPTY``; they sum to one."""
    total = counts.sum()
    filled = np.maximum(counts / total if total else counts.astype(np.float64), EMPTY)
    return filled / filled.sum()


def psi(reference_k: Floats, other_k: Floats) -> float:
    """Return the population stability index Σ (a - e) ln(a / e) of two vectors of shares.

    >>> train = np.array([.15, .25, .20, .18, .12, .10])
    >>> serve = np.array([.12, .22, .18, .20, .15, .13])
    >>> round(psi(train, serve), 6)
    0.029309
    """
    return float(((other_k - reference_k) * np.log(other_k / reference_k)).sum())


def js_divergence(reference_k: Floats, other_k: Floats) -> float:
    """Return the Jensen-Shannon divergence of two vectors of shares, in nats.

    >>> train = np.array([.15, .25, .20, .18, .12, .10])
    >>> serve = np.array([.12, .22, .18, .20, .15, .13])
    >>> round(js_divergence(train, serve), 6)
    0.003657
    """
    middle_k = (reference_k + other_k) / 2
    pair = (special.rel_entr(reference_k, middle_k), special.rel_entr(other_k, middle_k))
    return float(sum(p.sum() for p in pair) / 2)


def psi_distance(reference_k: NDArray[np.integer], other_k: NDArray[np.integer]) -> Distance:
    """Return the PSI of two vectors of counts in the same bins."""
    value = psi(shares(reference_k), shares(other_k))
    scale = 1 / reference_k.sum() + 1 / other_k.sum()
    return _chi_squared(value, value / scale, scale, len(reference_k))


def js_distance(reference_k: NDArray[np.integer], other_k: NDArray[np.integer]) -> Distance:
    """Return the Jensen-Shannon *distance* of two vectors of counts: the root of the nats.

    0 means equal and √ln 2 ≈ 0.833 means nothing in common.
    """
    nats = max(0.0, js_divergence(shares(reference_k), shares(other_k)))
    scale = (1 / reference_k.sum() + 1 / other_k.sum()) / 8
    found = _chi_squared(nats, nats / scale, scale, len(reference_k))
    return Distance(value=math.sqrt(nats), noise=math.sqrt(found.noise), p=found.p)


def _chi_squared(value: float, statistic: float, scale: float, bins: int) -> Distance:
    freedom = max(1, bins - 1)
    noise = scale * float(special.chdtri(freedom, CHANCE))
    return Distance(value=value, noise=noise, p=float(special.chdtrc(freedom, statistic)))


def ks_distance(reference_n: Floats, other_m: Floats) -> Distance:
    """Return the two-sample Kolmogorov-Smirnov statistic, with the asymptotic law's noise and p."""
    n, m = len(reference_n), len(other_m)
    from scipy import stats  # noqa: PLC0415 - half a second, and every command imports this module

    found: Any = stats.ks_2samp(reference_n, other_m, method="asymp")
    noise = float(special.kolmogi(CHANCE)) * math.sqrt((n + m) / (n * m))
    # A difference of two shares: one in ten is to be no more than 0.1.
    value = round(float(found.statistic), 12)
    return Distance(value=value, noise=noise, p=float(found.pvalue))


def edges(reference_n: Floats, bins: int = BINS) -> Floats:
    """Return inner bin edges at the reference's quantiles, each once; values equal go together."""
    inner = np.quantile(reference_n, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(inner)


def counts(values_n: Floats, inner: Floats) -> NDArray[np.int64]:
    """Return how many values lie in each bin; the last is of missing ones (NaN)."""
    missing = np.isnan(values_n)
    found = np.bincount(np.searchsorted(inner, values_n[~missing]), minlength=len(inner) + 1)
    return np.append(found, missing.sum())


def collecting(samples: int, *, each: timedelta) -> timedelta:
    """Return how long labelled samples take to come, one ``each`` so often.

    What a drift alarm waits for at the least: a thousand labels at one a second are 16.7 minutes,
    at a hundred a day ten days.

    >>> collecting(1_000, each=timedelta(days=1) / 100)
    datetime.timedelta(days=10)
    """
    return samples * each


def significant(p_k: Sequence[float], *, rate: float) -> list[bool]:
    """Return which of many tests stand when only a share ``rate`` of those may be false.

    Benjamini and Hochberg's procedure (1995).

    >>> significant([0.001, 0.04, 0.03, 0.9], rate=0.05)
    [True, False, False, False]
    """
    order = np.argsort(p_k)
    limits = rate * np.arange(1, len(p_k) + 1) / max(1, len(p_k))
    below = np.flatnonzero(np.asarray(p_k)[order] <= limits)
    standing = np.zeros(len(p_k), bool)
    if len(below):
        standing[order[: below[-1] + 1]] = True
    return [bool(s) for s in standing]
