"""Judge whether columns have moved from a reference. Too few rows to tell is inconclusive. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.stats import drift
from penstock.stats.drift import Distance
from penstock.verdict import Check, Outcome
from penstock.workload import Drift

MEASURES = ("PSI", "KS", "JS")
DRAWN = 24
"""Bars of a plot."""

KINDS = 20
"""Whole numbers with at most this many different values are compared value by value."""

Floats = NDArray[np.float64]
Bars = dict[str, list[float]]


@dataclass(frozen=True)
class _Measured:
    column: str
    measure: str
    limit: float
    distance: Distance


def judge(reference: pa.Table, rows: pa.Table, rule: Drift, *, against: str) -> list[Check]:
    """Return a check for each column and measure.

    A measure fails when it exceeds its limit and stands among all columns together (Benjamini and
    Hochberg at ``rule.rate``). It is inconclusive when noise between samples of these sizes reaches
    the limit, or when it exceeds the limit and does not stand.

    Args:
        against: What the reference is, in the checks' names: ``holdout from train``.
    """
    checks: list[Check] = []
    measured: list[_Measured] = []
    for column in rule.columns:
        sides = [t for t in (reference, rows) if column in t.column_names]
        sizes = (len(reference), len(rows))
        if len(sides) < 2 or not all(sizes):
            outcome = Outcome.ERROR if len(sides) < 2 else Outcome.INCONCLUSIVE
            reason = "no such column on both sides" if len(sides) < 2 else f"{sizes} rows"
            checks.append(Check(name=f"{against}: {column}", outcome=outcome, reason=reason))
            continue
        measured += _measure(column, reference[column], rows[column], rule)
    standing = {
        name: dict(zip((m.column for m in of), drift.significant([m.distance.p for m in of],
                                                                 rate=rule.rate), strict=True))
        for name in MEASURES
        if (of := [m for m in measured if m.measure == name])
    }  # fmt: skip
    return checks + [
        weighed(
            f"{against}: {m.column} {m.measure}",
            m.distance,
            m.limit,
            stands=standing[m.measure][m.column],
            many="columns",
        )
        for m in measured
    ]


def _measure(
    column: str, reference: pa.ChunkedArray, rows: pa.ChunkedArray, rule: Drift
) -> list[_Measured]:
    kinds = _kinds(reference, rows)
    if kinds is not None:
        pair = [_by_kind(values, kinds) for values in (reference, rows)]
    else:
        one, other = _floats(reference), _floats(rows)
        inner = drift.edges(one[~np.isnan(one)]) if (~np.isnan(one)).any() else np.array([])
        pair = [drift.counts(values, inner) for values in (one, other)]
    held = [k for k in range(len(pair[0])) if pair[0][k] or pair[1][k]]
    pair = [counts[held] for counts in pair]
    found = [
        _Measured(column, "PSI", rule.psi, drift.psi_distance(*pair)),
        _Measured(column, "JS", rule.js, drift.js_distance(*pair)),
    ]
    if kinds is None:
        one, other = (v[~np.isnan(v)] for v in (_floats(reference), _floats(rows)))
        if len(one) and len(other):
            found.append(_Measured(column, "KS", rule.ks, drift.ks_distance(one, other)))
    return found


def _kinds(reference: pa.ChunkedArray, rows: pa.ChunkedArray) -> pa.Array | None:
    """Return the values to compare one by one, or None for a column of many numbers."""
    if pa.types.is_floating(reference.type):
        return None
    distinct = pc.drop_null(pc.unique(pa.chunked_array([*reference.chunks, *rows.chunks])))
    if pa.types.is_integer(reference.type) and len(distinct) > KINDS:
        return None
    return distinct


def _by_kind(values: pa.ChunkedArray, kinds: pa.Array) -> NDArray[np.int64]:
    """Return how often each value occurs; the last count is of missing ones."""
    at = pc.fill_null(pc.index_in(values, value_set=kinds), len(kinds))
    return np.bincount(at.to_numpy(), minlength=len(kinds) + 1).astype(np.int64)


def _floats(values: pa.ChunkedArray) -> Floats:
    return pc.fill_null(values.cast(pa.float64()), float("nan")).to_numpy()


def weighed(name: str, distance: Distance, limit: float, *, stands: bool, many: str) -> Check:
    """Return a check of one distance.

    Args:
        stands: Whether it is significant among all that were looked at together.
        many: What was looked at: ``columns``.
    """
    reason = f"{distance.value:.3f}, at most {limit:g}; chance alone reaches {distance.noise:.3f}"
    if distance.noise >= limit:
        outcome, reason = Outcome.INCONCLUSIVE, f"{reason}: too few rows to tell"
    elif distance.value <= limit:
        outcome = Outcome.PASS
    elif stands:
        outcome = Outcome.FAIL
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{reason}, and many {many} were looked at"
    return Check(name=name, outcome=outcome, reason=reason, value=distance.value, limit=limit)


def drawn(
    reference: pa.Table, rows: pa.Table, columns: list[str]
) -> dict[str, dict[str, list[float]]]:
    """Return both sides' shares for a plot of each column; ``at`` is where each bar begins.

    The last bar is of missing values. Numbers beyond the middle 98 % go into the outermost bars.
    """
    found: dict[str, Bars] = {}
    for column in columns:
        kinds = _kinds(reference[column], rows[column])
        if kinds is not None and pa.types.is_integer(kinds.type):
            at = sorted(kinds.to_pylist())
            pair = [_by_kind(t[column], pa.array(at, kinds.type)) for t in (reference, rows)]
        elif kinds is None:
            sides = [_floats(t[column]) for t in (reference, rows)]
            held = np.concatenate([v[np.isfinite(v)] for v in sides])
            if not len(held):
                continue
            low, high = (float(np.quantile(held, q)) for q in (0.01, 0.99))
            at = np.linspace(low, high, DRAWN + 1)[:-1].tolist()
            pair = [drift.counts(v, np.array(at[1:])) for v in sides]
        else:
            continue
        named = zip(("reference", "rows"), pair, strict=True)
        shares = {name: (counts / max(1, counts.sum())).tolist() for name, counts in named}
        found[column] = {"at": at, **shares}
    return found
