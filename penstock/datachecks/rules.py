"""Hold a table against a workload's data rules. Every failing rule is named with its row count."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Column, DataRules


def judge(rows: pa.Table, rules: DataRules, *, part: str) -> Verdict:
    """Return the verdict on one table.

    Args:
        part: Name of the table in the checks: ``train``, ``holdout``.
    """
    checks = [_row_count(rows, rules)]
    for column in rules.columns:
        checks += list(_column(rows, column))
    checks += [_unique(rows, rules), _unknown(rows, rules)]
    return Verdict(
        tuple(
            Check(
                name=f"{part}: {c.name}",
                outcome=c.outcome,
                reason=c.reason,
                value=c.value,
                limit=c.limit,
            )
            for c in checks
        )
    )


def _counted(name: str, bad: int, total: int, what: str) -> Check:
    outcome = Outcome.PASS if bad == 0 else Outcome.FAIL
    reason = f"{bad} of {total} rows {what}" if bad else f"none of {total} rows {what}"
    return Check(name=name, outcome=outcome, reason=reason, value=float(bad), limit=0.0)


def _row_count(rows: pa.Table, rules: DataRules) -> Check:
    enough = len(rows) >= rules.at_least_rows
    return Check(
        name="row count",
        outcome=Outcome.PASS if enough else Outcome.FAIL,
        reason=f"{len(rows)} rows, at least {rules.at_least_rows} wanted",
        value=float(len(rows)),
        limit=float(rules.at_least_rows),
    )


def _column(rows: pa.Table, column: Column) -> Iterator[Check]:
    name = column.name
    if name not in rows.column_names:
        held = ", ".join(rows.column_names)
        yield Check(name=name, outcome=Outcome.FAIL, reason=f"column is missing; there is {held}")
        return
    values = rows[name].combine_chunks()
    if type_name(values.type) != column.dtype:
        reason = f"type is {type_name(values.type)}, {column.dtype} was wanted"
        yield Check(name=name, outcome=Outcome.FAIL, reason=reason)
        return
    if not column.nullable:
        yield _counted(f"{name} present", _missing(values), len(rows), "have no value")
    if column.length is not None:
        wrong = pc.not_equal(pc.list_value_length(values), column.length)
        bad = pc.sum(wrong).as_py() or 0
        yield _counted(f"{name} length", bad, len(rows), f"do not hold {column.length} values")
    if column.low is not None or column.high is not None:
        what = f"lie outside {_span(column)}"
        yield _counted(f"{name} range", _outside(values, column), len(rows), what)


def type_name(kind: pa.DataType) -> str:
    """Return Arrow's name of a type, whatever a list's inner field happens to be called."""
    return str(kind).replace("list<item: ", "list<element: ")


def _missing(values: pa.Array) -> int:
    if pa.types.is_floating(values.type):
        return pc.sum(pc.is_null(values, nan_is_null=True)).as_py() or 0
    if pa.types.is_list(values.type):
        inner = pc.is_null(pc.list_flatten(values), nan_is_null=True)
        rows = pc.list_parent_indices(values).filter(inner)
        return values.null_count + pc.count_distinct(rows).as_py()
    return values.null_count


def _outside(values: pa.Array, column: Column) -> int:
    """Return how many rows hold a value outside the range; missing values are not counted."""
    is_list = pa.types.is_list(values.type)
    flat = pc.list_flatten(values) if is_list else values
    bad = pa.array([False] * len(flat))
    if column.low is not None:
        bad = pc.or_(bad, pc.fill_null(pc.less(flat, column.low), False))
    if column.high is not None:
        bad = pc.or_(bad, pc.fill_null(pc.greater(flat, column.high), False))
    if is_list:
        return pc.count_distinct(pc.list_parent_indices(values).filter(bad)).as_py()
    return pc.sum(bad).as_py() or 0


def _span(column: Column) -> str:
    low = "-∞" if column.low is None else f"{column.low:g}"
    high = "∞" if column.high is None else f"{column.high:g}"
    return f"{low} … {high}"


def _unique(rows: pa.Table, rules: DataRules) -> Check:
    keys = list(rules.unique)
    name = f"unique {', '.join(keys)}"
    if absent := [k for k in keys if k not in rows.column_names]:
        return Check(name=name, outcome=Outcome.ERROR, reason=f"no column {', '.join(absent)}")
    distinct = len(rows.select(keys).group_by(keys).aggregate([]))
    return _counted(name, len(rows) - distinct, len(rows), "repeat another row's key")


def _unknown(rows: pa.Table, rules: DataRules) -> Check:
    extra = sorted(set(rows.column_names) - {c.name for c in rules.columns})
    return Check(
        name="no unknown columns",
        outcome=Outcome.FAIL if extra else Outcome.PASS,
        reason=f"not declared: {', '.join(extra)}" if extra else "every column is declared",
    )
