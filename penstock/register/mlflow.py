"""The only module here that imports MLflow: runs, logged models, model versions, aliases.

A version is made of a run (parameters, metrics), a logged model (the package and an ``MLmodel``
file with its signature) and the version itself, in this order. What an interrupted registration
left is found by the package's digest and finished; a version exists only once its package was read
back from the artifact store and every byte of it was right.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlparse

import numpy as np
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelStatus, Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.types import Schema, TensorSpec

from penstock.bundle import Bundle, BundleError
from penstock.register.copies import checked, kept
from penstock.register.registry import DIGEST, FINGERPRINT, PREFIX, Held, State, schema, shown_card
from penstock.tracking import URI_VARIABLE
from penstock.tracking.mlflow import (
    KIND_TAG,
    LONGEST,
    PARENT_TAG,
    PIPELINE_TAG,
    experiment_of,
    lock_of,
    parent_of,
)

FOLDER = "package"
"""Where a logged model holds the package; beside it lies the ``MLmodel`` file."""

KIND = "package"
"""What the run of a registration says it is, see ``KIND_TAG``."""

QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Settings of MLflow that keep a step's output to what the step says."""

DTYPES: dict[str, Any] = {"INT64": np.int64, "FP32": np.float32, "FP64": np.float64}
"""NumPy's types of the v2 protocol's names."""


class MlflowRegistry:
    """A registry in MLflow; where it is, the environment says (``MLFLOW_TRACKING_URI``)."""

    def __init__(self) -> None:
        """Connect.

        Raises:
            ValueError: ``MLFLOW_TRACKING_URI`` is not set; MLflow would silently use a folder.
        """
        uri = os.environ.get(URI_VARIABLE)
        if not uri:
            raise ValueError(f"{URI_VARIABLE} is not set; name the tracking server or database.")
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
        self._lock = lock_of(uri)
        with self._lock:
            # Connecting creates the tables; two that do so at once get half of them each.
            self._client = MlflowClient()

    def alone(self) -> AbstractContextManager[object]:
        """Return the lock of a SQLite database, which knows no other writer's transactions.

        A server and PostgreSQL number versions in transactions of their own; there it is nothing.
        """
        return self._lock

    def add(
        self, workload: str, package: Bundle, *, experiment: str, tags: Mapping[str, str]
    ) -> int:
        """Log a run and a model of the package and register it as a new version.

        Raises:
            BundleError: The artifact store gave back other bytes than it was given.
        """
        client = self._client
        try:
            client.create_registered_model(workload)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment_id = experiment_of(client, workload)
        run_id = self._run(workload, package, experiment_id, experiment)
        model = self._model(package, experiment_id, run_id)
        client.log_batch(run_id, metrics=_metrics(package, model.model_id))
        client.set_terminated(run_id)
        version = client.create_model_version(
            workload,
            source=f"models:/{model.model_id}",
            run_id=run_id,
            description=shown_card(package),
            tags=dict(tags),
            model_id=model.model_id,
        )
        return int(version.version)

    def _run(self, workload: str, package: Bundle, experiment_id: str, pipeline: str) -> str:
        """Return the run of this registration: one that was begun and got no version, or a new."""
        client = self._client
        taken = {v.run_id for v in self._versions(workload)}
        same = f" and tags.`{DIGEST}` = '{package.digest}'"
        begun = self._begun(experiment_id, taken, same)
        tags = {KIND_TAG: KIND, FINGERPRINT: package.fingerprint, DIGEST: package.digest}
        name = package.fingerprint
        run = begun[0] if begun else client.create_run(experiment_id, run_name=name, tags=tags)
        run_id = run.info.run_id
        above = parent_of(client, experiment_id, pipeline)
        nested = {PIPELINE_TAG: pipeline} | ({} if above is None else {PARENT_TAG: above})
        said = [RunTag(name, value) for name, value in nested.items()]
        client.log_batch(run_id, params=[Param(*p) for p in _params(package).items()], tags=said)
        return run_id

    def _model(self, package: Bundle, experiment_id: str, run_id: str) -> LoggedModel:
        """Return the run's logged model, the package in it and checked."""
        client = self._client
        begun = client.search_logged_models(
            [experiment_id], filter_string=f"source_run_id = '{run_id}'"
        )
        model = next(iter(begun), None) or client.create_logged_model(
            experiment_id,
            name=package.fingerprint,
            source_run_id=run_id,
            tags={FINGERPRINT: package.fingerprint, DIGEST: package.digest},
            params=_params(package),
        )
        ready = model.status == LoggedModelStatus.READY
        if not ready:
            client.log_model_artifacts(model.model_id, str(package.path), FOLDER)
            with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
                _write_mlmodel(Path(folder), package, model, run_id)
                client.log_model_artifacts(model.model_id, folder)
        self._held(model.artifact_location, package.digest)
        if not ready:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return model

    def find(self, workload: str, *, digest: str) -> list[int]:
        """Return the versions that hold the package of this digest, oldest first."""
        held = self._versions(workload)
        return sorted(int(v.version) for v in held if v.tags.get(DIGEST) == digest)

    def _versions(self, workload: str) -> Iterator[ModelVersion]:
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name = '{workload}'", page_token=token)
            yield from page
            token = cast("str | None", page.token)
            if not token:
                return

    def package(self, workload: str, version: int) -> Bundle:
        """Return a version's package in a folder of this machine, every byte of it checked.

        Raises:
            BundleError: The artifact was altered, is not whole or is not there.
            MlflowException: There is no such version.
        """
        said = self._client.get_model_version(workload, str(version))
        source = self._client.get_model_version_download_uri(workload, str(version))
        return self._held(source, said.tags.get(DIGEST, ""))

    def _held(self, source: str, digest: str) -> Bundle:
        """Return the package that a place holds, in that place or as a copy beside the store."""
        parsed = urlparse(source)
        if parsed.scheme in ("", "file"):
            return checked(Path(unquote(parsed.path)) / FOLDER, digest)

        def fetch(folder: Path) -> Path:
            try:
                return Path(download_artifacts(f"{source}/{FOLDER}", dst_path=str(folder)))
            except (MlflowException, OSError) as e:
                raise BundleError(f"{source} could not be fetched: {e}") from e

        return kept(digest, fetch)

    def tag(self, workload: str, version: int, tags: Mapping[str, str | None]) -> None:
        """Set a version's tags; None takes one away."""
        for name, value in tags.items():
            if value is None:
                self._client.delete_model_version_tag(workload, str(version), name)
            else:
                self._client.set_model_version_tag(workload, str(version), name, value)

    def state(self, workload: str) -> State:
        """Return the versions, the aliases, and the registrations that got no version."""
        versions = sorted(self._versions(workload), key=_number)
        taken = {v.run_id for v in versions}
        experiment = self._client.get_experiment_by_name(workload)
        begun = [] if experiment is None else self._begun(experiment.experiment_id, taken)
        return State(
            versions=tuple(Held(version=int(v.version), tags=_ours(v.tags)) for v in versions),
            aliases=self._aliases(workload),
            unfinished={run.info.run_id: run.data.tags[FINGERPRINT] for run in begun},
        )

    def _begun(
        self, experiment_id: str, taken: Collection[str | None], asked: str = ""
    ) -> list[Run]:
        """Return the runs of registrations that no version names, oldest first."""
        asked = f"tags.`{KIND_TAG}` = '{KIND}'{asked}"
        found = self._client.search_runs([experiment_id], asked, order_by=["start_time ASC"])
        return [run for run in found if run.info.run_id not in taken]

    def _aliases(self, workload: str) -> dict[str, int]:
        try:
            held = cast("dict[str, str]", self._client.get_registered_model(workload).aliases)
        except MlflowException as e:
            if e.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {name: int(version) for name, version in held.items()}

    def point(self, workload: str, aliases: Mapping[str, int | None]) -> None:
        """Let each alias name its version, or nothing."""
        held = self._aliases(workload)
        for alias, version in aliases.items():
            if version is not None:
                self._client.set_registered_model_alias(workload, alias, str(version))
            elif alias in held:
                self._client.delete_registered_model_alias(workload, alias)


def _params(package: Bundle) -> dict[str, str]:
    lineage = package.json("lineage.json")
    said = {**lineage["hyperparameters"], "seed": lineage["seed"], "data": lineage["data"]}
    return {name: str(value)[:LONGEST] for name, value in said.items()}


def _metrics(package: Bundle, model_id: str) -> list[Metric]:
    """Return the numbers among the metrics; at one time, so that saying them twice is once."""
    at_ms = int(datetime.fromisoformat(package.manifest["created_at"]).timestamp() * 1000)
    return [
        Metric(name, float(value), at_ms, 0, model_id=model_id)
        for name, value in package.json("lineage.json")["metrics"].items()
        if isinstance(value, int | float)
    ]


def _write_mlmodel(folder: Path, package: Bundle, model: LoggedModel, run_id: str) -> None:
    """Write the file from which MLflow shows what goes in and what comes out."""
    inputs, outputs = (
        Schema(
            [
                TensorSpec(np.dtype(DTYPES[t["datatype"]]), tuple(t["shape"]), t["name"])
                for t in tensors
            ]
        )
        for tensors in schema(package)
    )
    described = Model(
        run_id=run_id,
        model_id=model.model_id,
        signature=ModelSignature(inputs=inputs, outputs=outputs),
        utc_time_created=package.manifest["created_at"],
        # No flavor of MLflow's: it would run the graph without the transform before it.
        flavors={"penstock": {"package": FOLDER, "digest": package.digest}},
    )
    described.save(str(folder / "MLmodel"))


def _number(version: ModelVersion) -> int:
    return int(version.version)


def _ours(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if name.startswith(PREFIX)}
