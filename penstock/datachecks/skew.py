"""Hold served features against the training rows: definitions, types, missing values, values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.datachecks.drift import weighed
from penstock.stats.drift import Distance, js_distance, ks_distance, significant
from penstock.stats.skew import KS_LIMIT, share_distance
from penstock.verdict import Check, Outcome

MISSING_LIMIT = 0.05
"""By how much the share of missing values may differ."""

JS_LIMIT = 0.1
"""For text and booleans, which KS does not order."""

RATE = 0.05
"""Of the features called skewed, the share that may be so by chance."""


@dataclass(frozen=True)
class _Measured:
    feature: str
    measure: str
    limit: float
    distance: Distance


def judge(training: pa.Table, served: pa.Table, *, features: Mapping[str, str]) -> list[Check]:
    """Return the checks of every feature.

    A feature fails where it is served with another type, or where a measure exceeds its limit and
    stands among all features together (Benjamini and Hochberg). Where noise between samples of
    these sizes reaches a limit, the check is inconclusive: too few were served to tell.

    Args:
        features: Name of every feature of the service, and its view's.
    """
    checks: list[Check] = []
    measured: list[_Measured] = []
    for feature in features:
        name = f"skew: {feature}"
        if not len(served):
            reason = "nothing was served; let the version answer copies of requests first"
            checks.append(Check(name=name, outcome=Outcome.INCONCLUSIVE, reason=reason))
        elif feature not in served.column_names or feature not in training.column_names:
            where = "served" if feature in training.column_names else "in the training rows"
            checks.append(Check(name=name, outcome=Outcome.ERROR, reason=f"not {where}"))
        elif (kinds := _kinds(training[feature], served[feature])) is not None:
            checks.append(Check(name=f"{name} type", outcome=Outcome.FAIL, reason=kinds))
        else:
            measured += _measure(feature, training[feature], served[feature])
    standing = significant([m.distance.p for m in measured], rate=RATE)
    return checks + [
        weighed(f"skew: {m.feature} {m.measure}", m.distance, m.limit, stands=s, many="features")
        for m, s in zip(measured, standing, strict=True)
    ]


def same_definitions(training: str, served: frozenset[str]) -> Check:
    """Return whether features were served by the definitions they were trained with."""
    same = served == frozenset({training})
    said = ", ".join(sorted(h[7:19] for h in served)) or "none"
    return Check(
        name="skew: definitions",
        outcome=Outcome.PASS if same else Outcome.FAIL if served else Outcome.INCONCLUSIVE,
        reason=f"trained with {training[7:19]}, served by {said}",
    )


def _kinds(training: pa.ChunkedArray, served: pa.ChunkedArray) -> str | None:
    """Return what is wrong with the types, None if a comparison makes sense."""
    kinds = {_kind(training.type), _kind(served.type)} - {"null"}
    if len(kinds) > 1:
        return f"trained as {training.type}, served as {served.type}"
    return None


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return "null" if pa.types.is_null(kind) else "list" if pa.types.is_list(kind) else str(kind)


def _measure(feature: str, training: pa.ChunkedArray, served: pa.ChunkedArray) -> list[_Measured]:
    missing = share_distance(training.null_count, len(training), served.null_count, len(served))
    found = [_Measured(feature, "missing", MISSING_LIMIT, missing)]
    one, other = pc.drop_null(training), pc.drop_null(served)
    if not len(one) or not len(other):
        return found
    kind = _kind(one.type)
    if kind == "number":
        distance = ks_distance(_floats(one), _floats(other))
        return [*found, _Measured(feature, "KS", KS_LIMIT, distance)]
    if kind == "list":
        lengths = [_floats(pc.list_value_length(v)) for v in (one, other)]
        return [*found, _Measured(feature, "KS of lengths", KS_LIMIT, ks_distance(*lengths))]
    return [*found, _Measured(feature, "JS", JS_LIMIT, js_distance(*_counted(one, other)))]


def _counted(one: pa.ChunkedArray, other: pa.ChunkedArray) -> list[NDArray[np.int64]]:
    texts = [v.cast(pa.string()) for v in (one, other)]
    kinds = pc.unique(pa.chunked_array([c for t in texts for c in t.chunks]))
    return [
        np.bincount(pc.index_in(t, value_set=kinds).to_numpy(), minlength=len(kinds)).astype(
            np.int64
        )
        for t in texts
    ]


def _floats(values: pa.ChunkedArray) -> NDArray[np.float64]:
    return values.cast(pa.float64()).to_numpy()
