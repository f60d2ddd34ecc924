"""Rules that others decide by, on the same requests as ours: what they say of a canary.

Each gets counts by minute and gives the minute at whose end it rolls back, or None. They are
written from what the tools document, with their usual settings, and none of them knows users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollout.people import Requests

Floats = NDArray[np.float64]

LEAST_SUCCESS = 0.99
"""Success rate asked for, absolute, as in Flagger's and Argo Rollouts' examples."""

ALPHA = 0.01


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """What a canary counted by minute, shape [minutes, 2]: champion, challenger."""

    requests_ma: Floats
    failed_ma: Floats
    shown_ma: Floats
    clicked_ma: Floats
    slow_m: Floats
    """The challenger's p99 of each minute over the champion's of all minutes so far."""


def minutes(requests: Requests, *, began_s: float, lasting: int) -> Minutes:
    """Count a canary of so many minutes."""
    cell_n = np.minimum((requests.at_n - began_s) // 60, lasting - 1).astype(np.int64) * 2
    cell_n += requests.challenger_n

    def counted(weight_n: NDArray[np.generic] | None = None) -> Floats:
        found = np.bincount(cell_n, weights=weight_n, minlength=2 * lasting)
        return found.reshape(lasting, 2).astype(np.float64)

    shown_n = ~np.isnan(requests.clicked_n)
    return Minutes(
        requests_ma=counted(),
        failed_ma=counted(requests.failed_n),
        shown_ma=counted(shown_n),
        clicked_ma=counted(np.nan_to_num(requests.clicked_n)),
        slow_m=_slowness(requests, cell_n, lasting),
    )


def _slowness(requests: Requests, cell_n: NDArray[np.int64], lasting: int) -> Floats:
    known_n = ~np.isnan(requests.latency_ms_n)
    usual_ms = np.quantile(requests.latency_ms_n[known_n & ~requests.challenger_n], 0.99)
    chosen_n = known_n & requests.challenger_n
    ends_m = np.searchsorted(cell_n[chosen_n] // 2, np.arange(1, lasting))
    of_minute = np.split(requests.latency_ms_n[chosen_n], ends_m)
    return np.asarray([np.quantile(ms, 0.99) / usual_ms if len(ms) else 0.0 for ms in of_minute])


def flagger(counted: Minutes) -> int | None:
    """Roll back at the fifth minute whose success rate is below 99 %."""
    return _nth(_below(counted.requests_ma[:, 1], counted.failed_ma[:, 1]), 5)


def argo(counted: Minutes) -> int | None:
    """Roll back at the fourth window of five minutes below 99 %: its failure limit of 3 is over."""
    whole = len(counted.requests_ma) // 5 * 5
    requests_w, failed_w = (
        c[:whole, 1].reshape(-1, 5).sum(axis=1) for c in (counted.requests_ma, counted.failed_ma)
    )
    at = _nth(_below(requests_w, failed_w), 4)
    return None if at is None else 5 * at


def relative(counted: Minutes) -> int | None:
    """Roll back at the fifth minute that fails 1.5 times as often as the champion in it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share_ma = counted.failed_ma / counted.requests_ma
    return _nth(share_ma[:, 1] > 1.5 * share_ma[:, 0], 5)


def peeking(counted: Minutes) -> int | None:
    """Roll back at the first minute at which a z-test of request errors says p < 1 %."""
    z_m = _z(counted.failed_ma, counted.requests_ma)
    return _nth(z_m > NormalDist().inv_cdf(1 - ALPHA), 1)


def once(counted: Minutes) -> int | None:
    """Roll back at the end if the same test says so then, looked at once: users do not count."""
    z_m = _z(counted.failed_ma, counted.requests_ma)
    return len(z_m) if z_m[-1] > NormalDist().inv_cdf(1 - ALPHA) else None


def peeking_clicks(counted: Minutes) -> int | None:
    """Roll back at the first minute at which a z-test of clicks of requests says p < 1 %."""
    z_m = _z(counted.clicked_ma, counted.shown_ma)
    return _nth(z_m < -NormalDist().inv_cdf(1 - ALPHA), 1)


def once_clicks(counted: Minutes) -> int | None:
    """Roll back at the end if the test of clicks says so then, looked at once."""
    z_m = _z(counted.clicked_ma, counted.shown_ma)
    return len(z_m) if z_m[-1] < -NormalDist().inv_cdf(1 - ALPHA) else None


def twice_slow(counted: Minutes) -> int | None:
    """Roll back at the fifth minute in a row whose p99 is over twice the usual."""
    return _in_a_row(counted.slow_m > 2.0, 5)


def tenth_slow(counted: Minutes) -> int | None:
    """Roll back at the fifth minute in a row whose p99 is a tenth over the usual."""
    return _in_a_row(counted.slow_m > 1.1, 5)


RULES: Mapping[str, Callable[[Minutes], int | None]] = {
    "Flagger-like: below 99 %, 5 minutes": flagger,
    "Argo-like: below 99 %, 4 windows of 5 minutes": argo,
    "1.5 times the champion's errors, 5 minutes": relative,
    "z-test of request errors, every minute": peeking,
    "z-test of request errors, once at the end": once,
    "z-test of request clicks, every minute": peeking_clicks,
    "z-test of request clicks, once at the end": once_clicks,
    "p99 over twice the champion's, 5 minutes in a row": twice_slow,
    "p99 over 1.1 times the champion's, 5 minutes in a row": tenth_slow,
}


def _below(requests_m: Floats, failed_m: Floats) -> NDArray[np.bool_]:
    return (requests_m > 0) & (requests_m - failed_m < LEAST_SUCCESS * requests_m)


def _nth(failing_m: NDArray[np.bool_], n: int) -> int | None:
    """Return the number of the window that is the n-th to fail, from 1."""
    at = np.flatnonzero(failing_m)
    return int(at[n - 1]) + 1 if len(at) >= n else None


def _in_a_row(failing_m: NDArray[np.bool_], n: int) -> int | None:
    row = 0
    for m, failing in enumerate(failing_m):
        row = row + 1 if failing else 0
        if row == n:
            return m + 1
    return None


def _z(events_ma: Floats, trials_ma: Floats) -> Floats:
    """Return z of the challenger's share above the champion's, of all requests so far."""
    events_ma, trials_ma = np.cumsum(events_ma, axis=0), np.cumsum(trials_ma, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share_ma = events_ma / trials_ma
        pooled_m = events_ma.sum(axis=1) / trials_ma.sum(axis=1)
        spread_m = np.sqrt(pooled_m * (1 - pooled_m) * (1 / trials_ma).sum(axis=1))
        z_m = (share_ma[:, 1] - share_ma[:, 0]) / spread_m
    return np.nan_to_num(z_m, nan=0.0, posinf=0.0, neginf=0.0)
