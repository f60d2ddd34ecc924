"""Hold a table against a workload's data rules. Every failing rule is named with its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Column, DataRules

Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Examined:
    """One rule's check, and which rows break it; None where a rule is about the whole table."""

    check: Check
    broken: Rows | None = None


def judge(rows: pa.Table, rules: DataRules, *, part: str) -> Verdict:
    """Return the verdict on one table.

    Args:
        part: Name of the table in the checks: ``train``, ``holdout``.
    """
    return Verdict(tuple(e.check for e in examine(rows, rules, part=part)))


def examine(rows: pa.Table, rules: DataRules, *, part: str) -> list[Examined]:
    """Return each rule's check, named after the part, with the rows that break it."""
    found = [_row_count(rows, rules)]
    for column in rules.columns:
        found += list(_column(rows, column))
    found += [_unique(rows, rules), _unknown(rows, rules)]
    return [replace(e, check=replace(e.check, name=f"{part}: {e.check.name}")) for e in found]


def _counted(name: str, broken: Rows, what: str) -> Examined:
    bad, total = int(broken.sum()), len(broken)
    outcome = Outcome.PASS if bad == 0 else Outcome.FAIL
    reason = f"{bad} of {total} rows {what}" if bad else f"none of {total} rows {what}"
    return Examined(
        Check(name=name, outcome=outcome, reason=reason, value=float(bad), limit=0.0), broken
    )


def _row_count(rows: pa.Table, rules: DataRules) -> Examined:
    enough = len(rows) >= rules.at_least_rows
    return Examined(
        Check(
            name="row count",
            outcome=Outcome.PASS if enough else Outcome.FAIL,
            reason=f"{len(rows)} rows, at least {rules.at_least_rows} wanted",
            value=float(len(rows)),
            limit=float(rules.at_least_rows),
        )
    )


def _column(rows: pa.Table, column: Column) -> Iterator[Examined]:
    name = column.name
    if name not in rows.column_names:
        held = ", ".join(rows.column_names)
        reason = f"column is missing; there is {held}"
        yield Examined(Check(name=name, outcome=Outcome.FAIL, reason=reason))
        return
    values = _whole(rows[name])
    if type_name(values.type) != column.dtype:
        reason = f"type is {type_name(values.type)}, {column.dtype} was wanted"
        yield Examined(Check(name=name, outcome=Outcome.FAIL, reason=reason))
        return
    yield _present(values, column)
    if column.length is not None:
        lengths = pc.fill_null(pc.list_value_length(values), column.length)
        wrong = _mask(pc.not_equal(lengths, column.length))
        yield _counted(f"{name} length", wrong, f"do not hold {column.length} values")
    if column.low is not None or column.high is not None:
        yield _counted(f"{name} range", _outside(values, column), f"lie outside {_span(column)}")
    if column.among is not None:
        allowed = pa.array(column.among, values.type)
        strange = pc.and_(pc.invert(pc.is_in(values, value_set=allowed)), values.is_valid())
        yield _counted(f"{name} among", _mask(strange), f"are none of {_listed(column.among)}")
    if column.mean_low is not None or column.mean_high is not None:
        yield _mean(values, column)


def _present(values: pa.Array, column: Column) -> Examined:
    missing, name = _missing(values), f"{column.name} present"
    if not column.nullable:
        return _counted(name, missing, "have no value")
    share = float(missing.mean()) if len(missing) else 0.0
    return Examined(
        Check(
            name=name,
            outcome=Outcome.PASS if share <= column.max_missing else Outcome.FAIL,
            reason=f"{share:.1%} have no value, at most {column.max_missing:.1%}",
            value=share,
            limit=column.max_missing,
        ),
        missing if share > column.max_missing else None,
    )


def _mean(values: pa.Array, column: Column) -> Examined:
    name, present = f"{column.name} mean", pc.drop_null(values)
    mean = pc.mean(present).as_py() if len(present) else None
    if mean is None or not np.isfinite(mean):
        reason = "there is no value to take the mean of"
        return Examined(Check(name=name, outcome=Outcome.ERROR, reason=reason))
    low = -np.inf if column.mean_low is None else column.mean_low
    high = np.inf if column.mean_high is None else column.mean_high
    return Examined(
        Check(
            name=name,
            outcome=Outcome.PASS if low <= mean <= high else Outcome.FAIL,
            reason=f"mean {mean:.6g}, wanted {_span_of(column.mean_low, column.mean_high)}",
            value=float(mean),
        )
    )


def type_name(kind: pa.DataType) -> str:
    """Return Arrow's name of a type, whatever a list's inner field happens to be called."""
    return str(kind).replace("list<item: ", "list<element: ")


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _mask(values: pa.Array) -> Rows:
    return pc.fill_null(values, False).to_numpy(zero_copy_only=False).astype(bool)


def _missing(values: pa.Array) -> Rows:
    if pa.types.is_list(values.type):
        return _mask(values.is_null()) | _any_inside(
            values, pc.is_null(pc.list_flatten(values), nan_is_null=True)
        )
    return _mask(pc.is_null(values, nan_is_null=pa.types.is_floating(values.type)))


def _any_inside(values: pa.Array, bad: pa.Array) -> Rows:
    """Return which lists hold a value that is bad; ``bad`` is of the lists' values, flattened."""
    found = np.zeros(len(values), bool)
    found[pc.list_parent_indices(values).filter(bad).to_numpy(zero_copy_only=False)] = True
    return found


def _outside(values: pa.Array, column: Column) -> Rows:
    """Return which rows hold a value outside the range; missing values are not among them."""
    is_list = pa.types.is_list(values.type)
    flat = pc.list_flatten(values) if is_list else values
    bad = pa.array(np.zeros(len(flat), bool))
    if column.low is not None:
        bad = pc.or_(bad, pc.fill_null(pc.less(flat, column.low), False))
    if column.high is not None:
        bad = pc.or_(bad, pc.fill_null(pc.greater(flat, column.high), False))
    return _any_inside(values, bad) if is_list else _mask(bad)


def _span(column: Column) -> str:
    return _span_of(column.low, column.high)


def _span_of(low: float | None, high: float | None) -> str:
    least = "-∞" if low is None else f"{low:g}"
    most = "∞" if high is None else f"{high:g}"
    return f"{least} … {most}"


def _listed(values: tuple[int | str, ...]) -> str:
    shown = ", ".join(str(v) for v in values[:8])
    return f"{shown}, …" if len(values) > 8 else shown


def _unique(rows: pa.Table, rules: DataRules) -> Examined:
    keys = list(rules.unique)
    name = f"unique {', '.join(keys)}"
    if absent := [k for k in keys if k not in rows.column_names]:
        reason = f"no column {', '.join(absent)}"
        return Examined(Check(name=name, outcome=Outcome.ERROR, reason=reason))
    numbered = rows.select(keys).append_column("row", pa.array(np.arange(len(rows))))
    first = numbered.group_by(keys).aggregate([("row", "min")])["row_min"]
    broken = np.ones(len(rows), bool)
    broken[first.to_numpy()] = False
    return _counted(name, broken, "repeat another row's key")


def _unknown(rows: pa.Table, rules: DataRules) -> Examined:
    extra = sorted(set(rows.column_names) - {c.name for c in rules.columns})
    return Examined(
        Check(
            name="no unknown columns",
            outcome=Outcome.FAIL if extra else Outcome.PASS,
            reason=f"not declared: {', '.join(extra)}" if extra else "every column is declared",
        )
    )
