"""Our tests by themselves on a canary's requests, each at the level that other rules have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.rollout.people import Floats, Ints, Requests
from penstock.stats import confseq, eprocess

ALPHA = 0.01
LEAST = 100
"""Users of each arm before clicks are looked at."""


def failing(requests: Requests, *, share: float) -> float | None:
    """Return when the count test of failing users stops, asked at each new one."""
    return _counted(requests, np.flatnonzero(requests.failed_n), share)


def slow(requests: Requests, looks_s: Sequence[float], *, share: float) -> float | None:
    """Return when the count test of users slower than the champion's p99 stops, at each look."""
    for at_s in looks_s:
        known = requests.until(at_s)
        ms_n = known.latency_ms_n
        usual_n = ms_n[~known.challenger_n & ~np.isnan(ms_n)]
        if len(usual_n) < LEAST:
            continue
        over_n = np.nan_to_num(ms_n) > np.quantile(usual_n, 0.99)
        ours, others = (
            len(np.unique(known.user_n[over_n & (known.challenger_n == arm)]))
            for arm in (True, False)
        )
        if eprocess.log_evidence(ours, others, share=share) >= -math.log(ALPHA):
            return at_s
    return None


def clicks(requests: Requests, looks_s: Sequence[float]) -> float | None:
    """Return at which look users surely click less with the challenger."""
    for at_s in looks_s:
        known = requests.until(at_s)
        found = _difference(known, known.clicked_n, deviation=0.25)
        if found.high < 0:
            return at_s
    return None


def failing_more(requests: Requests, looks_s: Sequence[float]) -> float | None:
    """Return at which look surely a larger share of each user's requests fails, in the mean."""
    for at_s in looks_s:
        known = requests.until(at_s)
        found = _difference(known, known.failed_n.astype(np.float64), deviation=0.04)
        if found.low > 0:
            return at_s
    return None


def _difference(requests: Requests, value_n: Floats, *, deviation: float) -> confseq.Difference:
    one_u, other_u = (
        _means(requests.user_n[where_n], value_n[where_n])
        for where_n in (
            (requests.challenger_n == arm) & ~np.isnan(value_n) for arm in (True, False)
        )
    )
    return confseq.difference(one_u, other_u, alpha=ALPHA, least=LEAST, deviation=deviation)


def _means(user_n: Ints, value_n: Floats) -> Floats:
    count_u = np.bincount(user_n)
    sum_u = np.bincount(user_n, weights=value_n)
    return sum_u[count_u > 0] / count_u[count_u > 0]


def _counted(requests: Requests, rows: Ints, share: float) -> float | None:
    _, first = np.unique(requests.user_n[rows], return_index=True)
    ours, limit = 0, -math.log(ALPHA)
    for k, row in enumerate(rows[np.sort(first)], start=1):
        ours += bool(requests.challenger_n[row])
        # What is the champion's is no evidence of harm, so only the challenger's can stop.
        if requests.challenger_n[row] and (
            eprocess.log_evidence(ours, k - ours, share=share) >= limit
        ):
            return float(requests.at_n[row])
    return None
