"""Laws of lineage: every field a reader asks for, and what is missing is named."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import machine
from penstock import workload as workloads
from penstock.bundle import Bundle, code_revision, hash_file
from penstock.register.lineage import features, files, incomplete, lineage
from penstock.workload import load
from tests.register.versions import inputs

SEVEN = ("code", "data", "feature_definitions", "hyperparameters", "seed", "image", "metrics")
"""What a lineage must name: commit, data, feature set, hyperparameters, seed, image, metrics."""


@pytest.fixture
def record(tmp_path: Path) -> dict:
    """The lineage of a small version."""
    return lineage(load("digits"), inputs(tmp_path), rehearsal="", trained_by="trainer")


def test_a_lineage_has_the_seven_fields_and_names_every_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each stage with its digest, inputs and files; the graph; who trained; where."""
    monkeypatch.setenv("PENSTOCK_IMAGE", "registry/train@sha256:1")
    bundles = inputs(tmp_path)

    made = lineage(load("digits"), bundles, rehearsal="", trained_by="trainer")

    assert all(made[name] for name in SEVEN)
    assert made["metrics"] == {"accuracy": 0.97, "agreement_int8": 0.99}
    assert made["digests"] == {name: bundle.digest for name, bundle in bundles.items()}
    assert made["stages"]["model"]["files"].keys() == {"config.json", "model.safetensors"}
    assert made["stages"]["serving"]["inputs"]["onnx"] == "digits-graph"
    assert made["model"] == hash_file(bundles["serving"].file("model.int8-cpu.onnx"))
    assert (made["trained_by"], made["environment"]["seen_at"]) == ("trainer", "training")
    assert made["choices"]["calibrator"] == "entropy"
    assert made["files"]["penstock/bundle.py"] == hash_file(workloads.root() / "penstock/bundle.py")
    assert not [path for path in made["files"] if path.startswith("workloads/credit")]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("code", "git"), None, "code: no git commit"),
        (("training_code", "recorded"), "sha256:0", "code: the model was not trained"),
        (("training_code",), {}, "code: the model was not trained"),
        (("data_digest",), None, "data: no fingerprint or no digest"),
        (("seed",), None, "config: no hyperparameters or no seed"),
        (("hyperparameters",), {}, "config: no hyperparameters or no seed"),
        (("environment", "python"), None, "environment: no Python"),
        (("environment", "lock"), None, "environment: no Python"),
    ],
)
def test_what_is_missing_of_the_four_is_named(
    record: dict, path: tuple[str, ...], value: object, said: str
):
    """Code, data, config and environment: one that is not known is said, and only that one."""
    record["code"]["git"] = "4c1d"
    whole = incomplete(record)
    place = copy.deepcopy(record)
    inner = place
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value

    assert whole == []
    assert [missing.startswith(said) for missing in incomplete(place)] == [True]


def test_an_image_holds_the_sources_and_the_libraries(record: dict):
    """Without git and lock a version made in a named image can be made again from it."""
    record["code"]["git"] = None
    record["environment"]["lock"] = None

    assert len(incomplete(record)) == 2
    assert incomplete({**record, "image": "registry/train@sha256:1"}) == []


def test_a_model_trained_with_other_sources_than_are_listed_is_said(tmp_path: Path):
    """The commit and the files are the registering checkout's; the model's manifest is held to it.

    Both revisions are in the record, for whoever must find the sources.
    """
    held = inputs(tmp_path)
    other = {**held["model"].manifest, "code": "sha256:elsewhere"}
    held["model"] = Bundle(held["model"].path, other)

    made = lineage(load("digits"), held, rehearsal="", trained_by="trainer")

    here = code_revision(*workloads.sources("train", "digits"))
    assert made["training_code"] == {"recorded": "sha256:elsewhere", "here": here}
    assert [m for m in incomplete(made) if "was not trained with the sources listed" in m]


@given(st.dictionaries(st.sampled_from(["code", "data", "seed", "environment"]), st.just({})))
def test_of_nothing_everything_is_missing(held: dict):
    """An empty record is never complete, and asking does not fail."""
    assert len(incomplete(held)) == 5


def copied(folder: Path, edit: tuple[str, str]) -> Path:
    """Return a copy of the feature definitions, edited."""
    shutil.copytree(workloads.root() / "feature_repo", folder / "feature_repo")
    path = folder / "feature_repo" / "credit.py"
    text = path.read_text(encoding="utf-8")
    assert edit[0] in text
    path.write_text(text.replace(*edit), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (("timedelta(days=62)", "timedelta(days=31)"), {"credit.client_month"}),
        (('name="credit_v1"', 'name="credit_v2"'), {"credit.credit_v1"}),
        (("ttl=timedelta(days=62),", "ttl=timedelta(days=62),  # two months"), set()),
    ],
    ids=["a view", "a service", "a comment"],
)
def test_a_definition_s_hash_changes_with_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str], changed: set[str]
):
    """Comments do not enter it, nor entities of other workloads."""
    before = features("credit")
    root = copied(tmp_path, edit)
    monkeypatch.setattr(workloads, "root", lambda: root)

    after = features("credit")

    assert {name for name in before if before[name] != after[name]} == changed
    assert "entities.client" in before
    assert "entities.capture" not in before


def test_sources_are_hashed_one_by_one(tmp_path: Path):
    """Two versions can be compared file by file without git."""
    for name in ("penstock/a.py", "workloads/digits/model.py", "workloads/credit/model.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    assert list(files(tmp_path, "digits")) == ["penstock/a.py", "workloads/digits/model.py"]


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder, as somebody."""
    who = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_commit_is_checked_out_beside_the_checkout(tmp_path: Path):
    """Its files are there while they are needed; the checkout keeps its own."""
    root, at = tmp_path / "root", tmp_path / "at"
    root.mkdir()
    git(root, "init", "--quiet")
    revisions = []
    for text in ("one", "two"):
        (root / "a.py").write_text(text)
        git(root, "add", ".")
        git(root, "commit", "--quiet", "--message", f"say {text}")
        revisions.append(machine.git_revision(root))
    one, two = revisions

    with machine.checked_out(root, one, at=at) as source:
        assert (source / "a.py").read_text() == "one"
        assert (root / "a.py").read_text() == "two"

    assert not at.exists()
    assert machine.has_commit(root, one)
    assert not machine.has_commit(root, "0" * 40)
    assert machine.commits_between(root, one, two, ["a.py"]) == [f"{two[:7]} say two"]
    assert machine.commits_between(root, one, two, ["b.py"]) == []
    assert machine.commits_between(root, "0" * 40, two, ["a.py"]) == []
    with (
        pytest.raises(OSError, match="could not check out"),
        machine.checked_out(root, "0" * 40, at=at),
    ):
        pass
    (root / "a.py").write_text("three")
    assert machine.git_revision(root) == two + machine.CHANGES
