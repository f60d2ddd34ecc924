"""Laws of following: every end has its own name, and a server that stumbles ends nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.submission import following, runs
from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.service import Service
from tests.submit.kubeflow import Kubeflow, becomes
from tests.submit.test_runs import wanted
from tests.submit.web import Fault, Server

OK = "SUCCEEDED"


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 0.0

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def clock(self) -> following.Clock:
        return following.Clock(now=lambda: self.at, sleep=self.sleep)


@pytest.fixture
def run_id(service: Service, file: Path) -> str:
    return runs.made(service, wanted(service, file))[0].run_id


@pytest.fixture
def follow(service: Service, run_id: str, told: list[Any]) -> Callable[..., Ended]:
    def followed(wait_s: float = 3_600, every_s: float = 10) -> Ended:
        clock = Time().clock()
        return following.follow(
            service, run_id, tell=told.append, wait_s=wait_s, every_s=every_s, clock=clock
        )

    return followed


def test_what_changes_is_told_once(
    follow: Callable[..., Ended], kubeflow: Kubeflow, told: list[Any]
):
    """Steps alone: no driver, no executor, no group; nothing twice."""
    kubeflow.script = [
        becomes("PENDING"),
        becomes("RUNNING", features="RUNNING"),
        becomes("RUNNING", features="RUNNING"),
        becomes("RUNNING", features=OK, train="RUNNING"),
        becomes(OK, features=OK, train=OK, reject="SKIPPED"),
    ]

    assert follow().outcome is Outcome.SUCCEEDED
    assert [(e["event"], e.get("task"), e["state"], e.get("seconds")) for e in told] == [
        ("state", None, "PENDING", None),
        ("state", None, "RUNNING", None),
        ("task", "features", "RUNNING", None),
        ("task", "features", OK, 60.0),
        ("task", "train", "RUNNING", None),
        ("state", None, OK, None),
        ("task", "train", OK, 60.0),
    ]


@pytest.mark.parametrize(
    ("state", "steps", "log", "outcome", "reason"),
    [
        (OK, {"gate": OK}, "", "succeeded", "every step"),
        ("SKIPPED", {}, "", "succeeded", "every step"),
        ("CANCELED", {"train": "FAILED"}, "", "cancelled", "somebody cancelled it"),
        ("FAILED", {}, "", "failed", "the run failed"),
        ("FAILED", {"features": OK, "train": "FAILED"}, "", "failed", "step train failed"),
        (
            "FAILED",
            {"train": "FAILED"},
            "ValueError: the loss is no number",
            "failed",
            "step train failed: the loss is no number",
        ),
        (
            "FAILED",
            {"gate": OK, "reject": "FAILED"},
            "penstock.stage.Refused: gate is fail: accuracy 0.91 < 0.95",
            "rejected",
            "step reject failed: gate is fail: accuracy 0.91 < 0.95",
        ),
        ("FAILED", {"gate": OK, "reject": "FAILED"}, "", "rejected", "step reject failed"),
        ("FAILED", {"diagnose": "FAILED"}, "drift of age", "waiting", "drift of age"),
        (
            "FAILED",
            {"datachecks": "FAILED"},
            "penstock.stage.Refused: a column is empty",
            "data refused",
            "a column is empty",
        ),
        ("FAILED", {"datachecks": "FAILED"}, "OSError: no space", "failed", "no space"),
        (
            "FAILED",
            {"register": "FAILED"},
            "penstock.stage.Refused: the champion changed",
            "rejected",
            "the champion changed",
        ),
        (
            "FAILED",
            {"gate": OK, "reject": "SKIPPED", "register": "FAILED"},
            "",
            "failed",
            "register",
        ),
        ("FAILED", {"train_driver": "FAILED"}, "", "failed", "step train failed"),
        ("FAILED", {"train-2": "FAILED"}, "", "failed", "step train-2 failed"),
    ],
)
def test_every_end_has_its_name(
    follow: Callable[..., Ended],
    kubeflow: Kubeflow,
    state: str,
    steps: dict[str, str],
    log: str,
    outcome: str,
    reason: str,
):
    """A red run may be the gate's no; a step that broke and one that refused are two things."""
    kubeflow.script = [becomes(state, **steps)]
    number = len(steps)
    launcher = 'I1122 04:31:07.1 launcher.go:1] gone\ntime="x" msg=done\nexit status 1\n'
    if log:
        pod = f"wf-system-container-{number}03"
        kubeflow.logs[pod] = f"Traceback:\n::penstock {{}}\n\x1b[31m{log}\x1b[0m\n{launcher}"

    ended = follow()

    assert (str(ended.outcome), reason in ended.reason) == (outcome, True), ended.reason


def test_what_the_server_records_of_a_failure_is_the_reason(
    follow: Callable[..., Ended], kubeflow: Kubeflow, server: Server
):
    """Then no log is asked for."""

    def failed(run: dict[str, Any]) -> None:
        becomes("FAILED", train="FAILED")(run)
        for task in run["run_details"]["task_details"]:
            if task["display_name"] == "train":
                task["error"] = {"code": 2, "message": "OOMKilled\n(exit code 137)"}

    kubeflow.script = [failed]

    assert follow().reason == "step train failed: OOMKilled (exit code 137)"
    assert server.count("/log") == 0


def test_a_log_without_an_end_is_not_read_for_ever(
    follow: Callable[..., Ended], kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch
):
    """Its end may then be missing; the run's end is not."""
    monkeypatch.setattr("pipelines.submission.reasons.LARGEST", 100_000)
    kubeflow.script = [becomes("FAILED", train="FAILED")]
    kubeflow.logs["wf-system-container-103"] = "x" * 3_000_000 + "\nValueError: the end\n"

    ended = follow()

    assert ended.outcome is Outcome.FAILED
    assert "the end" not in ended.reason


def test_a_cancelled_run_is_followed_to_its_end(follow: Callable[..., Ended], kubeflow: Kubeflow):
    """Kfp's own client knows no CANCELED and waits until its timeout."""
    kubeflow.script = [becomes("RUNNING"), becomes("CANCELING"), becomes("CANCELED")]

    assert follow().outcome is Outcome.CANCELLED


def test_a_run_that_goes_on_is_left_when_time_is_up(
    follow: Callable[..., Ended], kubeflow: Kubeflow, server: Server
):
    """After looking a last time at the very end."""
    kubeflow.script = [becomes("RUNNING")]

    with pytest.raises(Ended, match="goes on after 25 s") as ended:
        follow(wait_s=25)

    assert ended.value.outcome is Outcome.STILL_RUNNING
    assert server.count("GET .*/runs/") == 4


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
@given(st.lists(st.sampled_from(["reset", "503", "500", "fine"]), max_size=10))
def test_a_server_that_stumbles_ends_nothing(
    follow: Callable[..., Ended], server: Server, faults: list[str]
):
    """The run does not need it: kfp's own client dies of the first 5xx."""
    kinds = {"reset": ("reset", 0), "503": ("status", 503), "500": ("status", 500)}
    server.faults = [
        Fault("GET .*/runs/", *kinds[kind][:1], status=kinds[kind][1]) if kind != "fine"
        else Fault("GET .*/runs/", "none")
        for kind in faults
    ]  # fmt: skip
    server.kubeflow.script = [becomes("RUNNING")] * 3 + [becomes(OK)]

    assert follow().outcome is Outcome.SUCCEEDED


def test_a_server_that_stays_away_is_given_up(
    follow: Callable[..., Ended], server: Server, told: list[Any]
):
    """Bounded, and the run is said to go on."""
    server.faults = [Fault("GET .*/runs/", "status", times=10_000, status=503)]

    with pytest.raises(Ended, match="goes on without us") as ended:
        follow(wait_s=100_000)

    assert ended.value.outcome is Outcome.UNREACHABLE
    assert len(told) == following.OUTAGE_S / 10 + 1


def test_outages_do_not_add_up(follow: Callable[..., Ended], server: Server, kubeflow: Kubeflow):
    """Whoever answers in between has come back."""
    away = Fault("GET .*/runs/", "status", times=40, status=503)
    server.faults = [away, Fault("GET .*/runs/", "none"), replace(away)]
    kubeflow.script = [becomes("RUNNING"), becomes(OK)]

    assert follow().outcome is Outcome.SUCCEEDED
    assert following.OUTAGE_S < 2 * 40 * 10


def test_a_token_that_is_taken_away_ends_the_following(
    follow: Callable[..., Ended], server: Server
):
    server.faults = [Fault("GET .*/runs/", "status", status=401)]

    with pytest.raises(Ended) as ended:
        follow()

    assert ended.value.outcome is Outcome.NOT_ALLOWED


def test_a_run_that_is_not_there_is_refused(service: Service, told: list[Any]):
    with pytest.raises(Ended, match="404") as ended:
        following.follow(
            service, "0b0f3a4e-0000-4000-8000-000000000000", tell=told.append, wait_s=9, every_s=1
        )

    assert ended.value.outcome is Outcome.REFUSED
