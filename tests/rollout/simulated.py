"""Steps of releases with simulated users, for judges: arrays, no servers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penstock.rollout.evidence import Answers, Copies, Evidence
from penstock.rollout.plan import Step
from penstock.rollout.table import BUCKETS, buckets_for

T0 = 4_000_000_000.0
"""Unix seconds at which each step begins."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """How a version answers."""

    errors: float = 0.0
    """Share of requests."""

    refused: float = 0.0
    slow: float = 0.0
    """Share of requests that take 120 ms more."""

    right: float = 0.9
    """Mean of the measure."""


GOOD = Version()


def answers(
    rng: np.random.Generator,
    at_n: Any,
    user_n: Any,
    version: Version,
    *,
    spread: float = 0.05,
    **over: Any,
) -> Answers:
    """Return what users got, whose own means differ by ``spread``."""
    n = len(at_n)
    failed_n = rng.random(n) < version.errors
    refused_n = ~failed_n & (rng.random(n) < version.refused)
    latency_ms_n = rng.gamma(4.0, 0.8, n) + 120 * (rng.random(n) < version.slow)
    own_u = np.random.default_rng(5).normal(0, spread, 1 + int(np.max(user_n, initial=0)))
    right_n = (rng.random(n) < version.right + own_u[user_n]).astype(np.float64)
    latency_ms_n[failed_n | refused_n] = np.nan
    right_n[failed_n | refused_n] = np.nan
    given: dict[str, Any] = {
        "slices_n": np.zeros(n, np.uint64),
        "values_n": {"right": right_n, "label": right_n},
        **over,
    }
    return Answers(
        at_n=np.asarray(at_n, np.float64),
        user_n=np.asarray(user_n, np.int64),
        failed_n=failed_n,
        refused_n=refused_n,
        latency_ms_n=latency_ms_n,
        **given,
    )


def step_of(
    step: Step,
    *,
    seed: int = 1,
    seconds: float = 15.0,
    rate: float = 250.0,
    users: int = 6000,
    version: Version = GOOD,
    usual: Version = GOOD,
    spread: float = 0.05,
) -> Evidence:
    """Return a step's whole evidence; :func:`until` gives what was known earlier."""
    rng = np.random.default_rng(seed)
    at_n = T0 + np.arange(int(seconds * rate)) / rate
    user_n = rng.integers(users, size=len(at_n))
    bucket_u = rng.integers(BUCKETS, size=users)
    given_n = bucket_u[user_n] < buckets_for(step.percent)
    own_n = np.ones(len(at_n), bool) if step.shadow else given_n
    other_n = np.ones(len(at_n), bool) if step.shadow else ~given_n
    if step.percent == 100:
        own_n, other_n = at_n >= T0 + seconds / 2, at_n < T0 + seconds / 2
    return Evidence(
        since=T0 + seconds / 2 if step.percent == 100 else T0,
        challenger=answers(rng, at_n[own_n], user_n[own_n], version, spread=spread),
        champion=answers(rng, at_n[other_n], user_n[other_n], usual, spread=spread),
        newest_at=float(at_n[-1]),
    )


def until(evidence: Evidence, at: float) -> Evidence:
    """Return what was known of a step at a time."""
    return replace(
        evidence,
        challenger=evidence.challenger.where(evidence.challenger.at_n <= at),
        champion=evidence.champion.where(evidence.champion.at_n <= at),
    )


def copies_of(
    rng: np.random.Generator,
    n: int,
    *,
    users: int = 2000,
    otherwise: float = 0.02,
    noise: float = 0.02,
    rows: int = 0,
    slices: int = 0,
    lost: int = 0,
) -> Copies:
    """Return copies with their originals.

    Args:
        otherwise: Share that is decided otherwise.
        noise: By which the scores differ.
        rows: Of each request; 0 for one.
        slices: Bits that every request has.
        lost: Requests whose copy is not there.
    """
    one_n = rng.random(n)
    one_r = rng.random(n * rows)
    return Copies(
        user_n=rng.integers(users, size=n),
        alike_n=rng.random(n) >= otherwise,
        one_n=one_n,
        other_n=one_n + rng.normal(0, noise, n),
        slices_n=np.full(n, slices, np.uint64),
        pair_r=np.repeat(np.arange(n), rows),
        one_r=one_r,
        other_r=one_r + rng.normal(0, noise, n * rows),
        settled_n=np.ones(n, bool),
        sent_slices_m=np.full(n + lost, slices, np.uint64),
    )
