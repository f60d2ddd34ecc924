"""Recurring runs: one enabled schedule a name, whatever was there before."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import kfp_server_api as api

from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.service import Service
from pipelines.submission.versions import Version, equals

ENABLED = "ENABLED"
_FIELDS = ("second", "minute", "hour", "day", "month", "weekday")
_PART = re.compile(r"[0-9A-Za-z*/,?-]+")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A pipeline's version, run again and again."""

    name: str
    cron: str
    version: Version
    experiment_id: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    service_account: str | None = None


def checked(cron: str) -> str:
    """Return a schedule as the server reads it: six fields, of which seconds are the first.

    Raises:
        Ended: It has another number of fields; one of five would run at other times.
    """
    parts = cron.split()
    if len(parts) != len(_FIELDS) or not all(_PART.fullmatch(part) for part in parts):
        raise Ended(
            Outcome.WRONG_CALL,
            f"--cron {cron!r} came, six fields were wanted ({', '.join(_FIELDS)}): "
            "'0 0 2 * * *' is each day at two, UTC.",
        )
    return " ".join(parts)


def ensured(service: Service, wanted: Schedule, namespace: str | None) -> tuple[Any, bool]:
    """Return the one enabled schedule of this name, and whether it was made now.

    The server takes two of one name and starts both. So the same one is found again; one that
    says something else is disabled as soon as its successor is there.

    Raises:
        Ended: The server would not.
    """

    def there() -> Any | None:
        listed = named(service, wanted.name, namespace)
        return next((one for one in listed if one.status == ENABLED and _same(one, wanted)), None)

    kept, new = service.settled(
        "make the schedule",
        there,
        service.schedules.recurring_run_service_create_recurring_run,
        api.V2beta1RecurringRun(
            display_name=wanted.name,
            experiment_id=wanted.experiment_id,
            pipeline_version_reference=api.V2beta1PipelineVersionReference(
                pipeline_id=wanted.version.pipeline_id,
                pipeline_version_id=wanted.version.version_id,
            ),
            runtime_config=api.V2beta1RuntimeConfig(parameters=wanted.arguments),
            service_account=wanted.service_account,
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=wanted.cron)),
            mode="ENABLE",
            # What was missed while the server was away is not made up for, one at a time.
            no_catchup=True,
            max_concurrency="1",
        ),
    )
    for other in named(service, wanted.name, namespace):
        if other.recurring_run_id != kept.recurring_run_id and other.status == ENABLED:
            _off(service, other)
    return kept, new


def disable(service: Service, name: str, namespace: str | None) -> int:
    """Disable every schedule of a name; return how many there were to disable.

    Raises:
        Ended: There is none of the name, or the server would not.
    """
    listed = named(service, name, namespace)
    if not listed:
        raise Ended(Outcome.WRONG_CALL, f"there is no schedule {name!r}; look at its spelling.")
    running = [one for one in listed if one.status == ENABLED]
    for one in running:
        _off(service, one)
    return len(running)


def named(service: Service, name: str, namespace: str | None) -> list[Any]:
    """Return all schedules of a name, those that are off too."""
    listed = service.schedules.recurring_run_service_list_recurring_runs
    asked = {"namespace": namespace} if namespace else {}
    found = service.every(
        "list the schedules", listed, "recurring_runs", filter=equals(name), **asked
    )
    return [one for one in found if one.display_name == name]


def url(ui: str, schedule_id: str) -> str:
    """Return where a person sees a schedule."""
    return f"{ui.rstrip('/')}/#/recurringrun/details/{schedule_id}"


def _off(service: Service, one: Any) -> None:
    call = service.schedules.recurring_run_service_disable_recurring_run
    service.ask(f"disable schedule {one.recurring_run_id}", call, one.recurring_run_id)


def _same(one: Any, wanted: Schedule) -> bool:
    reference, config = one.pipeline_version_reference, one.runtime_config
    cron = one.trigger and one.trigger.cron_schedule
    return (
        reference is not None
        and reference.pipeline_version_id == wanted.version.version_id
        and ((config and config.parameters) or {}) == wanted.arguments
        and cron is not None
        and cron.cron == wanted.cron
        and one.experiment_id == wanted.experiment_id
        and (wanted.service_account in (None, one.service_account))
    )
