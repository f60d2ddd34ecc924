"""What is asked of many simulated releases, and the numbers that answer it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from statistics import median
from typing import Any, TypeVar

import numpy as np

from benchmarks.rollout import alone, rules
from benchmarks.rollout.people import OPENED, Incident, People, Requests, Version
from benchmarks.rollout.releases import (
    POLICY,
    Ended,
    canary,
    evidence_of,
    policy_plan,
    released,
)
from penstock.release import Measure, Rollout
from penstock.rollout.judge import judge
from penstock.rollout.plan import Phase, Plan
from penstock.rollout.table import BUCKETS, buckets_for
from penstock.stats.intervals import exact
from penstock.verdict import Outcome

Found = TypeVar("Found")

HOURS = 4
"""Of a canary whose time to a strike is measured."""

STRICT = replace(
    POLICY,
    max_error_ratio=1.1,
    max_slow_share=0.005,
    slow_ratio=1.25,
    primary=Measure(name="clicks", source="label", margin=0.005, deviation=0.25),
)
"""A policy that tolerates hardly anything, so that small regressions are beyond its margins."""

WORLD, MANY, FEW = (20_000, 6.0), (100_000, 30.0), (6_000, 4.0)
"""Users and requests a second; many are needed to see some percent of clicks."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something happened, with its exact 95 % interval."""

    count: int
    n: int

    @property
    def low(self) -> float:
        """Lower bound."""
        return exact(self.count, self.n, alpha=0.05)[0]

    @property
    def high(self) -> float:
        """Upper bound."""
        return exact(self.count, self.n, alpha=0.05)[1]

    def __str__(self) -> str:
        share = self.count / self.n
        return f"{share:.1%} [{self.low:.1%}, {self.high:.1%}]"

    def figures(self) -> dict[str, float]:
        """Return it as plain numbers."""
        return {"count": self.count, "n": self.n, "low": self.low, "high": self.high}


def spread(task: Callable[[int], Found], seeds: Sequence[int], *, processes: int) -> list[Found]:
    """Return the task's result of every seed, in order, whatever the number of processes."""
    if processes == 1:
        return [task(seed) for seed in seeds]
    with get_context("fork").Pool(processes) as pool:
        return pool.map(task, seeds, chunksize=4)


def seeds(study: int, n: int) -> list[int]:
    """Return seeds of one study that no other one has."""
    return [study * 1_000_000 + k for k in range(n)]


# -- whole releases ------------------------------------------------------------------------------


def carried(
    seed: int,
    *,
    version: Version,
    together: float,
    policy: Rollout = POLICY,
    world: tuple[int, float] = WORLD,
) -> Ended:
    """Return one whole release."""
    people = People(np.random.default_rng(seed), users=world[0], per_s=world[1], together=together)
    return released(policy_plan(policy), people, version)


def outcomes(ended: Sequence[Ended]) -> dict[str, Any]:
    """Return how releases ended, and by which checks they were struck."""
    n = len(ended)
    back = [e for e in ended if e.phase is Phase.ROLLED_BACK]
    by_strike = [e for e in back if e.strikes and e.reason == e.strikes[-1].why]
    struck = Counter(f"{s.step}: {c}" for e in ended for s in e.strikes for c in s.checks)
    return {
        "promoted": Rate(count=sum(e.promoted for e in ended), n=n),
        "rolled back by strikes": Rate(count=len(by_strike), n=n),
        "rolled back without proof": Rate(count=len(back) - len(by_strike), n=n),
        "any strike": Rate(count=sum(bool(e.strikes) for e in ended), n=n),
        "strikes by": dict(struck.most_common(8)),
        "median hours": median(e.seconds / 3600 for e in ended),
        "looks": sum(e.looks for e in ended),
    }


# -- how soon ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Caught:
    """After how many of the challenger's requests each way stops one canary; None for never."""

    after: Mapping[str, int | None]
    events: Mapping[str, int | None]
    """Failing users of both arms until then, of our ways."""


OURS = "the judge"
COUNT, FAILING, CLICKS, SLOW = (
    "failing users alone, at 1 %",
    "failing shares of users alone, at 1 %",
    "clicks of users alone, at 1 %",
    "slow users alone, at 1 %",
)
"""Our tests by themselves, at the level that the other rules have."""


def caught(seed: int, *, version: Version, world: tuple[int, float], policy: Rollout) -> Caught:
    """Return when each way stops one canary of ``HOURS``."""
    plan = policy_plan(policy)
    people = People(np.random.default_rng(seed), users=world[0], per_s=world[1])
    requests = canary(people, version, plan, hours=HOURS)
    share = buckets_for(plan.steps[1].percent) / BUCKETS
    stops_s: dict[str, float | None] = {
        OURS: _judged(requests, plan),
        COUNT: alone.failing(requests, share=share),
        FAILING: alone.failing_more(requests, looks_s(HOURS)),
        CLICKS: alone.clicks(requests, looks_s(HOURS)),
        SLOW: alone.slow(requests, looks_s(HOURS), share=share),
    }
    counted = rules.minutes(requests, began_s=0.0, lasting=60 * HOURS)
    for name, rule in rules.RULES.items():
        minute = rule(counted)
        stops_s[name] = None if minute is None else 60.0 * minute
    ours_n = np.cumsum(requests.challenger_n)
    return Caught(
        after={name: _at(ours_n, requests, stop) for name, stop in stops_s.items()},
        events={name: _events(requests, stops_s[name]) for name in (OURS, COUNT)},
    )


def looks_s(hours: float) -> list[float]:
    """Return when the judge is asked: every minute at first, later when an eighth more is known."""
    found = [60.0]
    while found[-1] < 3600 * hours:
        found.append(min(3600 * hours, max(found[-1] + 60, found[-1] * 1.125)))
    return found


def _judged(requests: Requests, plan: Plan) -> float | None:
    step = plan.steps[1]
    for at_s in looks_s(HOURS):
        evidence = evidence_of(requests, until_s=at_s)
        if not len(evidence.challenger) or not len(evidence.champion):
            continue
        if (
            judge(plan, evidence, step, now=OPENED + timedelta(seconds=at_s)).outcome
            is Outcome.FAIL
        ):
            return at_s
    return None


def _at(ours_n: np.ndarray, requests: Requests, stop_s: float | None) -> int | None:
    if stop_s is None:
        return None
    return int(ours_n[max(0, int(requests.at_n.searchsorted(stop_s, side="right")) - 1)])


def _events(requests: Requests, stop_s: float | None) -> int | None:
    if stop_s is None:
        return None
    known = requests.until(stop_s + 1e-6)
    return len(np.unique(known.user_n[known.failed_n]))


def summed(found: Sequence[Caught]) -> dict[str, dict[str, Any]]:
    """Return of each way how often it stopped and the median over all canaries; None for never."""
    result: dict[str, dict[str, Any]] = {}
    for name in found[0].after:
        stops = [c.after[name] for c in found]
        events = [c.events.get(name) for c in found]
        result[name] = {
            "stopped": Rate(count=sum(s is not None for s in stops), n=len(stops)),
            "requests": _median(stops),
            "events": _median(events) if name in found[0].events else None,
        }
    return result


def _median(numbers: Sequence[int | None]) -> float | None:
    """Return the median where never counts as later than anything."""
    found = median(np.inf if n is None else n for n in numbers)
    return None if np.isinf(found) else float(found)


# -- the list ------------------------------------------------------------------------------------

HARMLESS = Version()
AT_MARGIN = 1 - 0.03 / 0.2216
"""Factor on clicks that takes away the whole margin of ``POLICY`` from a mean of 0.2216."""

WHOLE: Mapping[str, tuple[Version, float]] = {
    "harmless": (HARMLESS, 0.05),
    "harmless, failures more together (0.2)": (HARMLESS, 0.2),
    "clicks worse by the margin (−13.5 %)": (Version(name="margin", clicks=AT_MARGIN), 0.05),
    "errors ×1.5, the limit": (Version(name="errors", errors=1.5), 0.05),
    "errors ×2": (Version(name="errors", errors=2.0), 0.05),
    "latency 3×": (Version(name="latency", latency=3.0), 0.05),
    "split 9 for 10": (Version(name="split", split=0.9), 0.05),
    "incident, everybody: errors ×5 for 30 min": (
        Version(
            name="incident",
            incident=Incident(begins_s=5400, lasts_s=1800, times=5, challenger_only=False),
        ),
        0.05,
    ),
    "incident, challenger's host: errors ×5 for 30 min": (
        Version(
            name="incident",
            incident=Incident(begins_s=5400, lasts_s=1800, times=5, challenger_only=True),
        ),
        0.05,
    ),
}
"""What whole releases are simulated of, with the intraclass correlation of failures."""

PLANTED: Mapping[str, tuple[Version, tuple[int, float]]] = {
    "harmless": (HARMLESS, WORLD),
    "errors ×1.25": (Version(errors=1.25), WORLD),
    "errors ×1.5": (Version(errors=1.5), WORLD),
    "errors ×2": (Version(errors=2.0), WORLD),
    "errors ×3": (Version(errors=3.0), WORLD),
    "errors ×5": (Version(errors=5.0), WORLD),
    "latency 1.1×": (Version(latency=1.1), WORLD),
    "latency 1.5×": (Version(latency=1.5), WORLD),
    "latency 2×": (Version(latency=2.0), WORLD),
    "split 9 for 10": (Version(split=0.9), WORLD),
    "split 8 for 10": (Version(split=0.8), WORLD),
    "clicks −5 %": (Version(clicks=0.95), MANY),
    "clicks −10 %": (Version(clicks=0.9), MANY),
}
"""What is planted in canaries, with the world they are in."""


def whole(name: str, n: int, *, processes: int) -> dict[str, Any]:
    """Carry so many whole releases."""
    version, together = WHOLE[name]
    study = 1 + list(WHOLE).index(name)
    task = partial(carried, version=version, together=together)
    return outcomes(spread(task, seeds(study, n), processes=processes))


def planted(name: str, n: int, *, processes: int) -> dict[str, dict[str, Any]]:
    """Run so many canaries with something planted."""
    version, world = PLANTED[name]
    study = 101 + list(PLANTED).index(name)
    task = partial(caught, version=version, world=world, policy=STRICT)
    return summed(spread(task, seeds(study, n), processes=processes))
