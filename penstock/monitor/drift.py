"""Judge whether what the champion is asked about has moved from its training rows: p(x). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.monitor.weighing import weighed
from penstock.request import Contract
from penstock.stats.drift import Distance, significant
from penstock.stats.profiles import Bars, Compared, compared
from penstock.verdict import Check, Outcome
from penstock.watching import Watch

MEASURES = ("PSI", "JS", "KS", "missing")

Profiles = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What was found of the features."""

    drift: tuple[Check, ...]
    """Of each feature and measure, whether its distribution moved."""

    missing: tuple[Check, ...]
    """Of each feature, whether its share of missing values moved: broken data rather than another
    world."""

    psi: Mapping[str, float]
    bars: Mapping[str, Bars]
    """Of each feature what to draw."""


@dataclass(frozen=True)
class _Measured:
    feature: str
    measure: str
    limit: float
    distance: Distance
    slack: float = 0.0


def judge(
    profiles: Profiles, features: pa.ChunkedArray, contract: Contract, watch: Watch, *, users: int
) -> Moved:
    """Return a check of each feature and measure.

    A measure fails when it exceeds its limit and stands among all features together (Benjamini and
    Hochberg at ``watch.rate``). It is inconclusive where chance alone reaches the limit between
    samples of these sizes, or where it exceeds the limit and does not stand.

    Args:
        profiles: Of the training rows, by column; what ``profile.json`` holds as ``columns``.
        features: Struct of a list for each feature, one value per example.
        users: Of the requests; those of one user are alike.
    """
    found = {
        name: _compared(profiles, features, name, users=users)
        for name in _names(profiles, features, contract, watch)
    }
    measured = [m for name, one in found.items() if one for m in _measures(name, one, watch)]
    standing = {
        measure: significant([m.distance.p for m in of], rate=watch.rate)
        for measure in MEASURES
        if (of := [m for m in measured if m.measure == measure])
    }
    checks = {"drift": [_unknown(name) for name, one in found.items() if one is None]}
    checks["missing"] = []
    for measure, stands in standing.items():
        of = [m for m in measured if m.measure == measure]
        made = [_weighed(m, stands=s) for m, s in zip(of, stands, strict=True)]
        checks["missing" if measure == "missing" else "drift"] += made
    return Moved(
        drift=tuple(checks["drift"]) or (_nothing(),),
        missing=tuple(checks["missing"]),
        psi={name: one.psi.value for name, one in found.items() if one},
        bars={name: one.bars for name, one in found.items() if one},
    )


def _names(
    profiles: Profiles, features: pa.ChunkedArray, contract: Contract, watch: Watch
) -> list[str]:
    """Return the features to compare: those asked for, or all that both sides have."""
    if watch.columns:
        return list(watch.columns)
    there, hashed = _there(features), contract.endpoint.hashed
    return [n for n in contract.names if n in profiles and n in there and n not in hashed]


def _there(features: pa.ChunkedArray) -> set[str]:
    return {field.name for field in features.type} if pa.types.is_struct(features.type) else set()


def _compared(
    profiles: Profiles, features: pa.ChunkedArray, name: str, *, users: int
) -> Compared | None:
    if name not in profiles or name not in _there(features):
        return None
    values = pc.list_flatten(pc.struct_field(features, name))
    return compared(profiles[name], values, units=min(users, len(values)))


def _measures(name: str, one: Compared, watch: Watch) -> list[_Measured]:
    found = [
        _Measured(name, "PSI", watch.psi, one.psi),
        _Measured(name, "JS", watch.js, one.js),
        _Measured(name, "missing", watch.max_missing_change, one.missing),
    ]
    if one.ks is not None:
        found.append(_Measured(name, "KS", watch.ks, one.ks, one.slack))
    return found


def _weighed(m: _Measured, *, stands: bool) -> Check:
    name = f"drift: {m.feature} {m.measure}"
    return weighed(name, m.distance, m.limit, stands=stands, slack=m.slack)


def _unknown(name: str) -> Check:
    reason = "it cannot be compared: one side has no numbers of it, or the log lacks it"
    return Check(name=f"drift: {name}", outcome=Outcome.ERROR, reason=reason)


def _nothing() -> Check:
    reason = (
        "no feature is both in the log and in the package's profile; name some in Watch.columns"
    )
    return Check(name="drift", outcome=Outcome.ERROR, reason=reason)
