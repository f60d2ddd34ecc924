"""Tracking: every training on record while it runs, below the pipeline run it belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

URI_VARIABLE = "MLFLOW_TRACKING_URI"
ARTIFACTS_VARIABLE = "PENSTOCK_ARTIFACTS"
"""Environment variable: where MLflow keeps artifacts, when tracking goes straight to a database."""

RUN_VARIABLE = "PENSTOCK_RUN"
"""Environment variable: identity of the pipeline run that steps belong to."""

GIVEN_VARIABLE = "MLFLOW_RUN_ID"
"""Environment variable: the MLflow run that whoever started this step began for it, and will close.

Kubeflow Pipelines sets it where its administrator has turned its MLflow plugin on.
"""


class Tracked(Protocol):
    """One run that is being recorded."""

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Add a point to each curve."""
        ...

    def params(self, values: Mapping[str, object]) -> None:
        """Add what was chosen."""
        ...

    def child(self, name: str, params: Mapping[str, object]) -> Tracked:
        """Begin a run below this one."""
        ...

    def note(self, tags: Mapping[str, str]) -> None:
        """Add tags."""
        ...

    def end(self, *, ok: bool) -> None:
        """Close it."""
        ...

    @property
    def reason(self) -> str | None:
        """Why nothing, or not everything, is recorded; None when all is."""
        ...


class Untracked:
    """Records nothing, and says why."""

    def __init__(self, reason: str) -> None:
        """Take the reason, a short sentence."""
        self._reason = reason

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        """Let it pass."""

    def params(self, values: Mapping[str, object]) -> None:
        """Let it pass."""

    def child(self, name: str, params: Mapping[str, object]) -> Untracked:  # noqa: ARG002 - the protocol's
        """Return itself."""
        return self

    def note(self, tags: Mapping[str, str]) -> None:
        """Let it pass."""

    def end(self, *, ok: bool) -> None:
        """Let it pass."""

    @property
    def reason(self) -> str | None:
        """Why nothing is recorded."""
        return self._reason


def begin(
    workload: str,
    *,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    identity: str,
) -> Tracked:
    """Begin a run of a workload where the environment says; elsewhere, one that records nothing.

    Where the step was given a run, it is recorded there, and left open for who began it.

    Args:
        params: What was chosen; plain values.
        tags: What it came from and was made on.
        identity: Of what is done; a run of the same that was killed is closed, since this one goes
            on in its place.

    A tracking server that does not answer costs the record, not the training: what is lost is said
    in :attr:`Tracked.reason`.
    """
    if not os.environ.get(URI_VARIABLE):
        return Untracked(f"not tracked: {URI_VARIABLE} is not set")
    from penstock.tracking.mlflow import begin_run  # noqa: PLC0415 - seconds to import

    parent = os.environ.get(RUN_VARIABLE, "")
    return begin_run(
        workload, name=name, parent=parent, params=params, tags=tags, identity=identity
    )
