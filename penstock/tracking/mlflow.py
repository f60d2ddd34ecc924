"""MLflow's side of tracking: experiments, the run of a pipeline, and runs nested below it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from penstock.tracking import URI_VARIABLE, Untracked

PARENT_TAG = "mlflow.parentRunId"
PIPELINE_TAG = "penstock.run"
KIND_TAG = "penstock.kind"
LONGEST = 500
"""Characters of a parameter's value that every store takes."""

GIVE_UP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""How long a server that does not answer may hold up a training, unless the environment says."""


def artifact_root() -> str | None:
    """Return a folder beside a SQLite tracking database; MLflow would use the current folder."""
    uri = os.environ[URI_VARIABLE]
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def experiment_of(client: MlflowClient, workload: str) -> str:
    """Return the identity of a workload's MLflow experiment, made if there is none."""
    found = client.get_experiment_by_name(workload)
    if found is not None:
        return found.experiment_id
    return client.create_experiment(workload, artifact_location=artifact_root())


def parent_of(client: MlflowClient, experiment_id: str, pipeline: str) -> str | None:
    """Return the MLflow run of a pipeline run, made if there is none; None outside a pipeline."""
    if not pipeline:
        return None
    quoted = pipeline.replace("'", "")
    found = client.search_runs(
        [experiment_id],
        f"tags.`{PIPELINE_TAG}` = '{quoted}' and tags.`{KIND_TAG}` = 'pipeline'",
        max_results=1,
    )
    if found:
        return found[0].info.run_id
    made = client.create_run(
        experiment_id,
        run_name=pipeline,
        tags={PIPELINE_TAG: quoted, KIND_TAG: "pipeline"},
    )
    client.set_terminated(made.info.run_id)
    return made.info.run_id


class MlflowRun:
    """One run in MLflow. A call that fails is counted and said, and raises nothing."""

    def __init__(self, client: MlflowClient, experiment_id: str, run_id: str) -> None:
        """Take a run that was begun."""
        self._client, self._experiment_id, self._id = client, experiment_id, run_id
        self._lost: list[str] = []

    @property
    def reason(self) -> str | None:
        """What could not be recorded, None when all was."""
        if not self._lost:
            return None
        return f"{len(self._lost)} records lost: {self._lost[0]}"

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Add a point to each curve."""
        at = int(time.time() * 1000)
        points = [Metric(name, float(value), at, step) for name, value in values.items()]
        self._try(lambda: self._client.log_batch(self._id, metrics=points))

    def note(self, tags: Mapping[str, str]) -> None:
        """Add tags."""
        found = [RunTag(name, value) for name, value in tags.items()]
        self._try(lambda: self._client.log_batch(self._id, tags=found))

    def child(self, name: str, params: Mapping[str, object]) -> MlflowRun | Untracked:
        """Begin a run below this one."""
        try:
            return _begun(self._client, self._experiment_id, name, self._id, params, {})
        except MlflowException as e:
            self._lost.append(_said(e))
            return Untracked(_said(e))

    def end(self, *, ok: bool) -> None:
        """Close it as finished or failed."""
        self._try(lambda: self._client.set_terminated(self._id, "FINISHED" if ok else "FAILED"))

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except MlflowException as e:
            self._lost.append(_said(e))


def begin_run(
    workload: str,
    *,
    name: str,
    parent: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> MlflowRun | Untracked:
    """Begin a run, below the one of a pipeline run where there is one."""
    for variable, value in GIVE_UP.items():
        os.environ.setdefault(variable, value)
    try:
        client = MlflowClient()
        experiment_id = experiment_of(client, workload)
        above = parent_of(client, experiment_id, parent)
        return _begun(client, experiment_id, name, above, params, tags)
    except MlflowException as e:
        return Untracked(f"not tracked: {_said(e)}")


def _begun(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    above: str | None,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> MlflowRun:
    nested = {} if above is None else {PARENT_TAG: above}
    run = client.create_run(experiment_id, run_name=name, tags={**tags, **nested})
    found = [Param(key, str(value)[:LONGEST]) for key, value in params.items()]
    client.log_batch(run.info.run_id, params=found)
    return MlflowRun(client, experiment_id, run.info.run_id)


def _said(error: MlflowException) -> str:
    return str(error).splitlines()[0][:200]
