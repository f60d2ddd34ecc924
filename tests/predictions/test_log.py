"""Laws of reading a log where it lies."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from penstock.predictions.keep import keep
from penstock.predictions.log import Predictions
from penstock.predictions.summary import summary
from tests.predictions.logs import T0, contract, journal, record


def test_versions_with_other_features_are_one_table(tmp_path: Path):
    """What one of them does not have is null there; a hash and a number unite as text."""
    journal(tmp_path / "a", [record(0, features={"x": [0.5]})])
    of = contract("n", "x")
    journal(tmp_path / "b", [record(1, version="2", features={"n": [3], "x": [1.5]})], of=of)
    keep(tmp_path / "b", now=T0)
    hashed = contract("n", hashed=("n",))
    journal(tmp_path / "a", [record(2, version="3", features={"n": ["abc"]})], of=hashed)

    found = Predictions(tmp_path).sql(
        "SELECT version, features.n AS n, features.x AS x FROM predictions ORDER BY version"
    )

    assert found.to_pylist() == [
        {"version": "1", "n": None, "x": [0.5]},
        {"version": "2", "n": ["3"], "x": [1.5]},
        {"version": "3", "n": ["abc"], "x": None},
    ]


def test_a_journal_beside_its_parquet_is_one(tmp_path: Path):
    """The keeper leaves both for a while; a reader takes one."""
    journal(tmp_path, [record(n) for n in range(5)])
    for linger_s in (60, 60, -60):
        keep(tmp_path, now=time.time(), linger_s=linger_s)

        assert len(list(tmp_path.glob("*.jsonl"))) == (linger_s > 0)
        assert len(Predictions(tmp_path).table()) == 5


def test_reading_while_journals_are_finished_and_removed(tmp_path: Path):
    """Whatever the keeper is at, each record is there once."""
    for turn in range(40):
        journal(tmp_path, [record(turn)])
        finishing = threading.Thread(target=keep, args=(tmp_path,), kwargs={"now": T0})
        finishing.start()
        found = [len(Predictions(tmp_path).table(columns=["line"])) for _ in range(2)]
        finishing.join()

        assert found == [turn + 1] * 2


def test_time_and_version_choose_rows(tmp_path: Path):
    """From the first moment, before the second."""
    journal(tmp_path, [record(n, version=str(n % 2)) for n in range(10)])
    at = [datetime.fromtimestamp(T0 + n, UTC) for n in range(10)]

    found = Predictions(tmp_path).table(since=at[2], until=at[8], version="1", columns=["at"])

    assert found["at"].to_pylist() == [at[3], at[5], at[7]]


def test_an_empty_log_is_an_empty_table(tmp_path: Path):
    """Nothing was asked yet: no rows, and no error."""
    assert len(Predictions(tmp_path).table(columns=["request_id", "status"])) == 0
    assert summary(Predictions(tmp_path)).groups == ()


def test_a_journal_without_its_contract_is_named(tmp_path: Path):
    """Its features cannot be told; it is left where it is and said, and the others are read."""
    journal(tmp_path, [record(0)])
    lost = journal(tmp_path, [record(1)], of=contract("n"))
    (tmp_path / f"contract-{lost.stem.rsplit('-', 1)[1]}.json").unlink()

    kept = keep(tmp_path, now=T0)

    assert str(lost) in kept.problem
    assert Predictions(tmp_path).table()["request_id"].to_pylist() == ["r0"]
    assert [str(lost) in p for p in Predictions(tmp_path).losses().problems] == [True]


def test_a_broken_file_is_left_out_and_named(tmp_path: Path):
    """Whether it is the first of its kind or another one: the others are read."""
    paths = [journal(tmp_path, [record(n)], at=T0 + n) for n in range(4)]
    keep(tmp_path, now=T0, linger_s=-1)
    finished = [path.with_suffix(".parquet") for path in paths]
    for path, length in zip(finished[0::2], (0, -9), strict=True):
        path.write_bytes(path.read_bytes()[:length])
        path.with_suffix(".jsonl").unlink(missing_ok=True)

    assert Predictions(tmp_path).table()["request_id"].to_pylist() == ["r1", "r3"]
    one, other = Predictions(tmp_path).losses().problems
    assert (str(finished[0]) in one, str(finished[2]) in other) == (True, True)


def test_finished_files_are_plain_parquet(tmp_path: Path):
    """Any DuckDB reads them without us."""
    journal(tmp_path, [record(n) for n in range(3)])
    keep(tmp_path, now=T0)

    query = f"SELECT sum(len(features.x)) FROM '{tmp_path}/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(3,)]


def test_the_summary_counts_by_version_slot_and_arm(tmp_path: Path):
    """Refusals and errors have no latency; copies are an arm of their own."""
    rows = [record(n, latency_ms=float(n)) for n in range(5)]
    rows += [record(5, status=500, latency_ms=900.0), record(6, status=429, latency_ms=900.0)]
    rows += [record(7, mirrored=True, version="2", slot="b", fallbacks=["rules"], stale=["x"])]
    journal(tmp_path, rows)
    (tmp_path / "counters.json").write_text(
        json.dumps({"written": 8, "dropped": 2, "failed": 1, "problem": "full"})
    )

    found = summary(Predictions(tmp_path))

    one, two = found.groups
    assert (one.version, one.slot, one.arm) == ("1", "a", "champion")
    assert (one.requests, one.refused, one.errors) == (7, 1, 1)
    assert (one.p50_ms, one.p99_ms) == (2.0, pytest.approx(3.96))
    assert (two.arm, two.stood_in, two.stale) == ("shadow", 1, 1)
    assert (found.losses.dropped, found.losses.failed) == (2, 1)
    assert found.losses.problems == ("full",)
