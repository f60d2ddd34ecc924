"""MLflow's side of tracking: experiments, the run of a pipeline, and runs nested below it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from penstock.tracking import ARTIFACTS_VARIABLE, GIVEN_VARIABLE, URI_VARIABLE, Untracked

PARENT_TAG = "mlflow.parentRunId"
PIPELINE_TAG = "penstock.run"
IDENTITY_TAG = "penstock.identity"
KIND_TAG = "penstock.kind"
OUTCOME_TAG = "penstock.outcome"
LONGEST = 500
"""Characters of a parameter's value that every store takes."""

GIVE_UP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""How long a server that does not answer may hold up a training, unless the environment says."""


SQLITE = "sqlite:///"


def lock_of(uri: str) -> AbstractContextManager[object]:
    """Return a lock beside a SQLite database, whose tables two processes may not make at once.

    A server and PostgreSQL have transactions of their own; there it is nothing.
    """
    if not uri.startswith(SQLITE):
        return nullcontext()
    database = Path(uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    # One lock for a path: who holds it may ask for it again further down.
    return FileLock(f"{database}.lock", is_singleton=True)


def artifact_root() -> str | None:
    """Return where artifacts lie: as the environment says, or beside a SQLite tracking database.

    A server knows by itself, which is None.

    Raises:
        ValueError: Another database, and nothing says where; MLflow would use the current folder.
    """
    if named := os.environ.get(ARTIFACTS_VARIABLE):
        return named
    uri = os.environ[URI_VARIABLE]
    if uri.startswith(SQLITE):
        return (Path(uri.removeprefix(SQLITE)).resolve().parent / "mlartifacts").as_uri()
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    raise ValueError(
        f"{URI_VARIABLE} is a database and {ARTIFACTS_VARIABLE} is not set; name the folder or "
        "bucket where artifacts are kept."
    )


def experiment_of(client: MlflowClient, workload: str) -> str:
    """Return the identity of a workload's MLflow experiment, made if there is none."""
    found = client.get_experiment_by_name(workload)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(workload, artifact_location=artifact_root())
    except MlflowException as e:
        # Somebody may have made it since we asked.
        made = client.get_experiment_by_name(workload)
        if e.error_code != "RESOURCE_ALREADY_EXISTS" or made is None:
            raise
        return made.experiment_id


def parent_of(client: MlflowClient, experiment_id: str, pipeline: str) -> str | None:
    """Return the MLflow run of a pipeline run, made if there is none; None outside a pipeline.

    A step that was given a run of its own has that one above it. Otherwise steps that begin at once
    take turns where a lock can be had. Against a server they may make one each: the newer goes,
    unless its maker looked before the older could be seen.
    """
    if given := os.environ.get(GIVEN_VARIABLE):
        return given
    if not pipeline:
        return None
    quoted = pipeline.replace("'", "")
    asked = f"tags.`{PIPELINE_TAG}` = '{quoted}' and tags.`{KIND_TAG}` = 'pipeline'"
    with lock_of(os.environ[URI_VARIABLE]):
        if found := _oldest(client, experiment_id, asked):
            return found
        made = client.create_run(
            experiment_id,
            run_name=pipeline,
            tags={PIPELINE_TAG: quoted, KIND_TAG: "pipeline"},
        ).info.run_id
        client.set_terminated(made)
        first = _oldest(client, experiment_id, asked)
        if first is not None and first != made:
            client.delete_run(made)
        return first or made


def _oldest(client: MlflowClient, experiment_id: str, asked: str) -> str | None:
    found = client.search_runs([experiment_id], asked)
    runs = sorted((run.info.start_time, run.info.run_id) for run in found)
    return runs[0][1] if runs else None


def close_killed(client: MlflowClient, experiment_id: str, identity: str) -> None:
    """Close runs of the same thing that are still open: whoever did it before is gone."""
    open_ = client.search_runs(
        [experiment_id],
        f"tags.`{IDENTITY_TAG}` = '{identity}' and attributes.status = 'RUNNING'",
    )
    for run in open_:
        client.set_terminated(run.info.run_id, "KILLED")


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

    def params(self, values: Mapping[str, object]) -> None:
        """Add what was chosen."""
        self._try(lambda: self._client.log_batch(self._id, params=_params(values)))

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


class GivenRun(MlflowRun):
    """A run that somebody else began for this step, and closes."""

    def end(self, *, ok: bool) -> None:
        """Say how it ended; closing it is its owner's."""
        self.note({OUTCOME_TAG: "finished" if ok else "failed"})


def begin_run(
    workload: str,
    *,
    name: str,
    parent: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    identity: str,
) -> MlflowRun | Untracked:
    """Begin a run, below the one of a pipeline run where there is one; or take the one given."""
    for variable, value in GIVE_UP.items():
        os.environ.setdefault(variable, value)
    told = {**tags, IDENTITY_TAG: identity}
    try:
        if given := os.environ.get(GIVEN_VARIABLE):
            return _taken(given, params, told)
        with lock_of(os.environ[URI_VARIABLE]):
            client = MlflowClient()
            experiment_id = experiment_of(client, workload)
        above = parent_of(client, experiment_id, parent)
        close_killed(client, experiment_id, identity)
        return _begun(client, experiment_id, name, above, params, told)
    except (MlflowException, ValueError) as e:
        return Untracked(f"not tracked: {_said(e)}")


def _taken(run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> GivenRun:
    client = MlflowClient()
    run = GivenRun(client, client.get_run(run_id).info.experiment_id, run_id)
    run.note(tags)
    run.params(params)
    return run


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
    client.log_batch(run.info.run_id, params=_params(params))
    return MlflowRun(client, experiment_id, run.info.run_id)


def _params(values: Mapping[str, object]) -> list[Param]:
    return [Param(key, str(value)[:LONGEST]) for key, value in values.items()]


def _said(error: MlflowException | ValueError) -> str:
    return str(error).splitlines()[0][:200]
