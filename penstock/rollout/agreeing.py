"""How the answers to copies agree with the originals': decisions, ranks and scores, over users.

Intervals are bootstraps over users, which hold at one look. So one looks at doubling numbers of
users, each look with its part of alpha, and at nothing between two looks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np

from penstock.rollout.evidence import Bools, Copies, Floats, Ints
from penstock.stats import drift, looks, ranks
from penstock.stats.ranks import Interval

OTHERWISE, SPEARMAN, KENDALL, OVERLAP = "decided otherwise", "spearman", "kendall", "overlap"

RANKED = 1_000
"""Copies of which rank correlations are made, evenly from all: more would take seconds."""

RESAMPLES, LEVEL = 200, 0.05
"""Of the bootstrap; bounds of other levels are as far from the estimate as a normal law says."""

UNKNOWN = Interval(estimate=None, low=-math.inf, high=math.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Copies up to a look. Equal ones are worked out once, however many ticks see them."""

    user_n: Ints
    """By their first appearance."""

    alike_n: Bools
    one_n: Floats
    other_n: Floats
    pair_r: Ints
    one_r: Floats
    other_r: Floats

    def __len__(self) -> int:
        return len(self.user_n)

    def __hash__(self) -> int:
        return hash(self._content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and self._content == other._content

    @cached_property
    def _content(self) -> bytes:
        made = hashlib.sha256()
        for column in vars(self).values():
            made.update(np.ascontiguousarray(column).tobytes())
        return made.digest()


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How copies agree with their originals, at one look."""

    pairs: int
    users: int
    found: Mapping[str, Interval]
    psi: float | None
    """Of the scores, for people: it says nothing without the number of copies."""


def looked(copies: Copies, *, least: int) -> tuple[Pairs, looks.Look] | None:
    """Return the copies up to the newest look; None before the first one.

    A look ends with the request with which its last user appeared, so nothing of it changes later.
    """
    users, first_u = np.unique(copies.user_n, return_index=True)
    look = looks.doubling(len(users), least=least, alpha=1.0)
    if look is None:
        return None
    end = int(np.sort(first_u)[look.n - 1]) + 1
    order_u = np.empty(len(users), np.int64)
    order_u[np.argsort(first_u)] = np.arange(len(users))
    within_r = copies.pair_r < end
    pairs = Pairs(
        user_n=order_u[np.searchsorted(users, copies.user_n[:end])],
        alike_n=copies.alike_n[:end],
        one_n=copies.one_n[:end],
        other_n=copies.other_n[:end],
        pair_r=copies.pair_r[within_r],
        one_r=copies.one_r[within_r],
        other_r=copies.other_r[within_r],
    )
    return pairs, look


@lru_cache(maxsize=256)
def agreement(pairs: Pairs, top: int) -> Agreement:
    """Return how copies agree, with intervals of ``LEVEL`` on each side, over users."""
    rng = np.random.default_rng(len(pairs))
    scored_n = np.flatnonzero(~np.isnan(pairs.one_n) & ~np.isnan(pairs.other_n))
    ranked_k = _evenly(scored_n, RANKED)
    one_k, other_k = pairs.one_n[ranked_k], pairs.other_n[ranked_k]
    overlap_g, user_g = _overlaps(pairs, top)
    user_k = pairs.user_n[ranked_k]

    def drawn(users: Ints, statistic: Callable[[Ints], float | None]) -> Interval:
        if not len(users):
            return UNKNOWN
        return ranks.bootstrap(users, statistic, rng, alpha=LEVEL, resamples=RESAMPLES)

    found = {
        OTHERWISE: drawn(pairs.user_n, lambda n: float(1 - pairs.alike_n[n].mean())),
        SPEARMAN: drawn(user_k, lambda k: ranks.spearman(one_k[k], other_k[k])),
        KENDALL: drawn(user_k, lambda k: ranks.kendall(one_k[k], other_k[k])),
        OVERLAP: drawn(user_g, lambda g: float(overlap_g[g].mean())),
    }
    one_n, other_n = pairs.one_n[scored_n], pairs.other_n[scored_n]
    users = int(pairs.user_n.max(initial=-1)) + 1
    return Agreement(pairs=len(pairs), users=users, found=found, psi=_psi(one_n, other_n))


def _evenly(places: Ints, most: int) -> Ints:
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(np.int64)]


def _overlaps(pairs: Pairs, top: int) -> tuple[Floats, Ints]:
    """Return the overlap of each request that ranks more than ``top`` rows, and whose it is."""
    order_r = np.argsort(pairs.pair_r, kind="stable")
    request_g, begin_g = np.unique(pairs.pair_r[order_r], return_index=True)
    end_g = np.append(begin_g[1:], len(order_r))
    long_g = _evenly(np.flatnonzero(end_g - begin_g > top), RANKED)
    rows = [order_r[begin_g[g] : end_g[g]] for g in long_g]
    overlaps = [
        ranks.overlap(pairs.one_r[r], pairs.other_r[r], np.zeros(len(r), np.int64), top=top)
        for r in rows
    ]
    return np.asarray(overlaps, np.float64), pairs.user_n[request_g[long_g]]


def _psi(one_n: Floats, other_n: Floats) -> float | None:
    if not len(one_n):
        return None
    inner = drift.edges(one_n)
    return drift.psi_distance(drift.counts(one_n, inner), drift.counts(other_n, inner)).value


def bounds(found: Interval, level: float, users: int, *, share: bool) -> tuple[float, float]:
    """Return the bounds of an interval at another level than that it was made with.

    Args:
        level: Chance that a bound is wrong, each.
        users: Of whom it is.
        share: It lies between 0 and 1, and is a mean over users' requests.
    """
    if found.estimate is None:
        return -math.inf, math.inf
    reach = NormalDist().inv_cdf(1 - level) / NormalDist().inv_cdf(1 - LEVEL)
    low = found.estimate - reach * (found.estimate - found.low)
    high = found.estimate + reach * (found.high - found.estimate)
    if share:
        # No resample shows what no user did: none of n users is likely up to this share.
        unseen = 1 - level ** (1 / users)
        low, high = min(low, 1 - unseen), max(high, unseen)
    return low, high
