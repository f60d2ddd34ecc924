"""Laws of versions: one for each content, whoever uploads it and however often."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.submission import versions
from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.service import Service
from tests.submit.conftest import IR, service_of
from tests.submit.kubeflow import Kubeflow
from tests.submit.web import Fault, Server


def ensured(service: Service, file: Path, version: str = "local-0123", **more: Any):
    asked = {"name": "train-digits", "namespace": None, "about": "digits", **more}
    return versions.ensured(service, version=version, file=file, **asked)


def test_the_first_submission_makes_pipeline_and_version(
    service: Service, kubeflow: Kubeflow, file: Path
):
    """And no other version: one with the pipeline's name, as an upload of the whole makes."""
    made = ensured(service, file)

    assert made.uploaded
    assert [one["name"] for one in kubeflow.pipelines] == ["train-digits"]
    assert [one["name"] for one in kubeflow.versions] == ["local-0123"]
    assert kubeflow.versions[0]["pipeline_version_id"] == made.version_id
    assert kubeflow.versions[0]["pipeline_spec"] == yaml.safe_load(file.read_text())


def test_the_same_content_is_uploaded_once(service: Service, kubeflow: Kubeflow, file: Path):
    """Also when the list has many pages, and the one looked for is on the last."""
    for i in range(5):
        ensured(service, file, f"local-{i}")
    first = ensured(service, file, "local-4")

    assert not first.uploaded
    assert len(kubeflow.versions) == 5
    assert first.version_id == kubeflow.versions[4]["pipeline_version_id"]


@pytest.mark.parametrize("kind", ["lost", "reset"])
@pytest.mark.parametrize(
    "what", ["POST .*/pipelines$", "POST .*/upload_version", "POST .*/experiments"]
)
def test_an_answer_that_was_lost_makes_nothing_twice(
    server: Server, service: Service, kubeflow: Kubeflow, file: Path, what: str, kind: str
):
    """Whether the server had acted or not."""
    server.faults = [Fault(what, kind, times=2)]

    ensured(service, file)
    versions.experiment(service, "digits", None)

    made = (kubeflow.pipelines, kubeflow.versions, kubeflow.experiments)
    assert [len(held) for held in made] == [1, 1, 1]


def test_somebody_who_was_faster_is_no_error(
    server: Server, service: Service, kubeflow: Kubeflow, file: Path, told: list[Any]
):
    """Between our look and our upload another job uploads the same: 409, and theirs is taken."""

    def faster() -> None:
        ensured(service_of(server, []), file)

    server.faults = [Fault("POST .*/upload_version", "none", before=faster)]
    mine = ensured(service, file)

    assert not mine.uploaded
    assert len(kubeflow.versions) == 1


def test_many_jobs_at_once_agree(server: Server, kubeflow: Kubeflow, file: Path):
    """Eight submissions of one content end with one version, and all name it."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ensured(service_of(server, []), file), range(8)))

    assert len({one.version_id for one in made}) == 1
    assert len(kubeflow.versions) == len(kubeflow.pipelines) == 1


def test_what_is_there_and_not_shown_ends_with_that(server: Server, service: Service, file: Path):
    """A name that somebody else's hidden pipeline holds is not asked for without end."""
    taken = '{"message": "The name train-digits already exist"}'
    server.faults = [Fault("POST .*/pipelines$", "status", times=99, status=409, text=taken)]

    with pytest.raises(Ended, match="does not show it: The name train-digits") as ended:
        ensured(service, file)

    assert ended.value.outcome is Outcome.REFUSED
    assert server.count("POST .*/pipelines$") == 5


def test_a_server_that_knows_no_filter_does_no_harm(
    service: Service, kubeflow: Kubeflow, file: Path, monkeypatch: pytest.MonkeyPatch
):
    """It lists others too, page after page; the one of the name is taken, on the last as well."""
    monkeypatch.setattr("tests.submit.kubeflow._matches", lambda _one, _asked: True)
    for name in ("train-credit", "train-streamrec", "train-digits"):
        for version in ("local-1", "local-2", "local-3"):
            ensured(service, file, version, name=name)
    again = ensured(service, file, "local-3")

    assert not again.uploaded
    assert again.version_id == kubeflow.versions[-1]["pipeline_version_id"]
    assert len(kubeflow.versions) == 9


@given(st.text(), st.text())
def test_a_versions_name_is_its_contents(one: str, other: str):
    """The same text, the same name; another text, another name."""
    same = versions.version_name(one, "abc") == versions.version_name(other, "abc")

    assert same == (one == other)


def test_no_step_is_cached_where_that_is_wanted():
    """In every group of the pipeline; all else stays, and nothing is written as an alias."""
    task = {"cachingOptions": {"enableCache": True}, "taskInfo": {"name": "a"}}
    document = yaml.safe_load(IR)
    document["components"]["comp-group"] = {"dag": {"tasks": {"inner": task, "again": task}}}

    text = versions.uncached(yaml.safe_dump_all([document, {"platforms": {"kubernetes": {}}}]))

    changed, platform = yaml.safe_load_all(text)
    assert "enableCache" not in text
    assert "&id" not in text
    assert platform == {"platforms": {"kubernetes": {}}}
    for dag in (changed["root"]["dag"], changed["components"]["comp-group"]["dag"]):
        for one in dag["tasks"].values():
            assert one.pop("cachingOptions") == {}
    for dag in (document["root"]["dag"], document["components"]["comp-group"]["dag"]):
        for one in dag["tasks"].values():
            one.pop("cachingOptions", None)
    assert changed == document
    assert versions.uncached(text) == text


def test_a_revision_is_a_commits_or_none(tmp_path: Path):
    """Sources that were changed since are no commit's, and a folder without git has none."""

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert versions.git_revision(tmp_path) == "local"
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    git("tag", "-a", "v1", "-m", "a tag is no revision")
    assert versions.git_revision(tmp_path) == git("rev-parse", "HEAD")[:12]
    (tmp_path / "a").write_text("2")
    assert versions.git_revision(tmp_path) == "local"
