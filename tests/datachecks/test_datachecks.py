"""Laws of the data checks: every broken rule is named with its row count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import datachecks
from penstock.bundle import BundleError, read
from penstock.datachecks.rules import judge
from penstock.datachecks.step import judge_parts
from penstock.stage import Refused
from penstock.verdict import Outcome
from penstock.workload import Column, DataRules, load
from tests import bundles

ROWS = bundles.rows()
RULES = load("digits").data


def with_value(name: str, value: object, count: int = 3) -> pa.Table:
    """Return the real rows with the first few values of a column replaced."""
    values = ROWS[name].to_pylist()
    values[:count] = [value] * count
    index = ROWS.schema.get_field_index(name)
    return ROWS.set_column(index, name, pa.array(values, ROWS[name].type))


def test_real_rows_pass():
    """The real data breaks no rule, in either part."""
    parts = {"train": ROWS.slice(0, 1197), "holdout": ROWS.slice(1197)}

    assert judge_parts(parts, load("digits")).outcome is Outcome.PASS


BROKEN: list[tuple[str, Callable[[], pa.Table], str]] = [
    ("missing column", lambda: ROWS.drop_columns(["ink_mean"]), "ink_mean: column is missing"),
    (
        "wrong type",
        lambda: bundles.replaced(ROWS, "label", [str(v) for v in ROWS["label"].to_pylist()]),
        "label: type is string, int64 was wanted",
    ),
    ("missing values", lambda: with_value("ink_mean", None), "ink_mean present: 3 of 1797"),
    ("not a number", lambda: with_value("ink_mean", float("nan")), "ink_mean present: 3 of 1797"),
    ("out of range", lambda: with_value("label", 12), "label range: 3 of 1797"),
    ("pixel range", lambda: with_value("pixels", [99.0] * 64), "pixels range: 3 of 1797"),
    ("pixel missing", lambda: with_value("pixels", [None] * 64), "pixels present: 3 of 1797"),
    ("short list", lambda: with_value("pixels", [1.0] * 9), "pixels length: 3 of 1797"),
    ("duplicate key", lambda: with_value("capture_id", 5), "unique capture_id: 3 of 1797"),
    ("unknown column", lambda: ROWS.append_column("x", ROWS["label"]), "not declared: x"),
    ("too few rows", lambda: ROWS.slice(0, 20), "20 rows, at least 500"),
]


@pytest.mark.parametrize(("made", "said"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_each_broken_rule_is_named_with_its_rows(made: Callable[[], pa.Table], said: str):
    """One broken rule fails, and its check says how many rows break it."""
    verdict = judge(made(), RULES, part="train")
    failed = [f"{c.name}: {c.reason}" for c in verdict.checks if c.outcome is Outcome.FAIL]

    assert verdict.outcome is Outcome.FAIL
    assert any(said in text for text in failed), failed


@given(
    st.lists(st.none() | st.floats(-20, 20, allow_nan=False), min_size=1, max_size=40),
    st.floats(-10, 0),
    st.floats(0, 10),
)
def test_counts_are_those_of_a_plain_loop(values: list[float | None], low: float, high: float):
    """Missing and out-of-range rows are counted as a loop over the values counts them."""
    table = pa.table({"x": pa.array(values, pa.float64())})
    rules = DataRules(
        columns=(Column(name="x", dtype="double", low=low, high=high),), unique=(), at_least_rows=1
    )
    found = {c.name: c.value for c in judge(table, rules, part="t").checks}

    assert found["t: x present"] == sum(v is None for v in values)
    assert found["t: x range"] == sum(v is not None and not low <= v <= high for v in values)


def test_a_row_in_both_parts_is_refused():
    """A holdout that shares a capture with the training rows is leakage."""
    parts = {"train": ROWS.slice(0, 1197), "holdout": ROWS.slice(1196)}

    verdict = judge_parts(parts, load("digits"))

    assert verdict.outcome is Outcome.FAIL
    assert "1 keys in both" in verdict.reason


def test_the_step_refuses_and_names_every_rule(tmp_path: Path):
    """A refused snapshot raises with all failing rules, and its verdict stays to be read."""
    bad = with_value("label", 12).drop_columns(["ink_spread"])
    source = bundles.snapshot(tmp_path / "in", train=bad.slice(0, 1197))

    with pytest.raises(Refused, match=r"label range: 3 of 1197.*ink_spread: column is missing"):
        datachecks.run(workload="digits", snapshot=source, out=tmp_path / "out", now=bundles.NOW)

    assert read(tmp_path / "out").json("verdict.json")["outcome"] == "fail"


def test_rows_that_break_a_rule_are_written_out_with_their_keys(tmp_path: Path):
    """Part, rule, row number and key; rules that hold and rules about columns list no rows."""
    bad = with_value("label", 12).drop_columns(["ink_spread"])
    source = bundles.snapshot(tmp_path / "in", train=bad.slice(0, 1197), holdout=bad.slice(1, 700))

    with pytest.raises(Refused):
        datachecks.run(workload="digits", snapshot=source, out=tmp_path / "out", now=bundles.NOW)

    listed = pq.read_table(read(tmp_path / "out").file("failing.parquet")).to_pylist()
    keys = [f'{{"capture_id": {i}}}' for i in bad["capture_id"].to_pylist()[:3]]
    assert [tuple(row.values()) for row in listed] == [
        *(("train", "label range", i, keys[i]) for i in range(3)),
        *(("holdout", "label range", i, keys[i + 1]) for i in range(2)),
    ]


def test_a_half_written_snapshot_is_refused(tmp_path: Path):
    """A folder without a manifest is not read."""
    (tmp_path / "in").mkdir()

    with pytest.raises(BundleError, match="not a bundle"):
        datachecks.run(
            workload="digits", snapshot=tmp_path / "in", out=tmp_path / "out", now=bundles.NOW
        )
