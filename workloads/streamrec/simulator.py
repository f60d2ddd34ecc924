"""Simulate a recommender: users, items, impressions and clicks whose true probability is known.

A click's log-odds are a sum of the user's taste for the item's category, the item's quality, the
user's readiness to click, the device and the hour of day; :func:`probability` is that sum, and what
it says of every impression is written beside the impressions. Hours are drawn one after the other,
each from its own seed, so any size fits in the memory of one hour and the state of the users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday."""

CATEGORIES = 8
DRIFTS = ("none", "covariate", "concept", "broken")
HALF_LIFE_H = 72.0
"""Of what a user did in a category."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is simulated."""

    impressions: int = 20_000
    seed: int = 7
    days: int = 14

    warm_up_days: int = 3
    """Days at the beginning whose impressions make features and no labels: before them, nothing
    was counted yet, and everybody would look new."""

    drift: str = "none"
    """``covariate``: other devices and items; ``concept``: tastes turn; ``broken``: a feature's
    upstream job writes zeros."""

    drift_from: float = 0.6
    """Share of the time after which it sets in."""

    late_share: float = 0.02
    """Share of feature rows that become known up to half a day late."""

    born_share: float = 0.15
    """Share of users and items that appear during the time: cold starts."""

    def __post_init__(self) -> None:
        if not 1_000 <= self.impressions <= 50_000_000:
            raise ValueError(f"{self.impressions} impressions; simulate 1,000 to 50,000,000.")
        if self.drift not in DRIFTS:
            raise ValueError(f"drift {self.drift!r}; it is one of {', '.join(DRIFTS)}.")
        if not 2 <= self.days <= 365:
            raise ValueError(f"{self.days} days; simulate 2 to 365.")
        if not 0 <= self.warm_up_days < self.days:
            raise ValueError(f"{self.warm_up_days} days of warm-up; there are {self.days} in all.")
        for name in ("drift_from", "late_share", "born_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share, 0 to 1.")

    @property
    def hours(self) -> int:
        """Hours simulated."""
        return 24 * self.days

    def drifted(self, hour: int) -> bool:
        """Return whether the drift has set in."""
        return self.drift != "none" and hour >= self.drift_from * self.hours


@dataclass(frozen=True)
class Impressions:
    """One hour of impressions, in the order of their times; every array has shape [n]."""

    hour: int
    user: Ints
    item: Ints
    mobile: Ints
    second: Ints
    probability: Floats
    """The true probability of a click."""

    clicked: Ints


class World:
    """The users and items of a simulation: what does not change with the hour."""

    def __init__(self, settings: Settings) -> None:
        """Draw them."""
        rng = np.random.default_rng([settings.seed, 0])
        self.settings = settings
        self.users = max(50, settings.impressions // 40)
        self.items = max(40, settings.impressions // 400)
        taste = rng.gamma(0.5, size=(self.users, CATEGORIES)).astype(np.float32)
        taste /= taste.sum(axis=1, keepdims=True)
        self.taste = np.sqrt(taste * CATEGORIES) - 0.7
        self.readiness = rng.normal(0, 0.5, self.users).astype(np.float32)
        self.activity = rng.lognormal(0, 1.0, self.users)
        self.mobile = rng.beta(2, 2, self.users)
        self.user_born = self._born(rng, self.users)
        self.category = rng.integers(0, CATEGORIES, self.items)
        self.quality = rng.normal(0, 0.6, self.items)
        self.popularity = 1 / (1 + rng.permutation(self.items)) ** 0.7
        self.item_born = self._born(rng, self.items)

    def _born(self, rng: np.random.Generator, n: int) -> Ints:
        born = rng.integers(1, self.settings.hours, n)
        return np.where(rng.random(n) < self.settings.born_share, born, 0)

    @cached_property
    def per_hour(self) -> Ints:
        """Impressions of each hour: more in the evening and at the weekend."""
        hour = np.arange(self.settings.hours)
        weekend = np.where(hour // 24 % 7 >= 5, 1.3, 1.0)
        weight = (1 + 0.7 * np.sin(2 * np.pi * (hour % 24 - 13) / 24)) * weekend
        edges = np.round(np.cumsum(weight) / weight.sum() * self.settings.impressions)
        return np.diff(edges.astype(np.int64), prepend=0)

    def probability(self, hour: int, user: Ints, item: Ints, mobile: Ints) -> Floats:
        """Return the true probability of a click, shape [n]."""
        turned = self.settings.drift == "concept" and self.settings.drifted(hour)
        taste = self.taste[user, self.category[item]] * (-0.8 if turned else 1.4)
        evening = 0.25 * math.sin(2 * math.pi * (hour % 24 - 13) / 24)
        device = np.where(mobile == 1, -0.3 if turned else 0.3, 0.0)
        odds = -2.0 + taste + self.quality[item] + self.readiness[user] + device + evening
        return 1 / (1 + np.exp(-odds))

    def hour(self, hour: int) -> Impressions:
        """Return one hour of impressions; the same for the same seed, whatever was drawn before."""
        rng = np.random.default_rng([self.settings.seed, 1, hour])
        n = int(self.per_hour[hour])
        other = self.settings.drift == "covariate" and self.settings.drifted(hour)
        popularity = self.popularity * (1 + 9 * (self.category == 0) * other)
        user = _drawn(rng, self.activity * (self.user_born <= hour), n)
        item = _drawn(rng, popularity * (self.item_born <= hour), n)
        mobile = (rng.random(n) < (0.95 if other else self.mobile[user])).astype(np.int64)
        chance = self.probability(hour, user, item, mobile)
        return Impressions(
            hour=hour,
            user=user,
            item=item,
            mobile=mobile,
            second=np.sort(rng.integers(0, 3600, n)),
            probability=chance,
            clicked=(rng.random(n) < chance).astype(np.int64),
        )


def _drawn(rng: np.random.Generator, weight: Floats, n: int) -> Ints:
    """Return n indices, each with a probability proportional to its weight."""
    edges = np.cumsum(weight)
    return np.searchsorted(edges, rng.random(n) * edges[-1], side="right")


class Counts:
    """What users or items did in the last 24 hours, kept by hour."""

    def __init__(self, n: int) -> None:
        """Start with nothing seen."""
        self._hours = np.zeros((2, 24, n), np.int32)
        self.impressions, self.clicks = np.zeros(n, np.int64), np.zeros(n, np.int64)

    def add(self, hour: int, who: Ints, clicked: Ints) -> Ints:
        """Take in one hour and return who had an impression in it, in order."""
        slot, n = hour % 24, len(self.impressions)
        shown = np.bincount(who, minlength=n)
        clicks = np.bincount(who, weights=clicked, minlength=n).astype(np.int64)
        self.impressions += shown - self._hours[0, slot]
        self.clicks += clicks - self._hours[1, slot]
        self._hours[0, slot], self._hours[1, slot] = shown, clicks
        return np.unique(who)


def feature_rows(world: World) -> Iterator[tuple[Impressions, dict[str, dict[str, NDArray]]]]:
    """Yield each hour's impressions and the feature rows that are computed when it has ended.

    Every row is of the hour's end. ``users`` and ``items`` hold counts of the last 24 hours,
    ``tastes`` what a user did in a category (half forgotten after three days), ``profiles`` once a
    day who the user is.
    """
    settings = world.settings
    users, items = Counts(world.users), Counts(world.items)
    seen = np.zeros((2, world.users * CATEGORIES), np.float32)
    fade = np.float32(0.5 ** (1 / HALF_LIFE_H))
    today: list[Ints] = []
    for hour in range(settings.hours):
        drawn = world.hour(hour)
        broken = settings.drift == "broken" and settings.drifted(hour)
        who = users.add(hour, drawn.user, drawn.clicked)
        what = items.add(hour, drawn.item, drawn.clicked)
        pair = drawn.user * CATEGORIES + world.category[drawn.item]
        seen *= fade
        size = seen.shape[1]
        seen[0] += np.bincount(pair, minlength=size).astype(np.float32)
        seen[1] += np.bincount(pair, weights=drawn.clicked, minlength=size).astype(np.float32)
        pairs = np.unique(pair)
        today.append(who)
        rows = {
            "users": {"user_id": who, **_rates("user", users, who, broken=broken)},
            "items": {"item_id": what, **_rates("item", items, what, broken=False)},
            "tastes": {
                "user_id": pairs // CATEGORIES,
                "category": pairs % CATEGORIES,
                "taste": (seen[1, pairs] + 0.5) / (seen[0, pairs] + 5.0),
                "taste_weight": seen[0, pairs],
            },
        }
        if hour % 24 == 23:
            active = np.unique(np.concatenate(today))
            today = []
            rows["profiles"] = {
                "user_id": active,
                "tenure_days": (hour - world.user_born[active]) / 24,
                "mobile_share": world.mobile[active],
            }
        yield drawn, rows


def _rates(name: str, counts: Counts, who: Ints, *, broken: bool) -> dict[str, NDArray]:
    shown, clicked = counts.impressions[who], counts.clicks[who]
    rate = (clicked + 1.0) / (shown + 10.0)
    return {
        f"{name}_impressions_24h": shown,
        f"{name}_clicks_24h": clicked,
        f"{name}_rate_24h": np.zeros(len(who)) if broken else rate,
    }


def instant(hour: int) -> datetime:
    """Return the beginning of an hour of the simulation."""
    return START + timedelta(hours=hour)
