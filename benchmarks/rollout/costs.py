"""What a look costs: the judge's time by the rows of its evidence."""

from __future__ import annotations

import time
from datetime import timedelta
from statistics import median

import numpy as np

from benchmarks.rollout.people import OPENED, People, Version
from benchmarks.rollout.releases import canary, evidence_of, policy_plan
from penstock.rollout.judge import judge

ROWS = (1_000, 10_000, 100_000, 1_000_000)
TURNS = 5


def judging() -> dict[int, dict[str, float]]:
    """Return CPU milliseconds of a look, looks a second and rows a second, by rows of evidence."""
    plan, found = policy_plan(), {}
    for rows in ROWS:
        people = People(np.random.default_rng(5), users=200_000, per_s=rows / 3600)
        requests = canary(people, Version(), plan, hours=1)
        taken: list[float] = []
        for _ in range(TURNS):
            # Anew each time: an evidence keeps what it has counted.
            evidence = evidence_of(requests, until_s=3600)
            begun = time.process_time()
            judge(plan, evidence, plan.steps[1], now=OPENED + timedelta(hours=1))
            taken.append(time.process_time() - begun)
        seconds = median(taken)
        found[rows] = {
            "rows": len(requests.at_n),
            "ms": 1000 * seconds,
            "looks_per_s": 1 / seconds,
            "rows_per_s": len(requests.at_n) / seconds,
        }
    return found
