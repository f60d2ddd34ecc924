"""Simulated users who ask, click, wait and fail: what both versions of a release answer.

Users, their activity and the true chance of each click are those of streamrec's simulator. Failures
and latency are ours: each user has a chance of failure of their own (a Beta distribution, so that
failures of a user go together) and a speed of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray

from penstock.rollout.evidence import NO_COPIES, Answers, Copies
from penstock.rollout.table import BUCKETS
from workloads.streamrec.simulator import Settings, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ERRORS = 0.01
"""Share of requests that fail, of a harmless version."""

TOGETHER = 0.05
"""Intraclass correlation of failures: how much requests of one user fail together."""

MEDIAN_MS, OWN_SPREAD, SPREAD = 20.0, 0.2, 0.5
"""Latency is lognormal: its median, and the log's deviation between users and within one."""

SCORE_NOISE, THRESHOLD = 0.005, 0.23
"""By how much the challenger's scores differ, and from where an item is called worth showing."""

PER_S = 6.0
"""Requests a second, of both versions together."""

OPENED = datetime(2026, 1, 5, tzinfo=UTC)
"""When each release begins."""


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Something that fails requests for a while and is not the version's fault."""

    begins_s: float
    """After the release was opened."""

    lasts_s: float
    times: float
    """How many times as many requests fail."""

    challenger_only: bool
    """It hits the challenger's server alone, as a bad host does; else it hits everybody."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What a challenger does otherwise than the champion: factors of 1 are harmless."""

    name: str = "harmless"
    errors: float = 1.0
    clicks: float = 1.0
    latency: float = 1.0
    split: float = 1.0
    """Users who get it, over those the table gives it."""

    incident: Incident | None = None


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Requests of one step in order of time; each column has shape [n]."""

    at_n: Floats
    """Seconds since the release was opened."""

    user_n: Ints
    challenger_n: NDArray[np.bool_]
    failed_n: NDArray[np.bool_]
    latency_ms_n: Floats
    chance_n: Floats
    """The champion's score: the true chance of a click."""

    clicked_n: Floats
    """NaN of those that failed: nothing was shown."""

    def until(self, at_s: float) -> Requests:
        """Return those before a time."""
        end = int(self.at_n.searchsorted(at_s))
        return Requests(**{name: getattr(self, name)[:end] for name in self.__dataclass_fields__})

    def answers(self, *, challenger: bool) -> Answers:
        """Return one arm's, as the judge gets them."""
        chosen_n = self.challenger_n == challenger
        at_n = OPENED.timestamp() + self.at_n[chosen_n]
        return Answers(
            at_n=at_n,
            user_n=self.user_n[chosen_n],
            failed_n=self.failed_n[chosen_n],
            refused_n=np.zeros(len(at_n), bool),
            latency_ms_n=self.latency_ms_n[chosen_n],
            values_n={"label": self.clicked_n[chosen_n]},
            came_at_n={"label": at_n},
        )


@cache
def _impressions(users: int, seed: int) -> tuple[Ints, Floats]:
    """Return who saw something and the true chance of a click, over two weeks of streamrec."""
    world = World(Settings(impressions=40 * users, seed=seed))
    hours = [world.hour(hour) for hour in range(world.settings.hours)]
    user_n = np.concatenate([h.user for h in hours])
    return user_n, np.concatenate([h.probability for h in hours])


class People:
    """The users of one release, with all that is their own."""

    def __init__(
        self, rng: np.random.Generator, *, users: int = 20_000, seed: int = 7,
        together: float = TOGETHER, per_s: float = PER_S,
    ) -> None:  # fmt: skip
        """Draw them: a failure chance, a speed and a bucket each.

        Args:
            rng: Of this release.
            users: How many there are; those of streamrec's world of that size and ``seed``.
            together: Intraclass correlation of failures; 0 gives everybody the same chance.
            per_s: Requests a second, of both versions together.
        """
        self.rng, self.users, self.per_s = rng, users, per_s
        self._user_n, self._click_n = _impressions(users, seed)
        weight = 1 / together - 1 if together else 0.0
        self.fails_u = (
            rng.beta(ERRORS * weight, (1 - ERRORS) * weight, users)
            if together
            else np.full(users, ERRORS)
        )
        self.speed_u = np.exp(OWN_SPREAD * rng.standard_normal(users))
        self.bucket_u = rng.integers(0, BUCKETS, users)
        self._lost_u = rng.random(users)

    def requests(
        self, version: Version, *, begins_s: float, ends_s: float, buckets: int
    ) -> Requests:
        """Draw the requests of a stretch, of which ``buckets`` of 64 give to the challenger."""
        rng = self.rng
        n = int(rng.poisson((ends_s - begins_s) * self.per_s))
        at_n = np.sort(rng.uniform(begins_s, ends_s, n))
        picked_n = rng.integers(0, len(self._user_n), n)
        user_n = self._user_n[picked_n]
        ours_n = (self.bucket_u[user_n] < buckets) & (self._lost_u[user_n] < version.split)
        failed_n = rng.random(n) < self._failing(version, at_n, user_n, ours_n)
        latency_ms_n = MEDIAN_MS * self.speed_u[user_n] * np.exp(SPREAD * rng.standard_normal(n))
        latency_ms_n *= np.where(ours_n, version.latency, 1.0)
        chance_n = self._click_n[picked_n]
        clicks_n = rng.random(n) < chance_n * np.where(ours_n, version.clicks, 1.0)
        return Requests(
            at_n=at_n,
            user_n=user_n,
            challenger_n=ours_n,
            failed_n=failed_n,
            latency_ms_n=np.where(failed_n, np.nan, latency_ms_n),
            chance_n=chance_n,
            clicked_n=np.where(failed_n, np.nan, clicks_n),
        )

    def copies(self, version: Version, requests: Requests) -> tuple[Answers, Copies]:
        """Draw what the challenger says to copies of the champion's requests, in shadow."""
        rng, n = self.rng, len(requests.at_n)
        every_n = np.ones(n, bool)
        failed_n = rng.random(n) < self._failing(version, requests.at_n, requests.user_n, every_n)
        own_ms_n = MEDIAN_MS * version.latency * self.speed_u[requests.user_n]
        latency_ms_n = own_ms_n * np.exp(SPREAD * rng.standard_normal(n))
        other_n = requests.chance_n + SCORE_NOISE * rng.standard_normal(n)
        answers = Answers(
            at_n=OPENED.timestamp() + requests.at_n,
            user_n=requests.user_n,
            failed_n=failed_n,
            refused_n=np.zeros(n, bool),
            latency_ms_n=np.where(failed_n, np.nan, latency_ms_n),
            values_n={"label": requests.clicked_n},
            came_at_n={"label": OPENED.timestamp() + requests.at_n},
        )
        alike_n = (requests.chance_n > THRESHOLD) == (other_n > THRESHOLD)
        known_n = ~requests.failed_n
        sent = int(known_n.sum())
        return answers, replace(
            NO_COPIES,
            user_n=requests.user_n[known_n],
            alike_n=(alike_n & ~failed_n)[known_n],
            one_n=requests.chance_n[known_n],
            other_n=np.where(failed_n, np.nan, other_n)[known_n],
            slices_n=np.zeros(sent, np.uint64),
            settled_n=np.ones(sent, bool),
            sent_slices_m=np.zeros(sent, np.uint64),
        )

    def _failing(
        self, version: Version, at_n: Floats, user_n: Ints, ours_n: NDArray[np.bool_]
    ) -> Floats:
        chance_n = self.fails_u[user_n] * np.where(ours_n, version.errors, 1.0)
        incident = version.incident
        if incident is not None:
            hit_n = (at_n >= incident.begins_s) & (at_n < incident.begins_s + incident.lasts_s)
            if incident.challenger_only:
                hit_n &= ours_n
            chance_n = np.where(hit_n, chance_n * incident.times, chance_n)
        return chance_n


def joined(parts: list[Requests]) -> Requests:
    """Return stretches of a step as one."""
    names = Requests.__dataclass_fields__
    return Requests(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})
