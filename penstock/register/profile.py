"""Profile: of each training column enough to say later, without the data, how far it has moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import Bundle
from penstock.stats import drift
from penstock.stats.drift import Distance

POINTS = 201
"""Quantiles kept of a column of numbers: fewer than n / 200 values lie between neighbours."""

KINDS = 50
"""Most values of a column that are counted one by one; the rest are counted together."""

FEW = 20
"""A column of whole numbers with at most this many different ones is counted one by one."""

OTHERS = "(others)"
"""Under which the values beyond ``KINDS`` are counted."""

TIME = "event_timestamp"

Floats = NDArray[np.float64]


def profile(inputs: Mapping[str, Bundle]) -> dict[str, Any]:
    """Return how many training rows there are, of what period, and how each column is spread.

    Keys say nothing of a distribution and are left out; of times only the period is kept.
    """
    snapshot = inputs["snapshot"]
    declared = workloads.load_data(snapshot.manifest["workload"])
    rows = pq.read_table(snapshot.file("train.parquet"))
    holdout = pq.read_metadata(snapshot.file("holdout.parquet")).num_rows
    names = [
        n
        for n in rows.column_names
        if n not in declared.data.unique and not pa.types.is_temporal(rows[n].type)
    ]
    return {
        "rows": len(rows),
        "holdout_rows": holdout,
        "label": declared.label,
        "period": _period(rows),
        "columns": {name: column(rows[name]) for name in names},
    }


def _period(rows: pa.Table) -> list[str] | None:
    if TIME not in rows.column_names or not len(rows):
        return None
    ends = pc.min_max(rows[TIME]).as_py()
    return [ends["min"].isoformat(), ends["max"].isoformat()]


def column(values: pa.ChunkedArray) -> dict[str, Any]:
    """Return a column's profile: ``type``, ``rows``, ``n``, ``missing``, and its spread.

    The spread of numbers is ``edges`` between its deciles, and points ``at`` with how many values
    are ``below`` each and how many ``up_to`` and with it; of others ``counts``. A list column is
    profiled by the values in its lists, of which there are ``n``; all other columns have as many
    values as rows. Numbers that are not finite count as missing.
    """
    rows, kind = len(values), str(values.type)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_flatten(values)
    if (counted := _counts(values)) is not None:
        spread, missing = {"counts": counted}, values.null_count
    else:
        held = pc.fill_null(values.cast(pa.float64()), float("nan")).to_numpy()
        present = np.sort(held[np.isfinite(held)])
        spread, missing = points(present), len(held) - len(present)
    return {"type": kind, "rows": rows, "n": len(values), "missing": int(missing), **spread}


def _counts(values: pa.ChunkedArray) -> dict[str, int] | None:
    """Return how often each value occurs, the most frequent first; None of many numbers."""
    if pa.types.is_floating(values.type):
        return None
    counted = pc.value_counts(pc.drop_null(values)).to_pylist()
    if pa.types.is_integer(values.type) and len(counted) > FEW:
        return None
    found = sorted(
        ((str(v["values"]), int(v["counts"])) for v in counted), key=lambda v: (-v[1], v[0])
    )
    rest = sum(count for _, count in found[KINDS:])
    return {**dict(found[:KINDS]), **({OTHERS: rest} if rest else {})}


def points(sorted_n: Floats) -> dict[str, list[Any]]:
    """Return the spread of sorted numbers: points at evenly spaced ranks and between deciles."""
    if not len(sorted_n):
        return {"edges": [], "at": [], "below": [], "up_to": []}
    ranks = np.linspace(0, len(sorted_n) - 1, POINTS).round().astype(int)
    edges = drift.edges(sorted_n)
    at = np.unique(np.concatenate([sorted_n[ranks], edges]))
    below, up_to = (np.searchsorted(sorted_n, at, side=side) for side in ("left", "right"))
    made = {"edges": edges, "at": at, "below": below, "up_to": up_to}
    return {name: found.tolist() for name, found in made.items()}


def distance(reference: Mapping[str, Any], other: Mapping[str, Any]) -> Distance | None:
    """Return the PSI between two columns' profiles, None where they cannot be compared.

    Bins are those of :mod:`penstock.stats.drift`: deciles of the reference, or values one by one,
    and missing values apart. The reference's counts are exact. Those of the other are exact for
    values one by one, at its own points and beyond its ends; between two of its points they are
    interpolated, so each share of values up to a bin's edge is off by less than 1 / 200.

    Values in one list depend on each other, so the noise of a list column is that of its rows.
    """
    if not reference["n"] or not other["n"]:
        return None
    pair = _shared_bins(reference, other)
    if pair is None:
        return None
    held = (pair[0] > 0) | (pair[1] > 0)
    scaled = [
        counts[held] * (side["rows"] / side["n"])
        for counts, side in zip(pair, (reference, other), strict=True)
    ]
    return drift.psi_distance(*scaled)  # pyright: ignore[reportArgumentType] - shares of whole rows


def _shared_bins(
    reference: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[Floats, Floats] | None:
    """Return both sides' counts in the same bins, the last of missing values."""
    if "counts" in reference and "counts" in other:
        kinds = sorted({*reference["counts"], *other["counts"]})
        counted = [[side["counts"].get(k, 0) for k in kinds] for side in (reference, other)]
    else:
        one, two = _points_of(reference), _points_of(other)
        if one is None or two is None:
            return None
        inner = np.array(one["edges"], np.float64)
        counted = [
            np.diff([0.0, *_up_to(p, inner), side["n"] - side["missing"]]).tolist()
            for p, side in ((one, reference), (two, other))
        ]
    first, second = (
        np.array([*counts, side["missing"]], np.float64)
        for counts, side in zip(counted, (reference, other), strict=True)
    )
    return first, second


def _points_of(side: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a column's points; few whole numbers have some too, text has none."""
    if "at" in side:
        return side
    if not side["type"].startswith(("int", "uint")) or OTHERS in side["counts"]:
        return None
    numbers = {float(value): count for value, count in side["counts"].items()}
    held = sorted(numbers)
    return points(np.repeat(held, [numbers[v] for v in held]))


def _up_to(points: Mapping[str, Any], edges_k: Floats) -> Floats:
    """Return how many values are no greater than each edge.

    Between two points lie at most as many as are above the one and below the other: values equal
    to a point, of which there may be many, are never spread over what is between.
    """
    at = np.array(points["at"], np.float64)
    if not len(at):
        return np.zeros(len(edges_k))
    up_to = np.array(points["up_to"], np.float64)
    left_k = np.searchsorted(at, edges_k, side="right") - 1
    right_k = np.minimum(left_k + 1, len(at) - 1)
    start_k, end_k = up_to[left_k], np.array(points["below"], np.float64)[right_k]
    width_k = at[right_k] - at[left_k]
    part_k = np.divide(edges_k - at[left_k], width_k, out=np.zeros(len(edges_k)), where=width_k > 0)
    within_k = start_k + part_k * np.maximum(0.0, end_k - start_k)
    return np.where(left_k < 0, 0.0, np.where(left_k == len(at) - 1, up_to[-1], within_k))
