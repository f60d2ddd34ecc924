"""How far a column's numbers are from the profile that a package keeps of its training rows.

A profile holds no rows. It says exactly how many numbers lie below some two hundred points, deciles
among them, or of few different whole numbers how often each occurs. So PSI and Jensen-Shannon
distance are exact, and the KS statistic is at the points; between two of them it can be greater by
the share of training rows that lies there, less than 1 / 200, which is told as ``slack``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import special

from penstock.stats import drift
from penstock.stats.drift import CHANCE, Distance, Floats
from penstock.stats.skew import share_distance

Profile = Mapping[str, Any]
Counts = NDArray[np.float64]
Bars = Mapping[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A column beside its profile."""

    psi: Distance
    js: Distance
    missing: Distance
    """Between the shares of missing values."""

    ks: Distance | None
    """None of few whole numbers, which are compared one by one."""

    slack: float
    """The KS statistic may be understated by less than this."""

    bars: Bars
    """The shares of ``reference`` and ``rows`` in each bin, the last of missing values, and ``at``
    where each bin begins."""


def compared(profile: Profile, values: pa.ChunkedArray, *, units: int) -> Compared | None:
    """Return how far a column is from its profile; None where one is empty or is not of numbers.

    Args:
        values: A number for each example, or a list of numbers.
        units: How many examples are independent of each other: those of one user are alike, so
            noise is that of users. Numbers in one list are no more examples than one.
    """
    flat = pc.list_flatten(values) if pa.types.is_list(values.type) else values
    if not profile["n"] or not len(flat) or not units or not _comparable(profile, flat):
        return None
    numbers = _numbers(flat)
    one, other, at = (_by_value if "counts" in profile else _by_decile)(profile, numbers)
    held = (one > 0) | (other > 0)
    scaled = [
        counts[held] * (rows / counts.sum())
        for counts, rows in ((one, profile["rows"]), (other, units))
    ]
    ks, slack = _ks(profile, numbers, units=units)
    return Compared(
        psi=drift.psi_distance(*scaled),  # pyright: ignore[reportArgumentType] - of whole rows
        js=drift.js_distance(*scaled),  # pyright: ignore[reportArgumentType]
        missing=_missing(profile, numbers, units=units),
        ks=ks,
        slack=slack,
        bars={"at": at, **{n: (c / c.sum()).tolist() for n, c in
                           (("reference", one), ("rows", other))}},
    )  # fmt: skip


def _comparable(profile: Profile, values: pa.ChunkedArray) -> bool:
    said = re.sub(r"^list<\w+: ", "", str(profile["type"]))
    numeric = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    counted = "counts" in profile or bool(profile["at"])
    return numeric and counted and said.startswith(("int", "uint", "float", "double"))


def _numbers(values: pa.ChunkedArray) -> Floats:
    """Return the values, NaN where one is missing or not finite."""
    held = pc.fill_null(values.cast(pa.float64()), float("nan")).to_numpy()
    return np.where(np.isfinite(held), held, np.nan)


def _by_value(profile: Profile, numbers: Floats) -> tuple[Counts, Counts, list[float]]:
    """Count each value of the training rows, then what they did not have, then missing ones."""
    known = {float(value): float(count) for value, count in profile["counts"].items()}
    kinds = sorted(known)
    place = np.searchsorted(kinds, numbers)
    new = np.append(kinds, math.inf)[np.minimum(place, len(kinds))] != numbers
    place = np.where(np.isnan(numbers), len(kinds) + 1, np.where(new, len(kinds), place))
    other = np.bincount(place, minlength=len(kinds) + 2).astype(np.float64)
    one = np.array([*(known[kind] for kind in kinds), 0.0, profile["missing"]])
    return one, other, [*kinds, math.inf]


def _by_decile(profile: Profile, numbers: Floats) -> tuple[Counts, Counts, list[float]]:
    """Count both between the deciles of the training rows, then missing ones."""
    edges = np.array(profile["edges"], np.float64)
    below = [float(profile["up_to"][k]) for k in np.searchsorted(profile["at"], edges)]
    present = profile["n"] - profile["missing"]
    one = np.append(np.diff([0.0, *below, present]), profile["missing"])
    return one, drift.counts(numbers, edges).astype(np.float64), [profile["at"][0], *edges.tolist()]


def _missing(profile: Profile, numbers: Floats, *, units: int) -> Distance:
    one = round(profile["missing"] / profile["n"] * profile["rows"])
    other = round(float(np.isnan(numbers).mean()) * units)
    return share_distance(one, profile["rows"], other, units)


def _ks(profile: Profile, numbers: Floats, *, units: int) -> tuple[Distance | None, float]:
    """Return the KS statistic at the profile's points, and what may lie between two of them."""
    held = np.sort(numbers[~np.isnan(numbers)])
    if not profile.get("at") or not len(held):
        return None, 0.0
    at, n = np.array(profile["at"], np.float64), profile["n"] - profile["missing"]
    below, up_to = (np.array(profile[name], np.float64) / n for name in ("below", "up_to"))
    lefts = np.abs(np.searchsorted(held, at, side="left") / len(held) - below)
    rights = np.abs(np.searchsorted(held, at, side="right") / len(held) - up_to)
    # A difference of two shares: one in ten is to be no more than 0.1.
    value = round(float(np.maximum(lefts, rights).max()), 12)
    size = math.sqrt(profile["rows"] * units / (profile["rows"] + units))
    noise = float(special.kolmogi(CHANCE)) / size
    slack = float(np.max(below[1:] - up_to[:-1], initial=0.0))
    return Distance(value=value, noise=noise, p=float(special.kolmogorov(value * size))), slack
