"""The only module that imports MLflow: runs, artifacts, model versions, aliases."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from penstock.bundle import Bundle, read
from penstock.tracking.mlflow import PARENT_TAG, PIPELINE_TAG, experiment_of, parent_of

FOLDER = "package"
TAG = "penstock.fingerprint"


class MlflowRegistry:
    """A registry in MLflow; where it is, the environment says (``MLFLOW_TRACKING_URI``)."""

    def __init__(self) -> None:
        """Connect.

        Raises:
            ValueError: ``MLFLOW_TRACKING_URI`` is not set; MLflow would silently use a folder.
        """
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ValueError(
                "MLFLOW_TRACKING_URI is not set; name the tracking server or database."
            )
        self._client = MlflowClient()

    def add(self, workload: str, package: Bundle, *, experiment: str) -> int:
        """Log one run with parameters, metrics and the package; register it as a new version."""
        run_id = self._log(workload, package, experiment)
        try:
            self._client.create_registered_model(workload)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        lineage = package.json("lineage.json")
        version = self._client.create_model_version(
            workload,
            source=f"{self._client.get_run(run_id).info.artifact_uri}/{FOLDER}",
            run_id=run_id,
            description=package.file("card.md").read_text(),
            tags={
                TAG: package.fingerprint,
                "penstock.digest": package.digest,
                "penstock.data": lineage["data"],
                "penstock.owner": lineage["owner"],
                **({"penstock.rehearsal": lineage["rehearsal"]} if lineage["rehearsal"] else {}),
            },
        )
        return int(version.version)

    def _log(self, workload: str, package: Bundle, experiment: str) -> str:
        client, lineage = self._client, package.json("lineage.json")
        experiment_id = experiment_of(client, workload)
        above = parent_of(client, experiment_id, experiment)
        nested = {} if above is None else {PARENT_TAG: above}
        run = client.create_run(experiment_id, run_name=package.fingerprint, tags=nested)
        run_id, at = run.info.run_id, int(time.time() * 1000)
        params = {**lineage["hyperparameters"], "seed": lineage["seed"], "data": lineage["data"]}
        client.log_batch(
            run_id,
            metrics=[Metric(k, float(v), at, 0) for k, v in lineage["metrics"].items()],
            params=[Param(k, str(v)) for k, v in params.items()],
            tags=[RunTag(PIPELINE_TAG, experiment), RunTag(TAG, package.fingerprint)],
        )
        client.log_artifacts(run_id, str(package.path), artifact_path=FOLDER)
        client.set_terminated(run_id)
        return run_id

    def find(self, workload: str, *, fingerprint: str) -> list[int]:
        """Return the versions that hold the package of this fingerprint, oldest first."""
        try:
            held = self._client.search_model_versions(f"name = '{workload}'")
        except MlflowException:
            return []
        return sorted(int(v.version) for v in held if v.tags.get(TAG) == fingerprint)

    def package(self, workload: str, version: int) -> Path:
        """Return the folder of a version's package, after checking every byte of it.

        Raises:
            BundleError: The artifact was altered or is not whole.
            MlflowException: There is no such version.
        """
        source = self._client.get_model_version(workload, str(version)).source or ""
        parsed = urlparse(source)
        if parsed.scheme in ("", "file"):
            return read(Path(unquote(parsed.path)), kind="package").path
        run_id = self._client.get_model_version(workload, str(version)).run_id or ""
        return read(Path(self._client.download_artifacts(run_id, FOLDER)), kind="package").path

    def point(self, workload: str, aliases: Mapping[str, int | None]) -> None:
        """Let each alias name its version, or nothing."""
        held = self._client.get_registered_model(workload).aliases
        for alias, version in aliases.items():
            if version is not None:
                self._client.set_registered_model_alias(workload, alias, str(version))
            elif alias in held:
                self._client.delete_registered_model_alias(workload, alias)
