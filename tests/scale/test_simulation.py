"""The simulation behind docs/measurements/scale.md measures what it says it does, in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import __main__ as scale
from benchmarks.scale import evidence, logs, pages, rounds, storage, told
from penstock.ledger import Ledger, Stage, stage_of
from penstock.predictions import files
from penstock.predictions.log import Predictions
from penstock.rollout import folding
from penstock.rollout.plan import Phase


def test_a_ledger_that_is_told_again_is_a_ledger(tmp_path: Path):
    """Its chain verifies, past releases are done and each workload has one in its canary."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    length = told.furnished(url, ["one", "two"], past=3)

    ledger = Ledger(url)
    entries = ledger.entries("two")
    states = [folding.fold(entries, name) for name in folding.releases(entries)]
    assert ledger.verify() == length
    assert [s.phase for s in states] == [Phase.DONE] * 3 + [Phase.CANARY]
    assert stage_of(entries, 4) is Stage.PRODUCTION
    ledger.close()


def test_a_round_looks_at_every_release_and_writes_nothing(tmp_path: Path):
    """The ledger is as long as before, and each release was read for."""
    house = rounds.House(
        folder=tmp_path, url=f"sqlite:///{tmp_path / 'ledger.db'}", releases=3, past=1
    )
    house.furnish()

    house.round()
    before, house.ledger.reads = house.ledger.head().sequence, 0
    house.round()

    assert house.ledger.head().sequence == before == house.entries
    assert house.ledger.reads >= 3
    house.ledger.close()


@pytest.mark.parametrize("form", ["journal", "parquet"])
def test_logs_are_those_that_a_server_writes(tmp_path: Path, form: str):
    """Every row is read back, by the reader of logs, with each user in one arm alone."""
    folders = logs.write(tmp_path / "log", 500, form=form)

    found = Predictions(tmp_path / "log").table()
    arms = found.group_by("user").aggregate([("slot", "count_distinct")])

    assert found.num_rows == 500
    assert set(arms["slot_count_distinct"].to_pylist()) == {1}
    assert all(files.journals(f) or files.parquets(f) for f in folders.values())


def test_evidence_of_a_log_is_measured_beside_its_floor(tmp_path: Path):
    figures = evidence.measured(tmp_path / "log", rows=400, form="parquet")

    assert figures["users"] <= 40
    assert figures["rows_per_s"] > 0
    assert {"arrow_cpu_s", "duckdb_cpu_s", "to_arrow", "to_duckdb"} <= set(figures)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(("workload", "each"), [("digits", 1), ("streamrec", 20)])
def test_bytes_of_a_million_predictions_are_those_of_the_files(
    tmp_path: Path, workload: str, each: int
):
    """Lines are longer than Parquet, and both are what a server's own log has left."""
    figures = storage.measured(tmp_path, workload=workload, each=each, real=False)

    held = sum(path.stat().st_size for path in files.parquets(tmp_path / "log"))
    assert figures["parquet_mb"] == pytest.approx(held / figures["rows"])
    assert figures["journal_mb"] > figures["parquet_mb"] > 0


def test_costs_are_the_formula_of_their_prices():
    part = pages.costs(100.0)

    assert part.rows[-1][2] == "0.06"
    assert "not measured" in part.rows[-1][0]


def test_figures_tables_and_the_plot_are_written(tmp_path: Path):
    """A quick controller part: what it prints is what it leaves."""
    assert scale.main(["--quick", "--only", "controller", "--out", str(tmp_path)]) == 0

    figures = json.loads((tmp_path / "scale.json").read_text())
    assert [f["releases"] for f in figures["controller"]["rounds"]] == [2, 10]
    assert (tmp_path / "scale.md").read_text().startswith("## A controller's round")
    assert "<svg" in (tmp_path / "scale.svg").read_text()[:1000]
