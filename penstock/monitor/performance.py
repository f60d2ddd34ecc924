"""Judge how right the champion was, by what became of its predictions: p(y given x). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.stats.areas import area
from penstock.stats.estimates import ALPHA, Bounds, Estimate
from penstock.stats.intervals import at_least, at_most
from penstock.stats.slices import ALL, masks
from penstock.verdict import Check, Outcome
from penstock.watching import Watch
from penstock.workload import Slice, Workload

Rows = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Realized:
    """How a task's metric fared on one part of the rows."""

    part: str
    metric: str
    now: Mapping[str, Any] | None
    """``value``, ``low``, ``high`` and ``n``; None where nothing could be measured."""

    registered: Mapping[str, Any] | None
    """The same on the holdout."""

    change: tuple[float, float, float] | None
    """Now less then, and its interval."""

    check: Check


def judge(
    declared: Workload, watch: Watch, rows: pa.Table, registered: Mapping[str, Any]
) -> list[Realized]:
    """Return how the metric fared on all rows, then on each slice.

    A part fails where its metric is surely worse than on the holdout by more than it may be, and
    passes where it surely is not. Slices are many, so each is asked at a smaller alpha
    (Bonferroni). Of a slice whose column the log lacks nothing is known, which is no pass.

    Args:
        rows: Predictions whose outcome is known: ``decided``, ``chance`` of what was decided, the
            label's column, and features by name.
        registered: What the package's ``scores.json`` holds.
    """
    parts = {ALL: np.ones(len(rows), bool), **_slices(declared, rows)}
    alpha = {part: ALPHA if part == ALL else ALPHA / (len(parts) - 1) for part in parts}
    then = dict(_registered(declared.metric, registered))
    found = [
        _judged(declared, watch, part, _measured(declared, rows.filter(pa.array(where))),
                then.get(part), alpha=alpha[part])
        for part, where in parts.items()
    ]  # fmt: skip
    unseen = [part for part in declared.slices if part.name not in parts]
    return [*found, *(_unseen(declared, part, then.get(part.name)) for part in unseen)]


def _unseen(declared: Workload, part: Slice, then: Mapping[str, Any] | None) -> Realized:
    check = Check(
        name=f"performance: {declared.metric} of {part.name}",
        outcome=Outcome.INCONCLUSIVE,
        reason=f"the log holds no {part.column}, so nobody knows who is in it",
    )
    return Realized(
        part=part.name, metric=declared.metric, now=None, registered=then, change=None, check=check
    )


def _slices(declared: Workload, rows: pa.Table) -> dict[str, Rows]:
    """Return the slices whose column the log has."""
    there = [part for part in declared.slices if part.column in rows.column_names]
    return masks(rows, replace(declared, slices=tuple(there)))


def _registered(
    metric: str, numbers: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    yield ALL, numbers["metrics"][metric]["challenger"]
    for part in numbers["slices"]:
        if part["metric"] == metric:
            yield part["name"], part["challenger"]


def _measured(declared: Workload, rows: pa.Table) -> Estimate | None:
    labels = np.asarray(rows[declared.label].to_numpy(), np.int64)
    decided = np.asarray(rows["decided"].to_numpy(), np.int64)
    if not len(labels):
        return None
    if declared.metric == "auc":
        chance = np.asarray(rows["chance"].to_numpy(), np.float64)
        return area(np.where(decided == 1, chance, 1 - chance), labels)
    n, right = len(labels), int((labels == decided).sum())

    def at(alpha: float) -> Bounds:
        return at_least(right, n, alpha=alpha / 2), at_most(right, n, alpha=alpha / 2)

    return Estimate(value=right / n, n=n, at=at)


def _judged(
    declared: Workload,
    watch: Watch,
    part: str,
    now: Estimate | None,
    then: Mapping[str, Any] | None,
    *,
    alpha: float,
) -> Realized:
    metric, name = declared.metric, f"performance: {declared.metric}"
    if part != ALL:
        name += f" of {part}"
    said = None if now is None else now.to_dict()
    if now is None or then is None or now.n < declared.min_support:
        few = f"{0 if now is None else now.n} outcomes, at least {declared.min_support} wanted"
        reason = "it was not measured on the holdout" if now and then is None else few
        check = Check(name=name, outcome=Outcome.INCONCLUSIVE, reason=reason)
        return Realized(
            part=part, metric=metric, now=said, registered=then, change=None, check=check
        )
    change = _change(now, then, alpha=alpha)
    return Realized(
        part=part, metric=metric, now=said, registered=then, change=change,
        check=_check(name, now, then, change,
                     watch.max_drop if part == ALL else watch.max_slice_drop),
    )  # fmt: skip


def _change(now: Estimate, then: Mapping[str, Any], *, alpha: float) -> tuple[float, float, float]:
    """Return now less then, with the interval that both intervals give together.

    Source: Newcombe (1998), Statistics in Medicine 17, 873–890, method 10; of any two estimates:
    Zou and Donner (2008), Statistics in Medicine 27, 1693–1702.
    """
    value, (low, high) = now.value - then["value"], now.at(alpha)
    least = then["value"] if then["low"] is None else then["low"]
    most = then["value"] if then["high"] is None else then["high"]
    return (
        value,
        value - float(np.hypot(now.value - low, most - then["value"])),
        value + float(np.hypot(high - now.value, then["value"] - least)),
    )


def _check(
    name: str,
    now: Estimate,
    then: Mapping[str, Any],
    change: tuple[float, float, float],
    most: float,
) -> Check:
    value, low, high = change
    outcome = Outcome.INCONCLUSIVE
    if low >= -most:
        outcome = Outcome.PASS
    elif high < -most:
        outcome = Outcome.FAIL
    reason = (
        f"{now.value:.4f} on {now.n:,} outcomes, {then['value']:.4f} on the holdout: {value:+.4f} "
        f"[{low:+.4f}, {high:+.4f}], a drop of {most:g} at most"
    )
    return Check(name=name, outcome=outcome, reason=reason, value=-value, limit=most)


def rows_of(declared: Workload, joined: pa.Table, answered: pa.Table) -> pa.Table:
    """Return the champion's predictions with a known outcome, with the features that slices need.

    Args:
        joined: Predictions with ``outcome``, null where it is not known, one row an example.
        answered: Of each request of the champion's users ``request_id``, ``label``, and a struct of
            a list for each feature.
    """
    at = _places(answered, joined)
    held = pc.and_(pc.is_valid(joined["outcome"]), pc.is_valid(at))
    known, at = joined.filter(held), at.filter(held.combine_chunks())
    made = pa.table(
        {
            "decided": known["label"],
            "chance": known["probability"].cast(pa.float64()),
            declared.label: known["outcome"],
        }
    )
    for name, values in _features(declared, answered).items():
        made = made.append_column(name, values.take(at))
    return made


def _features(declared: Workload, answered: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return of each feature that a slice looks at one value for each example."""
    kind = answered["features"].type
    if not pa.types.is_struct(kind):
        return {}
    examples = len(pc.list_flatten(answered["label"]))
    wanted = {part.column for part in declared.slices} & {field.name for field in kind}
    found = {n: pc.list_flatten(pc.struct_field(answered["features"], n)) for n in sorted(wanted)}
    return {name: values for name, values in found.items() if len(values) == examples}


def _places(answered: pa.Table, joined: pa.Table) -> pa.Array:
    """Return where each example lies among those of all requests; null where it is none of them."""
    lengths = pc.list_value_length(answered["label"]).to_numpy()
    begins = pa.array(np.cumsum(lengths) - lengths, pa.int64())
    ids = answered["request_id"].combine_chunks()
    of = pc.index_in(joined["request_id"].combine_chunks(), value_set=ids)
    return pc.add(pc.take(begins, of), joined["row"].combine_chunks())
