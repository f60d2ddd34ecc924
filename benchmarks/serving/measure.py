"""One server under one load: what it answered, how long that took, what it cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import load, watch
from benchmarks.serving.load import Job
from benchmarks.serving.servers import CORE, Running

Figures = dict[str, Any]

SATURATING = 32
"""Connections of a closed loop at saturation."""

OPEN = 48
"""Connections of an open loop: fewer than a server of ours takes at once (64)."""

LOADED = 0.7
"""Of its capacity."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how often is measured, and where files go."""

    folder: Path
    seconds: float
    rounds: int
    rivals: Sequence[str] = ()
    rivals_home: Path
    minutes: float = 10.0
    """Of the soak."""


def loaded(
    running: Running, messages: Sequence[bytes], plan: Plan, *,
    connections: int, per_s: float | None = None, port: int | None = None,
    others: Sequence[int] = (), seconds: float | None = None,
) -> Figures:  # fmt: skip
    """Return a load's figures with the server's CPU microseconds per request.

    Args:
        port: Asked instead of the server's own, as where a proxy stands before it.
        others: Processes whose CPU is told besides, such as that proxy.
    """
    job = Job(
        port=port or running.port, messages=messages, connections=connections, per_s=per_s,
        seconds=seconds or plan.seconds,
    )  # fmt: skip
    pids = [running.pid, *others]
    before, busy_s, begun = [watch.cpu_s(pid) for pid in pids], watch.core_s(CORE), time.monotonic()
    found = load.drive(job)
    wall_s, busy_s = time.monotonic() - begun, watch.core_s(CORE) - busy_s
    spent = [watch.cpu_s(pid) - b for pid, b in zip(pids, before, strict=True)]
    each = [seconds * 1e6 / found["requests"] for seconds in spent]
    return {
        **found, "cpu_us": each[0], "others_cpu_us": each[1:], "asked_per_s": per_s,
        "disturbed": max(0.0, busy_s - sum(spent)) / wall_s,
    }  # fmt: skip


def median(taken: Sequence[Figures]) -> Figures:
    """Return each figure's median over rounds; of what is no number, the last."""
    held = dict(taken[-1])
    for name, value in held.items():
        if isinstance(value, int | float):
            held[name] = statistics.median(one[name] for one in taken)
    held["parts_ms"] = {
        name: statistics.median(one["parts_ms"].get(name, 0.0) for one in taken)
        for name in held["parts_ms"]
    }
    return held


def refused(found: Figures) -> str:
    """Return how many answers were not a 200, for a table: nothing where all were."""
    share = found["failed"] / max(1, found["counted"])
    return f" ({share:.1%} failed)" if found["failed"] else ""


def disturbed(taken: Iterable[Figures]) -> str:
    """Return what share of the servers' core other work took while figures were taken."""
    shares = [one["disturbed"] for one in taken]
    return (
        f"Other work took {statistics.median(shares):.0%} of the servers' core meanwhile, at most "
        f"{max(shares):.0%}; above a few percent, trust CPU and not throughput or latency."
    )
