"""Differ: what changed between two versions, and which of it most likely moved the metric. Pure.

Only what changed can explain, and only what leaves a trace on the way to the metric: where the
training rows are the same bytes in both, no feature definition explains anything; where the trained
weights are, nothing before them does. What is left is ranked by rule, not by proof.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from penstock.bundle import Bundle
from penstock.policy import FALLING
from penstock.register import weighed
from penstock.register.weighed import Change, Made, Trace
from penstock.stats.drift import Distance


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How the metric that the workload is judged by differs: of the second, less the first."""

    name: str
    was: float | None
    now: float | None
    low: float | None
    high: float | None
    """Bounds of the difference at 95 %; None where no interval is known."""

    how: str
    """What the bounds are: of the same rows in pairs, or of two intervals."""

    @property
    def beyond_chance(self) -> bool | None:
        """Whether the difference is more than chance; None where that cannot be told."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Everything that differs between two versions, likeliest cause first."""

    first: str
    second: str
    metric: Metric
    same_holdout: bool | None
    changes: tuple[Change, ...]
    columns: Mapping[str, Distance]
    """PSI of every training column that both have."""

    @property
    def likeliest(self) -> Change | None:
        """What most likely explains the metric's change; None if nothing has to be explained."""
        if not self.metric.beyond_chance or not self.changes or not self.changes[0].weight:
            return None
        return self.changes[0]

    @property
    def headline(self) -> str:
        """What to know first: whether the metric changed beyond chance, and on which rows."""
        m = self.metric
        if m.was is None or m.now is None:
            return f"{m.name} cannot be compared: {m.how}."
        moved = f"{m.name} {m.was:.4f} → {m.now:.4f} ({m.now - m.was:+.4f}"
        if m.low is not None:
            moved += f", 95 % between {m.low:+.4f} and {m.high:+.4f}"
        said = {
            None: "whether by chance cannot be told, there is no interval",
            False: "no more than chance makes",
            True: f"{_direction(m)} beyond chance",
        }[m.beyond_chance]
        rows = "" if self.same_holdout else " The two were scored on different holdouts."
        return f"{moved}): {said}; {m.how}.{rows}"

    @property
    def conclusion(self) -> str:
        """What most likely explains the change, with the reason, and that it is not proved."""
        if not self.changes:
            return "Nothing changed between the two."
        if not self.metric.beyond_chance:
            return "Nothing has to be explained; what changed is listed by what it could move."
        if (found := self.likeliest) is None:
            return "Nothing that changed can have moved the metric; look for what is not recorded."
        alone = " Nothing else that changed could." if self._alone else ""
        return (
            f"Most likely {found.kind}: {found.what}, because {found.reason}; not proved.{alone} "
            "`penstock reproduce` with one thing changed would."
        )

    @property
    def _alone(self) -> bool:
        return sum(change.weight > 0 for change in self.changes) == 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "first": self.first,
            "second": self.second,
            "metric": {**asdict(self.metric), "beyond_chance": self.metric.beyond_chance},
            "same_holdout": self.same_holdout,
            "headline": self.headline,
            "conclusion": self.conclusion,
            "changes": [asdict(change) for change in self.changes],
            "columns": {name: asdict(found) for name, found in self.columns.items()},
        }


def made(package: Bundle, *, name: str) -> Made:
    """Read what is compared of a package."""
    return Made(
        name=name,
        fingerprint=package.fingerprint,
        lineage=package.json("lineage.json"),
        profile=package.json("profile.json"),
        scores=package.json("scores.json"),
    )


def diff(first: Made, second: Made) -> Difference:
    """Return what changed from the first version to the second.

    Raises:
        ValueError: They are of different workloads.
    """
    one, two = first.lineage, second.lineage
    if one["workload"] != two["workload"]:
        raise ValueError(
            f"{first.name} is of {one['workload']}, {second.name} of {two['workload']}; compare "
            "two versions of one workload."
        )
    trace = Trace(one, two)
    same_holdout = trace.same("snapshot", "holdout.parquet")
    columns = weighed.distances(first.profile, second.profile)
    found = weighed.all_of(first, second, columns, trace)
    return Difference(
        first=first.name,
        second=second.name,
        metric=_metric(first, second, same_holdout=same_holdout),
        same_holdout=same_holdout,
        changes=tuple(sorted(found, key=lambda change: -change.weight)),
        columns=columns,
    )


def _metric(first: Made, second: Made, *, same_holdout: bool | None) -> Metric:
    name = str(second.scores["metric"])
    was, now = (side.scores["metrics"].get(name, {}).get("challenger") for side in (first, second))
    if was is None or now is None:
        how = f"{(first if was is None else second).name} has none"
        return Metric(name=name, was=None, now=None, low=None, high=None, how=how)
    paired = _paired(first, second, name) if same_holdout else None
    low, high, how = paired or _from_intervals(was, now)
    return Metric(name=name, was=was["value"], now=now["value"], low=low, high=high, how=how)


def _paired(first: Made, second: Made, name: str) -> tuple[float, float, str] | None:
    """Return the gate's own interval of the difference, where one was judged against the other."""
    for challenger, champion, sign in ((second, first, 1), (first, second, -1)):
        judged = challenger.scores["metrics"][name].get("difference")
        against = challenger.lineage.get("artifacts", {}).get("champion")
        if against == champion.fingerprint and judged and judged["low"] is not None:
            low, high = sorted((sign * judged["low"], sign * judged["high"]))
            return low, high, "both judged on the same rows in pairs"
    return None


def _from_intervals(
    was: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[float | None, float | None, str]:
    """Return bounds of a difference from each side's own interval.

    Source: Zou and Donner (2008), *Construction of confidence limits about effect measures*,
    Statistics in Medicine 27, 1693-1702. Right for two holdouts; on one holdout, where errors go
    together, it is wider than need be.
    """
    bounds = (was["low"], was["high"], now["low"], now["high"])
    if None in bounds:
        return None, None, "no interval of one of them is known"
    was_low, was_high, now_low, now_high = bounds
    change = now["value"] - was["value"]
    low = change - math.hypot(now["value"] - now_low, was_high - was["value"])
    high = change + math.hypot(now_high - now["value"], was["value"] - was_low)
    return low, high, "from each one's own interval"


def _direction(metric: Metric) -> str:
    rose = (metric.now or 0.0) > (metric.was or 0.0)
    return "worse" if rose == (metric.name in FALLING) else "better"
