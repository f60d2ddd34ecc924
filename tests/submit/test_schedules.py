"""Laws of schedules: one enabled schedule a name, whatever was there and whatever is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.submission import schedules, versions
from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.service import Service
from tests.submit.conftest import service_of
from tests.submit.kubeflow import Kubeflow
from tests.submit.web import Fault, Server

NIGHTLY, HOURLY = "0 0 2 * * *", "0 0 * * * *"


def schedule(service: Service, file: Path, version: str = "local-1", **more: Any):
    made = versions.ensured(
        service, name="train-digits", version=version, file=file, namespace=None, about=""
    )
    asked = schedules.Schedule(
        name="digits-train",
        cron=NIGHTLY,
        version=made,
        experiment_id=versions.experiment(service, "digits", None),
        arguments={"data_version": "[[ScheduledTime]]"},
    )
    return replace(asked, **more)


def enabled(kubeflow: Kubeflow) -> list[dict[str, Any]]:
    return [one for one in kubeflow.schedules if one["status"] == "ENABLED"]


def test_a_schedule_is_of_a_version_one_run_at_a_time(
    service: Service, kubeflow: Kubeflow, file: Path
):
    """What was missed is not made up for."""
    schedules.ensured(service, schedule(service, file), None)

    (held,) = kubeflow.schedules
    assert held["trigger"] == {"cron_schedule": {"cron": NIGHTLY}}
    assert (held["no_catchup"], held["max_concurrency"], held["mode"]) == (True, "1", "ENABLE")
    assert held["pipeline_version_reference"]["pipeline_version_id"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([NIGHTLY, HOURLY]),
            st.sampled_from(["local-1", "local-2"]),
            st.sampled_from(["", "lost", "reset", "status"]),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_after_any_submissions_the_last_one_alone_is_enabled(
    server: Server, file: Path, asked: list[tuple[str, str, str]]
):
    """The server takes any number of schedules of one name, and would start them all."""
    kubeflow, service = server.kubeflow, service_of(server, [])
    kubeflow.schedules.clear()
    for cron, version, fault in asked:
        server.faults = [Fault("POST .*/recurringruns$", fault, status=503)] if fault else []
        wanted = schedule(service, file, version, cron=cron)
        made, _ = schedules.ensured(service, wanted, None)

        (held,) = enabled(kubeflow)
        assert held["recurring_run_id"] == made.recurring_run_id
        assert held["trigger"]["cron_schedule"]["cron"] == cron
        reference = held["pipeline_version_reference"]
        assert reference["pipeline_version_id"] == wanted.version.version_id


def test_the_same_schedule_is_made_once(service: Service, kubeflow: Kubeflow, file: Path):
    made = [schedules.ensured(service, schedule(service, file), None)[1] for _ in range(3)]

    assert made == [True, False, False]
    assert len(kubeflow.schedules) == 1


def test_another_name_is_left_alone(service: Service, kubeflow: Kubeflow, file: Path):
    for name in ("digits-train", "digits-train-2"):
        schedules.ensured(service, schedule(service, file, name=name), None)
    schedules.disable(service, "digits-train", None)

    assert [one["display_name"] for one in enabled(kubeflow)] == ["digits-train-2"]


def test_disabling_what_there_is_not_is_a_wrong_call(service: Service):
    with pytest.raises(Ended, match="no schedule 'digits-trian'") as ended:
        schedules.disable(service, "digits-trian", None)

    assert ended.value.outcome is Outcome.WRONG_CALL


@pytest.mark.parametrize("cron", ["0 2 * * *", "@daily", "", "0 0 2 * * * *", "0 0 2 * * $(x)"])
def test_a_schedule_of_other_than_six_fields_is_refused(cron: str):
    """Five fields, as cron has them, would be read as others."""
    with pytest.raises(Ended, match="six fields were wanted"):
        schedules.checked(cron)
