"""Laws of the train stage: what its bundle holds, what the record holds, and what is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from penstock import train as stage
from penstock import workload as workloads
from penstock.bundle import Bundle, read
from penstock.stage import Refused
from penstock.workload import Search, Searched, Training
from tests import bundles

SETTINGS = Training(epochs=1, batch_size=64, learning_rate=4e-3, proof_steps=2)
SEARCH = Search(
    trials=2, parameters=(Searched(name="learning_rate", low=1e-3, high=1e-2, log=True),)
)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Point the environment at a tracking database of its own, inside a pipeline run."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PENSTOCK_RUN", "20260105-1")
    return MlflowClient(uri)


def run(out: Path, settings: Training, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Train digits with other settings than the declared ones."""
    declared = replace(workloads.load("digits"), training=settings)
    monkeypatch.setattr(workloads, "load_network", lambda _: declared)
    whole = bundles.rows()
    stage.run(
        workload="digits",
        snapshot=bundles.snapshot(out / "in", train=whole.slice(0, 400)),
        data_verdict=bundles.verdict(out / "verdict", "data-verdict"),
        seed=0,
        out=out / "model",
        now=bundles.NOW,
    )
    return read(out / "model", kind="model")


def test_a_training_is_on_record_with_all_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: MlflowClient
):
    """Settings, curve, environment, data, code, proof; below the pipeline run."""
    made = run(tmp_path, SETTINGS, monkeypatch)

    held = client.get_experiment_by_name("digits")
    assert held is not None
    by_name = {r.info.run_name: r for r in client.search_runs([held.experiment_id])}
    (name,) = [n for n in by_name if n is not None and n.startswith("train ")]
    record, parent = by_name[name], by_name["20260105-1"]
    tags = record.data.tags
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert record.info.status == "FINISHED"
    assert record.data.params["epochs"] == "1"
    assert tags["penstock.data"] == read(tmp_path / "in").fingerprint
    assert tags["penstock.code"].startswith("sha256:")
    assert len(tags["penstock.lock"]) == 64
    assert "torch" in tags["penstock.libraries"]
    assert tags["penstock.certificate"] == "holds"
    curve = client.get_metric_history(record.info.run_id, "validation_accuracy")
    assert [p.value for p in curve] == [e["validation_metric"] for e in made.json("curve.json")]
    assert made.json("measured/tracking.json") == {"lost": None}
    assert {"speed.examples_per_s", "calibration_error"} <= record.data.metrics.keys()


def test_two_trainings_differ_in_what_was_measured_and_in_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The digest is of what was made: the same bits, whatever the clock said."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PENSTOCK_STORE", raising=False)
    one, other = (run(tmp_path / n, SETTINGS, monkeypatch) for n in ("one", "other"))

    assert one.json("measured/speed.json") != other.json("measured/speed.json")
    assert one.digest == other.digest


def test_a_search_decides_the_settings_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: MlflowClient
):
    """The best trial's settings are those of the model; each trial is on record below it."""
    made = run(tmp_path, replace(SETTINGS, search=SEARCH), monkeypatch)

    trials = made.json("search.json")
    best = max(trials, key=lambda t: (t["metric"], -t["number"]))
    assert len(trials) == 2
    found = best["parameters"]["learning_rate"]
    assert made.json("config.json")["learning_rate"] == found
    assert made.json("curve.json")[-1]["validation_metric"] == best["metric"]
    assert made.summary.line.startswith("best of 2 trials; ")
    held = client.get_experiment_by_name("digits")
    assert held is not None
    runs = {r.info.run_name: r for r in client.search_runs([held.experiment_id])}
    (name,) = [n for n in runs if n is not None and n.startswith("train ")]
    assert runs[name].data.params["learning_rate"] == str(found)
    above = {runs[f"trial {i}"].data.tags["mlflow.parentRunId"] for i in (0, 1)}
    assert above == {runs[name].info.run_id}


def test_calibration_is_of_the_validation_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every one of them is in a bin; the error has that of chance beside it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = run(tmp_path, SETTINGS, monkeypatch).json("calibration.json")

    assert found["rows"] == sum(b["n"] for b in found["bins"]) == 40
    assert 0 <= found["error"] <= 1
    assert found["by_chance"] > 0


def test_a_trial_that_diverges_loses_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is finished: a search that met it again and again would never end."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wild = Search(trials=2, parameters=(Searched(name="learning_rate", choices=(4e-3, 1e30)),))
    settings = replace(SETTINGS, search=wild, seed=5)
    trials = run(tmp_path, settings, monkeypatch).json("search.json")

    scored = {t["parameters"]["learning_rate"]: t["metric"] for t in trials}
    assert scored[1e30] == 0.0
    assert scored[4e-3] > 0.1


def test_a_training_that_diverges_is_on_record_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: MlflowClient
):
    """And refuses with a reason."""
    with pytest.raises(Refused, match="training diverged"):
        run(tmp_path, replace(SETTINGS, learning_rate=1e30), monkeypatch)

    held = client.get_experiment_by_name("digits")
    assert held is not None
    status = {r.info.status for r in client.search_runs([held.experiment_id])}
    assert status == {"FAILED", "FINISHED"}, "the pipeline's own run is finished"
