"""Laws of tracking, on a real MLflow store: nested, complete, and never in the way."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from penstock import tracking
from penstock.tracking import mlflow


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Point the environment at a database of its own."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("PENSTOCK_RUN", raising=False)
    return MlflowClient(uri)


def begin(**more: object) -> tracking.Tracked:
    """Begin a run."""
    given = {
        "name": "train a",
        "params": {"seed": 7},
        "tags": {"penstock.data": "d-1"},
        "identity": "sha256:1",
        **more,
    }
    return tracking.begin("digits", **given)  # pyright: ignore[reportArgumentType]


def runs(client: MlflowClient) -> list:
    """Return all runs of the workload, oldest first."""
    held = client.get_experiment_by_name("digits")
    assert held is not None
    return list(client.search_runs([held.experiment_id], order_by=["start_time ASC"]))


def test_a_run_has_its_parameters_curves_and_tags(client: MlflowClient):
    """While it runs, and closed at its end."""
    run = begin()
    for step in (1, 2, 3):
        run.metrics({"loss": 1 / step}, step=step)
    (going,) = runs(client)
    assert going.info.status == "RUNNING"

    run.note({"penstock.certificate": "holds"})
    run.end(ok=True)

    (held,) = runs(client)
    assert held.info.status == "FINISHED"
    assert held.data.params == {"seed": "7"}
    assert held.data.tags["penstock.data"] == "d-1"
    assert held.data.tags["penstock.certificate"] == "holds"
    curve = client.get_metric_history(held.info.run_id, "loss")
    assert [(p.step, p.value) for p in curve] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert run.reason is None


def test_a_training_that_failed_is_on_record_as_failed(client: MlflowClient):
    """Not left running for ever."""
    begin().end(ok=False)

    assert [r.info.status for r in runs(client)] == ["FAILED"]


def test_runs_of_one_pipeline_run_lie_below_it(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    """One parent, however many steps; trials lie below the training."""
    monkeypatch.setenv("PENSTOCK_RUN", "20260105-1")
    first = begin(name="train a")
    trial = first.child("trial 0", {"learning_rate": 0.1})
    trial.end(ok=True)
    first.end(ok=True)
    begin(name="train b").end(ok=True)

    by_name = {r.info.run_name: r for r in runs(client)}
    parent = by_name["20260105-1"]
    above = {name: r.data.tags.get("mlflow.parentRunId") for name, r in by_name.items()}
    assert len(by_name) == 4
    assert above["train a"] == above["train b"] == parent.info.run_id
    assert above["trial 0"] == by_name["train a"].info.run_id
    assert above["20260105-1"] is None


def test_outside_a_pipeline_a_run_has_no_parent(client: MlflowClient):
    """A training by hand."""
    begin().end(ok=True)

    assert [r.data.tags.get("mlflow.parentRunId") for r in runs(client)] == [None]


def test_without_settings_nothing_is_recorded_and_that_is_said(monkeypatch: pytest.MonkeyPatch):
    """They come from the environment alone; MLflow's own default would be a folder here."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = begin()
    run.child("trial", {}).metrics({"loss": 1.0}, step=1)
    run.end(ok=True)

    assert run.reason == "not tracked: MLFLOW_TRACKING_URI is not set"


def test_a_server_that_does_not_answer_costs_the_record_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch,
):
    """The reason is kept for the stage's line."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = begin()
    run.metrics({"loss": 1.0}, step=1)
    run.end(ok=True)

    assert run.reason is not None
    assert run.reason.startswith("not tracked: ")


def test_a_record_that_is_lost_on_the_way_is_counted(client: MlflowClient, tmp_path: Path):
    """The store went away in the midst of a training."""
    run = begin()
    (held,) = runs(client)
    client.delete_run(held.info.run_id)
    run.metrics({"loss": 1.0}, step=1)

    assert run.reason is not None
    assert run.reason.startswith("1 records lost: ")


def test_a_run_that_was_killed_is_closed_by_the_one_that_goes_on(client: MlflowClient):
    """Of the same thing; others that run are left alone."""
    begin(name="killed")
    begin(name="another", identity="sha256:2")
    begin(name="resumed").end(ok=True)

    by_name = {r.info.run_name: r.info.status for r in runs(client)}
    assert by_name == {"killed": "KILLED", "another": "RUNNING", "resumed": "FINISHED"}


def test_what_is_chosen_later_is_added_to_the_parameters(client: MlflowClient):
    """What a search found, say."""
    run = begin(params={"rows": 10})
    run.params({"learning_rate": 0.1})
    run.end(ok=True)

    (held,) = runs(client)
    assert held.data.params == {"rows": "10", "learning_rate": "0.1"}


def test_steps_that_begin_at_once_lie_below_one_pipeline_run(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    """They take turns: the second finds what the first made."""
    experiment_id = client.create_experiment("digits")
    asked = mlflow._oldest

    def slow(*given: object) -> str | None:
        found = asked(*given)  # pyright: ignore[reportArgumentType]
        time.sleep(0.1)
        return found

    monkeypatch.setattr(mlflow, "_oldest", slow)
    made: list[str | None] = []

    def step() -> None:
        made.append(mlflow.parent_of(MlflowClient(), experiment_id, "20260105-1"))

    steps = [threading.Thread(target=step) for _ in range(3)]
    for thread in steps:
        thread.start()
    for thread in steps:
        thread.join()

    ever = client.search_runs([experiment_id], run_view_type=ViewType.ALL)
    assert made == [ever[0].info.run_id] * 3
    assert len(ever) == 1


def test_of_two_pipeline_runs_the_older_stays(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    """Against a server two steps may both find none: who made the newer takes its own away."""
    experiment_id = client.create_experiment("digits")
    older = mlflow.parent_of(client, experiment_id, "20260105-1")
    asked, looks = mlflow._oldest, []

    def late(*given: object) -> str | None:
        looks.append(given)
        return asked(*given) if len(looks) > 1 else None  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(mlflow, "_oldest", late)
    assert mlflow.parent_of(client, experiment_id, "20260105-1") == older
    assert [r.info.run_id for r in client.search_runs([experiment_id])] == [older]


def test_artifacts_lie_where_the_environment_says_or_beside_the_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Never in the folder that a step happens to run in, which is what MLflow would take."""
    monkeypatch.delenv(tracking.ARTIFACTS_VARIABLE, raising=False)
    monkeypatch.setenv(tracking.URI_VARIABLE, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert mlflow.artifact_root() == (tmp_path / "mlartifacts").as_uri()

    monkeypatch.setenv(tracking.URI_VARIABLE, "http://127.0.0.1:5000")
    assert mlflow.artifact_root() is None

    monkeypatch.setenv(tracking.URI_VARIABLE, "postgresql+psycopg://somebody@127.0.0.1/mlflow")
    with pytest.raises(ValueError, match="name the folder or bucket"):
        mlflow.artifact_root()

    monkeypatch.setenv(tracking.ARTIFACTS_VARIABLE, "s3://models/here")
    assert mlflow.artifact_root() == "s3://models/here"


def test_who_holds_the_lock_may_find_the_pipeline_run(client: MlflowClient, tmp_path: Path):
    """Registering holds it around more than that."""
    experiment_id = client.create_experiment("digits")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    with mlflow.lock_of(uri):
        made = mlflow.parent_of(client, experiment_id, "20260105-1")

    assert made == mlflow.parent_of(client, experiment_id, "20260105-1")


def test_a_run_that_was_given_is_used_and_left_to_its_owner(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    """Kubeflow's plugin begins one for each step: no second one, and trials lie below it."""
    experiment = client.create_experiment("somebody's")
    given = client.create_run(experiment, run_name="train").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    monkeypatch.setenv("PENSTOCK_RUN", "20260105-1")

    run = begin()
    run.metrics({"loss": 0.5}, step=1)
    run.child("trial 0", {"learning_rate": 0.1}).end(ok=True)
    run.end(ok=False)

    held = client.get_run(given)
    assert held.info.status == "RUNNING"
    assert held.data.params == {"seed": "7"}
    assert held.data.metrics == {"loss": 0.5}
    assert held.data.tags["penstock.outcome"] == "failed"
    assert client.get_experiment_by_name("digits") is None
    below = [r for r in client.search_runs([experiment]) if r.info.run_id != given]
    assert [r.data.tags["mlflow.parentRunId"] for r in below] == [given]
    assert run.reason is None


def test_a_given_run_that_is_not_there_costs_the_record_only(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)

    assert "not tracked" in str(begin().reason)
