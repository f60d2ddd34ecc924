"""Laws of the skew check: what training saw is what is served, told apart from noise."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import features
from penstock.bundle import read
from penstock.datachecks.served import run
from penstock.datachecks.skew import judge, same_definitions
from penstock.ledger import Ledger
from penstock.online import Found, Layout, Lookup, OnlineError, opened
from penstock.online.served import line_of, read_served
from penstock.rollout import step as rollout
from penstock.stage import Refused, verdict_of
from penstock.stats.skew import (
    SkewDetectedError,
    annual_cost,
    share_distance,
    validate_no_skew,
)
from penstock.verdict import Outcome
from tests.bundles import NOW
from tests.people import person

RNG = np.random.default_rng(7)
MANY = 20_000


def test_f2_the_first_skewed_feature_is_named_with_its_statistic():
    """Strictly greater than 0.1; at it exactly is no skew."""
    training = {"a": np.arange(10.0), "b": np.arange(10.0)}
    at_the_limit = np.arange(10.0) + 1  # one value in ten is beyond

    validate_no_skew(training, {"a": at_the_limit, "b": at_the_limit})
    with pytest.raises(SkewDetectedError) as raised:
        validate_no_skew(training, {"a": at_the_limit, "b": at_the_limit + 1})

    assert str(raised.value) == "b: KS=0.200"


def test_f4_minutes_that_became_twelve_are_caught():
    """A mean session of 45 minutes in training and 12 in serving."""
    training = {"session_length": RNG.exponential(45, MANY)}

    with pytest.raises(SkewDetectedError, match=r"session_length: KS=0\.4"):
        validate_no_skew(training, {"session_length": RNG.exponential(12, MANY)})
    validate_no_skew(training, {"session_length": RNG.exponential(45, MANY)})


def test_f5_what_it_costs():
    """A million queries a day, one in a hundred wrong at ten cents."""
    assert annual_cost(1_000_000, wrong_share=0.01, cost=0.10) == 365_000


@given(st.integers(0, 500), st.integers(1, 500), st.integers(0, 500), st.integers(1, 500))
def test_the_distance_of_shares_is_symmetric_and_nothing_for_equal_ones(
    events: int, trials: int, others: int, other_trials: int
):
    """And its p-value is a probability."""
    events, others = min(events, trials), min(others, other_trials)
    found = share_distance(events, trials, others, other_trials)

    assert found == share_distance(others, other_trials, events, trials)
    assert 0 <= found.p <= 1
    assert found.noise > 0
    assert share_distance(events, trials, events, trials).value == 0


def test_shares_that_are_equal_are_seldom_called_different():
    """One time in twenty, by its own p-value."""
    p = [
        share_distance(*[int(v) for pair in zip(RNG.binomial(400, 0.2, 2), (400, 400), strict=True)
                         for v in pair]).p
        for _ in range(2000)
    ]  # fmt: skip

    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.07


def rows(n: int, **over: Any) -> pa.Table:
    """Return feature rows: a number with missing ones, text, truth, a list."""
    score = RNG.normal(0, 1, n)
    plain = {
        "score": pa.array(score, mask=RNG.random(n) < 0.1),
        "device": pa.array(RNG.choice(["phone", "desk"], n)),
        "new": pa.array(RNG.random(n) < 0.5),
        "tags": pa.array([[1] * int(k) for k in RNG.integers(0, 4, n)], pa.list_(pa.int64())),
    }
    return pa.table({**plain, **over})


NAMES = dict.fromkeys(("score", "device", "new", "tags"), "view")


def outcomes(training: pa.Table, served: pa.Table) -> dict[str, Outcome]:
    """Return the outcome of each check that is not a pass."""
    found = {c.name: c.outcome for c in judge(training, served, features=NAMES)}
    return {n.removeprefix("skew: "): o for n, o in found.items() if o is not Outcome.PASS}


def test_the_same_features_pass():
    """Numbers, text, booleans and lists, with their missing values."""
    assert outcomes(rows(MANY), rows(MANY)) == {}


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"score": pa.array(RNG.normal(0.5, 1, MANY), mask=RNG.random(MANY) < 0.1)},
         {"score KS": Outcome.FAIL}),
        # Training filled missing values with nothing, serving fills them with zero.
        ({"score": pa.array(np.where(RNG.random(MANY) < 0.1, 0, RNG.normal(0, 1, MANY)))},
         {"score missing": Outcome.FAIL}),
        ({"device": pa.array(["phone"] * MANY)}, {"device JS": Outcome.FAIL}),
        ({"tags": pa.array([[1]] * MANY, pa.list_(pa.int64()))},
         {"tags KS of lengths": Outcome.FAIL}),
        ({"score": pa.array(["1"] * MANY)}, {"score type": Outcome.FAIL}),
        ({"new": pa.nulls(MANY)}, {"new missing": Outcome.FAIL}),
    ],
)  # fmt: skip
def test_each_way_to_serve_otherwise_is_named(over: dict[str, Any], said: dict[str, Outcome]):
    """F3: another distribution, another way with missing values, another type."""
    assert outcomes(rows(MANY), rows(MANY, **over)) == said


def test_too_few_look_ups_say_nothing():
    """Neither that there is skew nor that there is none."""
    few = outcomes(rows(MANY), rows(20))

    assert set(few.values()) == {Outcome.INCONCLUSIVE}
    assert "score KS" in few
    assert set(outcomes(rows(MANY), rows(0)).values()) == {Outcome.INCONCLUSIVE}


def test_a_feature_that_is_not_served_is_an_error():
    """The check of it could not run."""
    assert outcomes(rows(MANY), rows(MANY).drop_columns(["new"])) == {"new": Outcome.ERROR}


def test_many_features_without_skew_are_seldom_called_skewed():
    """Two hundred features of 300 rows each: chance alone does not block a release."""
    names = {f"f{i}": "view" for i in range(200)}
    blocked = 0
    for _ in range(20):
        one, other = (pa.table({n: RNG.normal(0, 1, 300) for n in names}) for _ in range(2))
        found = judge(one, other, features=names)
        blocked += any(c.outcome is Outcome.FAIL for c in found)

    assert blocked <= 4


def test_f1_other_definitions_are_seen():
    """Features served by another hash than they were trained by."""
    assert same_definitions("sha256:a", frozenset({"sha256:a"})).outcome is Outcome.PASS
    assert same_definitions("sha256:a", frozenset({"sha256:b"})).outcome is Outcome.FAIL
    assert same_definitions("sha256:a", frozenset({"sha256:a", "sha256:b"})).outcome is Outcome.FAIL
    assert same_definitions("sha256:a", frozenset()).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no\n", "line 1, is no JSON document"),
        ('{"at": 1}\n', "line 1, is no line of served features: 'at' must be a str"),
        ('{"at":"","definitions":"d","values":3}\n', "'values' must be a dict"),
        ('{"at":"","definitions":["d"],"values":{}}\n', "'definitions' must be a str"),
        ("[]\n", "line 1, is no line"),
        ('{"at":"","definitions":"","values":{"a":1}}\n{"at":"","definitions":"","values":{"a":"x"}}\n',
         "values of several types"),
    ],
)  # fmt: skip
def test_a_log_that_is_none_is_refused(tmp_path: Path, text: str, said: str):
    """With the line that is wrong."""
    path = tmp_path / "served.jsonl"
    path.write_text(text)

    with pytest.raises(OnlineError, match=said):
        read_served(path)
    with pytest.raises(OnlineError, match="cannot be read"):
        read_served(tmp_path / "none")


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path):
    """What was written before it counts."""
    path = tmp_path / "served.jsonl"
    line = json.dumps({"at": "", "definitions": "d", "values": {"a": 1}})
    path.write_text(f"{line}\n{line[:20]}")

    assert read_served(path).rows.to_pylist() == [{"a": 1}]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real snapshot of digits."""
    out = tmp_path_factory.mktemp("skew") / "snapshot"
    features.run(workload="digits", out=out, now=NOW)
    return out


def served_by(snapshot: Path, log: Path, *, change: Any = lambda v: v) -> None:
    """Look up every capture of the training rows in the snapshot's store, and log it."""
    held = read(snapshot, kind="snapshot")
    layout = Layout.from_dict(held.json("online.json"))
    captures = pq.read_table(held.file("train.parquet"), columns=["capture_id", "event_timestamp"])
    at = max(captures["event_timestamp"].to_pylist()) + timedelta(minutes=1)
    with log.open("w") as lines:

        def keep(entity: Any, found: Found, when: datetime) -> None:
            values = {n: change(v) for n, v in found.values.items()}
            said = line_of(layout, entity, Found(values=values, stale=found.stale), when)
            lines.write(json.dumps(said) + "\n")

        store = opened(str(held.file("online.db")), layout)
        lookup = Lookup(layout, store, clock=lambda: at, served=keep)
        for capture in captures["capture_id"].to_pylist():
            lookup.get({"capture_id": capture})


def test_features_as_they_are_looked_up_are_not_skewed_and_others_block_the_release(
    snapshot: Path, tmp_path: Path
):
    """From the real store through the log to the verdict; a release needs it to be a pass."""
    served_by(snapshot, tmp_path / "good.jsonl")
    served_by(snapshot, tmp_path / "bad.jsonl",
              change=lambda v: v * 3 + 1 if isinstance(v, float) else v)  # fmt: skip

    good, bad = (
        run(workload="digits", snapshot=snapshot, served=tmp_path / f"{n}.jsonl",
            out=tmp_path / n, now=NOW)
        for n in ("good", "bad")
    )  # fmt: skip

    assert good.summary.outcome == Outcome.PASS, good.summary.line
    assert "1197 look-ups" in good.summary.line
    assert bad.summary.outcome == Outcome.FAIL
    assert verdict_of(bad).outcome is Outcome.FAIL
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    traffic = rollout.Traffic(rows=tmp_path, label="label", contract=tmp_path)
    with pytest.raises(Refused, match="skew-verdict is fail"):
        rollout.run(
            workload="digits", version=1, traffic=traffic, home=tmp_path,
            ledger=ledger, fault=None, actor=person(), port=1, emit=lambda _: None, skew=bad.path,
        )  # fmt: skip
    ledger.close()


def test_times_come_in_as_arguments():
    """A line says when it was served, not when it was written."""
    layout = Layout(project="p", service="s", definitions="d", views=())
    at = datetime(2026, 1, 5, tzinfo=UTC)

    assert line_of(layout, {}, Found(values={}, stale=()), at)["at"] == at.isoformat()
