"""Laws of the drift checks: real moves are named, noise and too few rows are not called drift."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from penstock.datachecks.drift import drawn, judge
from penstock.datachecks.rules import judge as judge_rules
from penstock.verdict import Check, Outcome
from penstock.workload import Column, DataRules, Drift

AGE = Drift(columns=("age",))


def ages(mean: float, n: int, *, seed: int = 1, missing: float = 0.0) -> pa.Table:
    """Return a table of ages."""
    rng = np.random.default_rng(seed)
    values = np.clip(rng.normal(mean, 9, n), 0, 120)
    return pa.table({"age": pa.array(values, mask=rng.random(n) < missing)})


def outcomes(checks: list[Check]) -> set[Outcome]:
    """Return how the checks ended."""
    return {c.outcome for c in checks}


def test_a_mean_that_wandered_passes_the_schema_and_not_the_drift_check():
    """From 32 to 45 in three months, every age still between 0 and 120."""
    before, after = ages(32, 3000), ages(45, 3000, seed=2)
    schema = DataRules(
        columns=(Column(name="age", dtype="double", low=0, high=120),), unique=("age",),
        at_least_rows=1,
    )  # fmt: skip
    ranged = [c for c in judge_rules(after, schema, part="t").checks if "range" in c.name]
    assert outcomes(ranged) == {Outcome.PASS}

    found = judge(before, after, AGE, against="now from then")

    assert outcomes(found) == {Outcome.FAIL}
    assert [c.name for c in found] == [f"now from then: age {m}" for m in ("PSI", "JS", "KS")]


@pytest.mark.parametrize(("shift", "outcome"), [(0.0, Outcome.PASS), (6.0, Outcome.FAIL)])
def test_the_thresholds_of_psi_ks_and_js(shift: float, outcome: Outcome):
    """Equal samples pass all three; a shift of two thirds of a deviation fails all three."""
    found = judge(ages(40, 5000), ages(40 + shift, 5000, seed=2), AGE, against="x")

    assert outcomes(found) == {outcome}
    assert {c.name.split()[-1]: c.limit for c in found} == {"PSI": 0.2, "KS": 0.1, "JS": 0.1}


@pytest.mark.parametrize("shift", [0.0, 3.0, 30.0])
def test_too_few_rows_are_never_a_pass_nor_a_fail(shift: float):
    """With sixty rows chance alone reaches every threshold."""
    found = judge(ages(40, 60), ages(40 + shift, 60, seed=2), AGE, against="x")

    assert outcomes(found) == {Outcome.INCONCLUSIVE}
    assert "too few rows to tell" in found[0].reason


def test_looking_at_many_columns_raises_no_alarm():
    """Two hundred columns that did not move, at a size where KS noise just reaches its limit."""
    rng = np.random.default_rng(3)
    names = [f"c{i}" for i in range(200)]
    one, other = (pa.table({n: rng.normal(size=420) for n in names}) for _ in range(2))

    found = judge(one, other, Drift(columns=tuple(names), psi=9, js=9), against="x")

    above = [c for c in found if "KS" in c.name and (c.value or 0) > 0.1]
    assert above, "the case is too easy to show anything"
    assert {c.outcome for c in above} == {Outcome.INCONCLUSIVE}
    assert not [c for c in found if c.outcome is Outcome.FAIL]


def test_a_column_that_stops_coming_has_moved():
    """Missing values are counted beside the others."""
    found = judge(ages(40, 4000), ages(40, 4000, missing=0.5), AGE, against="x")

    assert {c.name.split()[-1]: c.outcome for c in found}["PSI"] is Outcome.FAIL


def test_few_kinds_are_compared_kind_by_kind():
    """Whole numbers with few values and text have no order to compare."""
    one = pa.table({"kind": ["a", "b", None] * 2000, "n": [0, 1, 1] * 2000})
    other = pa.table({"kind": ["a", "b", "b"] * 2000, "n": [0, 1, 1] * 2000})

    found = judge(one, other, Drift(columns=("kind", "n")), against="x")

    by_name = {c.name: c.outcome for c in found}
    assert by_name == {
        "x: kind PSI": Outcome.FAIL, "x: kind JS": Outcome.FAIL,
        "x: n PSI": Outcome.PASS, "x: n JS": Outcome.PASS,
    }  # fmt: skip


def test_nothing_to_compare_is_said():
    """No such column is an error; no rows are no evidence."""
    table = ages(40, 10)

    (absent,) = judge(table, table, Drift(columns=("height",)), against="x")
    (empty,) = judge(table, table.slice(0, 0), AGE, against="x")

    assert (absent.outcome, empty.outcome) == (Outcome.ERROR, Outcome.INCONCLUSIVE)


def test_a_plot_has_every_row_once():
    """Shares of both sides sum to one, outliers and missing values included."""
    one, other = ages(40, 500, missing=0.1), ages(60, 500)

    shown = drawn(one, other, ["age"])["age"]

    assert sum(shown["reference"]) == pytest.approx(1)
    assert sum(shown["rows"]) == pytest.approx(1)
    assert len(shown["at"]) + 1 == len(shown["reference"]) == len(shown["rows"])
    assert shown["reference"][-1] > 0 == shown["rows"][-1]


CUSTOMERS = DataRules(
    columns=(
        Column(name="user_id", dtype="int64"),
        Column(name="timestamp", dtype="timestamp[us, tz=UTC]"),
        Column(name="feature_a", dtype="double"),
        Column(name="age", dtype="int64", low=0, high=120),
        Column(name="purchase_amount", dtype="double", mean_low=10, mean_high=1000),
        Column(name="device", dtype="string", nullable=True, max_missing=0.25,
               among=("phone", "desk")),
    ),
    unique=("user_id",),
    at_least_rows=4,
)  # fmt: skip


def customers(**over: object) -> pa.Table:
    """Return four customers."""
    plain: dict[str, object] = {
        "user_id": pa.array([1, 2, 3, 4], pa.int64()),
        "timestamp": pa.array([datetime(2026, 1, d, tzinfo=UTC) for d in (1, 2, 3, 4)],
                              pa.timestamp("us", "UTC")),
        "feature_a": [0.1, 0.2, 0.3, 0.4],
        "age": pa.array([0, 30, 45, 120], pa.int64()),
        "purchase_amount": [10.0, 20.0, 30.0, 40.0],
        "device": ["phone", "desk", "phone", None],
    }  # fmt: skip
    return pa.table({name: v for name, v in {**plain, **over}.items() if v is not None})


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({}, None),
        ({"user_id": None}, "user_id: column is missing"),
        ({"timestamp": ["2026-01-01"] * 4}, "timestamp: type is string"),
        ({"feature_a": [0.1, None, 0.3, 0.4]}, "feature_a present: 1 of 4 rows have no value"),
        ({"age": pa.array([0, 30, 45, 121], pa.int64())}, "age range: 1 of 4 rows lie outside"),
        ({"age": pa.array([-1, 30, 45, 99], pa.int64())}, "age range: 1 of 4 rows lie outside"),
        ({"purchase_amount": [9.0] * 4}, "purchase_amount mean: mean 9, wanted 10 … 1000"),
        ({"purchase_amount": [1001.0] * 4}, "purchase_amount mean: mean 1001, wanted"),
        ({"device": ["phone", None, None, "desk"]}, "device present: 50.0% have no value"),
        ({"device": ["phone", "watch", None, "desk"]}, "device among: 1 of 4 rows are none of"),
    ],
)
def test_the_schema_rules(over: dict[str, object], said: str | None):
    """Required columns and types, no missing value, ranges, a mean within bounds, known kinds."""
    verdict = judge_rules(customers(**over), CUSTOMERS, part="t")

    bad = [f"{c.name}: {c.reason}" for c in verdict.checks if c.outcome is not Outcome.PASS]
    assert (bad == []) if said is None else any(b.startswith(f"t: {said}") for b in bad)
