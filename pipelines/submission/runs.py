"""Runs on a server: made once, found again, ended."""

from __future__ import annotations

import hashlib
import secrets
import string
from dataclasses import dataclass, field
from typing import Any

import kfp_server_api as api

from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.service import Refused, Service
from pipelines.submission.versions import Version, equals

LETTERS = string.ascii_lowercase + string.digits
LABEL = 10
"""Letters of a label: there are 36**10 of them."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A run to be made."""

    name: str
    """What people read; ends with the label."""

    label: str
    version: Version
    experiment_id: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    service_account: str | None = None


def label(key: str | None) -> str:
    """Return what tells a run from all others: of a key the same each time, else by chance."""
    if key is None:
        return "".join(secrets.choice(LETTERS) for _ in range(LABEL))
    number = int.from_bytes(hashlib.sha256(key.encode()).digest())
    return "".join(LETTERS[number // len(LETTERS) ** i % len(LETTERS)] for i in range(LABEL))


def made(service: Service, wanted: Wanted) -> tuple[Any, bool]:
    """Return the run of this label, and whether it was made now.

    The server takes any number of runs of one name. So the label is looked for before the run is
    asked for, also when the answer to an earlier asking was lost. What a server that was asked does
    only after it was asked again, no client can know; both runs then bear the label.

    Raises:
        Ended: The server would not, or could not be reached.
    """

    def there() -> Any | None:
        found = service.every(
            "list the runs",
            service.runs.run_service_list_runs,
            "runs",
            experiment_id=wanted.experiment_id,
            filter=equals(wanted.label, operation="IS_SUBSTRING"),
        )
        mine = [run for run in found if (run.display_name or "").endswith(wanted.label)]
        return min(mine, key=lambda run: str(run.created_at), default=None)

    run = api.V2beta1Run(
        display_name=wanted.name,
        experiment_id=wanted.experiment_id,
        # Both ids are needed, whatever the client's documentation says.
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=wanted.version.pipeline_id,
            pipeline_version_id=wanted.version.version_id,
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=wanted.arguments),
        service_account=wanted.service_account,
    )
    return service.settled("make the run", there, service.runs.run_service_create_run, run)


def found(service: Service, run_id: str) -> Any:
    """Return a run as it is now.

    Raises:
        Trouble: The server cannot say now.
        Ended: There is no such run, or it may not be seen.
    """
    try:
        return service.once(service.runs.run_service_get_run, run_id)
    except Refused as e:
        raise service.ended(f"show run {run_id}", e) from e


def stop(service: Service, run_id: str) -> None:
    """Ask the server to end a run; its steps are killed.

    Raises:
        Ended: There is no such run, it has ended, or the server could not be reached.
    """
    service.ask(f"cancel run {run_id}", service.runs.run_service_terminate_run, run_id)


def url(ui: str, run_id: str) -> str:
    """Return where a person sees a run."""
    return f"{ui.rstrip('/')}/#/runs/details/{run_id}"


def namespace_of(service: Service, wanted: str | None) -> str | None:
    """Return the namespace to name: one where users are kept apart, none where they are not.

    The server refuses a namespace in the one case and its lack in the other.

    Raises:
        Ended: It is needed and was not given.
    """
    health = service.ask("say how it is", service.health.healthz_service_get_healthz)
    if not health.multi_user:
        return None
    if not wanted:
        reason = f"{service.host} keeps users apart; name yours: --namespace."
        raise Ended(Outcome.WRONG_CALL, reason)
    return wanted
