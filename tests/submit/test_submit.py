"""Laws of a submission: nothing wrong is sent, and what was sent is said however it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines import compiling, submit
from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.request import parsed
from pipelines.submission.tokens import Tokens
from tests.submit.conftest import IR
from tests.submit.kubeflow import Kubeflow, becomes
from tests.submit.web import Fault, Server

NOW = datetime(2026, 11, 22, 4, 31, tzinfo=UTC)
Carry = Callable[..., Ended]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small pipeline where a real one takes seconds to compile; test_command has one."""
    text = [IR]

    def compile_to(path: Path, **_: Any) -> str:
        path.write_text(text[0])
        return ""

    monkeypatch.setattr(compiling, "compile_to", compile_to)
    return text


@pytest.fixture
def carry(server: Server, told: list[Any], compiled: list[str]) -> Carry:
    def carried(action: str = "run", **more: Any) -> Ended:
        asked = {"action": action, "workload": "digits", "host": server.url, "revision": "abc1234"}
        request = parsed(json.dumps({**asked, "pause_ms": 1, **more}))
        try:
            return submit.carry(request, Tokens(None, {}), now=NOW, tell=told.append)
        except Ended as e:
            return e

    return carried


def event(told: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [one for one in told if one["event"] == kind]
    return found


def test_a_submission_says_what_it_made(carry: Carry, kubeflow: Kubeflow, told: list[Any]):
    """Version, run, and where a person sees it."""
    ended = carry(parameters=["seed=7"], ui="https://kubeflow.example.com/_/pipeline/")

    assert ended.outcome is Outcome.SUBMITTED
    (run,) = kubeflow.runs
    said = event(told, "run")
    assert said["run_id"] == run["run_id"]
    page = f"https://kubeflow.example.com/_/pipeline/#/runs/details/{run['run_id']}"
    assert said["url"] == page
    assert event(told, "version")["name"].startswith("abc1234-")
    assert run["display_name"].startswith("seed 7 ")
    assert run["display_name"].endswith(event(told, "asking")["label"])
    assert kubeflow.experiments[0]["display_name"] == "digits"


def test_the_environment_of_kubeflows_own_client_changes_nothing(
    carry: Carry, server: Server, told: list[Any], monkeypatch: pytest.MonkeyPatch
):
    """It lets KF_PIPELINES_UI_ENDPOINT win over what was typed."""
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://elsewhere.example.com")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "https://elsewhere.example.com")
    carry()

    assert event(told, "run")["url"].startswith(server.url)


def test_each_submission_has_data_of_its_own_unless_told(carry: Carry, kubeflow: Kubeflow):
    """The version of the data is in the cache's key: a fresh one finds nothing stale."""
    for more in ({}, {}, {"parameters": ["data_version=2026-11-21"]}):
        carry(**more)

    came = [run["runtime_config"]["parameters"]["data_version"] for run in kubeflow.runs]
    assert came[0] != came[1]
    assert all(one.startswith("20261122-043100-") for one in came[:2])
    assert came[2] == "2026-11-21"


@pytest.mark.parametrize(
    ("typed", "wanted"), [([], "s3://a"), (["champion=gs://b"], "gs://b"), (["champion="], "")]
)
def test_who_serves_is_named_unless_another_is(
    carry: Carry, kubeflow: Kubeflow, compiled: list[str], typed: list[str], wanted: str
):
    """And to a pipeline that asks for nobody, nobody is named."""
    assert carry(champion="s3://a").outcome is Outcome.SUBMITTED
    declared = '{defaultValue: "", isOptional: true, parameterType: STRING}'
    compiled[0] = IR.replace("      seed:", f"      champion: {declared}\n      seed:")
    carry(champion="s3://a", parameters=typed)

    first, second = (run["runtime_config"]["parameters"] for run in kubeflow.runs)
    assert ("champion" in first, second["champion"]) == (False, wanted)


def test_the_same_key_is_submitted_once(carry: Carry, kubeflow: Kubeflow, told: list[Any]):
    first, second = carry(once="job 12"), carry(once="job 12")

    assert (first.outcome, second.outcome) == (Outcome.SUBMITTED, Outcome.SUBMITTED)
    assert len(kubeflow.runs) == 1
    assert second.reason == "it was submitted before"
    assert [one["other"] for one in told if one["event"] == "run" and "other" in one] == [""]


def test_what_was_submitted_before_with_the_key_is_said_as_it_was(
    carry: Carry, kubeflow: Kubeflow, told: list[Any], compiled: list[str]
):
    """Nobody is told that a seed was trained which was not."""
    carry(once="job 12", parameters=["seed=7"])
    carry(once="job 12", parameters=["seed=8"])
    compiled[0] = IR + "# Another content.\n"
    carry(once="job 12", parameters=["seed=7"])

    assert len(kubeflow.runs) == 1
    _, second, third = (one for one in told if one["event"] == "run")
    assert (second["parameters"]["seed"], second["other"]) == (7, "other parameters")
    assert (third["parameters"]["seed"], third["other"]) == (7, "another version")


@pytest.mark.parametrize("ui", ["https://me:secret@kubeflow.example.com", "kubeflow"])
def test_an_address_of_pages_with_a_password_is_not_repeated(
    carry: Carry, server: Server, told: list[Any], ui: str
):
    """It would be printed with the run, into logs that many read."""
    ended = carry(ui=ui)

    assert (ended.outcome, server.asked) == (Outcome.WRONG_CALL, [])
    assert "secret" not in ended.reason + json.dumps(told)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"parameters": ["sed=7"]}, "unknown parameter 'sed'"),
        ({"parameters": ["seed=x"]}, "a whole number was wanted"),
        ({"parameters": ["data_version=" + "x" * 10_000]}, "at most 10,000"),
        ({"parameters_file": "none.json"}, "none.json"),
        ({"profile": "none.toml"}, "none.toml"),
    ],
)
def test_what_the_server_would_refuse_is_not_sent(
    carry: Carry, server: Server, more: dict[str, Any], said: str
):
    """A mistake costs no version, no experiment, no request."""
    ended = carry(**more)

    assert ended.outcome is Outcome.WRONG_CALL
    assert said in ended.reason
    assert server.asked == []


def test_an_image_without_a_digest_is_taken_when_told_so_alone(
    carry: Carry, server: Server, compiled: list[str]
):
    compiled[0] = IR.replace("@sha256:" + "0" * 64, ":1")
    refused = carry()

    assert refused.outcome is Outcome.WRONG_CALL
    assert "no digest" in refused.reason
    assert server.asked == []
    assert carry(pinned=False).outcome is Outcome.SUBMITTED


def test_a_dry_run_needs_no_server(carry: Carry, server: Server, told: list[Any]):
    """It says what would be sent."""
    assert carry("check", host="").outcome is Outcome.CHECKED
    assert server.asked == []
    assert event(told, "prepared")["pods"] == 3


def test_without_a_server_nothing_is_submitted(carry: Carry):
    assert "say --host" in carry(host="").reason


def test_waiting_ends_with_the_run(carry: Carry, kubeflow: Kubeflow, told: list[Any]):
    kubeflow.script = [becomes("FAILED", gate="SUCCEEDED", reject="FAILED")]
    kubeflow.logs["wf-system-container-203"] = "penstock.stage.Refused: gate is fail: worse\n"

    ended = carry(wait_s=60)

    assert (ended.outcome, ended.reason) == (
        Outcome.REJECTED,
        "step reject failed: gate is fail: worse",
    )
    assert [one["task"] for one in told if one["event"] == "task"] == ["gate", "reject"]


def test_a_run_can_be_followed_and_cancelled_later(
    carry: Carry, kubeflow: Kubeflow, told: list[Any]
):
    """By its id alone: nothing is compiled."""
    carry()
    run_id = kubeflow.runs[0]["run_id"]
    assert carry("cancel", workload="", run_id=run_id).outcome is Outcome.STOPPING
    assert kubeflow.runs[0]["state"] == "CANCELING"
    kubeflow.script = [becomes("CANCELED")]
    assert carry("follow", workload="", run_id=run_id, wait_s=60).outcome is Outcome.CANCELLED


def test_a_schedule_is_never_cached_and_is_named_for_each_run(
    carry: Carry, kubeflow: Kubeflow, told: list[Any]
):
    """A fixed version of the data would be found in the cache for ever; few servers fill one in."""
    ended = carry("schedule", cron="0 0 2 * * *", schedule="nightly")

    assert ended.outcome is Outcome.SCHEDULED
    (held,), (version,) = kubeflow.schedules, kubeflow.versions
    assert held["runtime_config"]["parameters"]["data_version"] == "[[ScheduledTime]]"
    assert "enableCache" not in json.dumps(version["pipeline_spec"])
    assert kubeflow.runs == []
    said = event(told, "schedule")
    assert said["url"].endswith(f"/#/recurringrun/details/{held['recurring_run_id']}")
    assert carry("disable", schedule="nightly").outcome is Outcome.DISABLED
    assert kubeflow.schedules[0]["status"] == "DISABLED"


def test_a_schedule_that_cannot_be_is_refused_before_anything_is_sent(carry: Carry, server: Server):
    assert carry("schedule", cron="0 2 * * *").outcome is Outcome.WRONG_CALL
    assert server.asked == []


def test_no_cache_is_another_version_of_its_own(carry: Carry, kubeflow: Kubeflow):
    """What differs in content differs in name."""
    carry()
    carry(cached=False)

    cached, uncached = kubeflow.versions
    assert cached["name"] != uncached["name"]
    assert "enableCache" in json.dumps(cached["pipeline_spec"])
    assert "enableCache" not in json.dumps(uncached["pipeline_spec"])


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        '{"action": "fly"}',
        '{"action": "run", "wait": 3}',
        '{"action": "run", "every_s": 0}',
    ],
)
def test_a_request_that_is_none_is_refused(document: str):
    with pytest.raises(Ended) as ended:
        parsed(document)

    assert ended.value.outcome is Outcome.WRONG_CALL


def test_whatever_breaks_first_nothing_is_left_half_said(
    carry: Carry, server: Server, kubeflow: Kubeflow, told: list[Any]
):
    """At every request of a submission: an outage ends as one, and the next try mends it."""
    carry()
    before = len(server.asked)
    carry()
    for broken in range(len(server.asked) - before):
        start = len(server.asked)
        server.faults = [
            Fault(".", "none", times=broken),
            Fault(".", "status", times=9, status=503),
        ]
        assert carry(once="one").outcome is Outcome.UNREACHABLE, broken
        assert len(server.asked) - start <= broken + 11
    server.faults = []
    assert carry(once="one").outcome is Outcome.SUBMITTED
    assert len(kubeflow.runs) == 3
    assert len(kubeflow.versions) == len(kubeflow.pipelines) == len(kubeflow.experiments) == 1
