"""Is the same feature the same in training and in serving?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import special

from penstock.stats.drift import CHANCE, Distance, Floats, ks_distance

KS_LIMIT = 0.1


class SkewDetectedError(ValueError):
    """A feature's distribution in serving is not that of training."""


def validate_no_skew(
    training: Mapping[str, Floats], serving: Mapping[str, Floats], *, threshold: float = KS_LIMIT
) -> None:
    """Refuse the first feature whose two-sample KS statistic is greater than the threshold.

    The plain rule, whatever the sizes; :func:`penstock.datachecks.skew.judge` knows of noise and of
    missing values, and is what blocks a release. Missing values (NaN) are left out.

    Raises:
        SkewDetectedError: ``feature: KS=0.123``.
        KeyError: A feature of the training data is not served.
    """
    for feature, values in training.items():
        one, other = (v[~np.isnan(v)] for v in (values, serving[feature]))
        value = ks_distance(one, other).value
        if value > threshold:
            raise SkewDetectedError(f"{feature}: KS={value:.3f}")


def share_distance(events: int, trials: int, other_events: int, other_trials: int) -> Distance:
    """Return how far two shares are apart, by the two-sample z-test with pooled variance.

    Raises:
        ZeroDivisionError: A side has no trials.
    """
    one, other = events / trials, other_events / other_trials
    pooled = (events + other_events) / (trials + other_trials)
    # Of shares nobody has seen to differ from 0 or 1, one event more is what could have been.
    least = 1 / (trials + other_trials)
    variance = max(pooled * (1 - pooled), least * (1 - least))
    scale = math.sqrt(variance * (1 / trials + 1 / other_trials))
    value = abs(one - other)
    quantile = float(-special.ndtri(CHANCE / 2))
    return Distance(value=value, noise=quantile * scale, p=float(2 * special.ndtr(-value / scale)))


def annual_cost(queries_a_day: float, *, wrong_share: float, cost: float) -> float:
    """Return what wrong answers cost in a year of 365 days.

    >>> annual_cost(1_000_000, wrong_share=0.01, cost=0.10)
    365000.0
    """
    return round(queries_a_day * wrong_share * cost * 365, 2)
