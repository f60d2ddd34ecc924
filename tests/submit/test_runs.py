"""Laws of runs: one submission makes one run, whatever gets lost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.submission import runs, versions
from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.service import Service
from tests.submit.conftest import service_of
from tests.submit.kubeflow import Kubeflow
from tests.submit.web import Fault, Server


def wanted(service: Service, file: Path, label: str = "k7x2m9q4ab", **arguments: Any):
    version = versions.ensured(
        service, name="train-digits", version="local-1", file=file, namespace=None, about=""
    )
    return runs.Wanted(
        name=f"seed 7 {label}",
        label=label,
        version=version,
        experiment_id=versions.experiment(service, "digits", None),
        arguments=arguments,
        service_account="penstock-pipeline",
    )


def test_a_run_is_of_the_version_with_its_arguments(
    service: Service, kubeflow: Kubeflow, file: Path
):
    """Not of an embedded file, which would be linked to no version in the UI."""
    asked = wanted(service, file, seed=7, data_version="d1")
    run, new = runs.made(service, asked)

    assert new
    (held,) = kubeflow.runs
    assert run.run_id == held["run_id"]
    assert held["runtime_config"] == {"parameters": {"seed": 7, "data_version": "d1"}}
    assert held["pipeline_version_reference"]["pipeline_version_id"] == asked.version.version_id
    assert "pipeline_spec" not in held
    assert held["service_account"] == "penstock-pipeline"


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)
@given(st.lists(st.sampled_from(["lost", "reset", "status"]), max_size=4))
def test_whatever_is_lost_there_is_one_run(server: Server, file: Path, faults: Sequence[str]):
    """Answers lost after the run was made, connections broken before, a gateway's 503."""
    server.kubeflow.runs.clear()
    service = service_of(server, [])
    asked = wanted(service, file)
    server.faults = [Fault("POST .*/runs$", kind, status=503) for kind in faults]

    run, new = runs.made(service, asked)

    assert [one["run_id"] for one in server.kubeflow.runs] == [run.run_id]
    assert new == ("lost" not in faults)


def test_the_same_key_finds_the_run_again(service: Service, kubeflow: Kubeflow, file: Path):
    """A job that CI starts again makes no second run; another key does."""
    for key in ("job 12", "job 12", "job 13"):
        runs.made(service, wanted(service, file, runs.label(key)))

    assert len(kubeflow.runs) == 2


@given(st.text())
def test_a_label_is_ten_letters_the_same_for_the_same_key(key: str):
    made = runs.label(key)

    assert made == runs.label(key)
    assert len(made) == runs.LABEL
    assert set(made) <= set(runs.LETTERS)


def test_without_a_key_no_two_labels_are_the_same():
    assert len({runs.label(None) for _ in range(1_000)}) == 1_000


def test_what_the_server_refuses_of_a_run_is_said_in_its_words(service: Service, file: Path):
    with pytest.raises(Ended, match="input parameter seed requires type NUMBER_INTEGER") as ended:
        runs.made(service, wanted(service, file, seed="7"))

    assert ended.value.outcome is Outcome.REFUSED


def test_a_run_is_ended_on_request(service: Service, kubeflow: Kubeflow, file: Path):
    run, _ = runs.made(service, wanted(service, file))
    runs.stop(service, run.run_id)

    assert kubeflow.runs[0]["state"] == "CANCELING"
    with pytest.raises(Ended, match="Failed to terminate a run"):
        runs.stop(service, run.run_id)


@pytest.mark.parametrize(
    ("multi_user", "given_", "named"), [(True, "team", "team"), (False, "team", None)]
)
def test_a_namespace_is_named_where_users_are_kept_apart(
    service: Service, kubeflow: Kubeflow, file: Path, multi_user: Any, given_: str, named: Any
):
    """The server refuses it in the other case."""
    kubeflow.multi_user = multi_user
    namespace = runs.namespace_of(service, given_)

    assert namespace == named
    version = versions.ensured(
        service, name="train-digits", version="local-1", file=file, namespace=namespace, about=""
    )
    assert version.uploaded
    assert kubeflow.pipelines[0].get("namespace") == named


def test_a_namespace_that_is_missing_is_asked_for(service: Service, kubeflow: Kubeflow):
    kubeflow.multi_user = True

    with pytest.raises(Ended, match="name yours: --namespace"):
        runs.namespace_of(service, None)
