"""Laws of reproduction: the same sources make the same contents; another seed is seen at train."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock import workload as workloads
from penstock.bundle import Bundle, hash_file, read
from penstock.machine import environment, git_revision
from penstock.register import reproduce as module
from penstock.register.lineage import _stage, files
from penstock.register.reproduce import Reproduction, Row, reproduce
from penstock.stage import Refused

PARTS = ("penstock", "feature_repo", "workloads")


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder, as somebody."""
    who = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the library, whose digits are trained for one epoch to save time."""
    root = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        shutil.copytree(workloads.root() / part, root / part, ignore=ignored)
    declared = root / "workloads" / "digits" / "workload.py"
    text = declared.read_text(encoding="utf-8")
    shorter = text.replace("epochs=10", "epochs=1, proof_steps=2").replace(
        "examples=320", "examples=32, calibrators=('minmax',), max_float_layers=0"
    )
    assert "proof_steps=2" in shorter
    assert "max_float_layers=0" in shorter
    declared.write_text(shorter, encoding="utf-8")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "as it was")
    return root


def built(checkout: Path, scratch: Path) -> dict[str, Bundle]:
    """Return the bundles of a first run of the stages, each by its name in a lineage."""
    found: dict[str, Bundle] = {}
    unknown = {"files": {}, "inputs": {}, "digest": "", "kind": "int8"}
    record = {"workload": "digits", "seed": 42, "stages": {"serving": unknown}}
    for step in module.steps(record):
        row = module._made_again(step, record, checkout, scratch, ())
        assert row.rebuilt is not None, row.note
        found[step.stage] = read(scratch / step.stage)
    return found


@pytest.fixture(scope="module")
def recorded(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a package says of a version that was made from the repository."""
    bundles = built(checkout, tmp_path_factory.mktemp("first"))
    stages = {n: _stage(b) for n, b in bundles.items() if n != "onnx"}
    return {
        "workload": "digits",
        "seed": 42,
        "code": {"git": git_revision(checkout), "sources": ""},
        "files": files(checkout, "digits"),
        "data_source": bundles["snapshot"].manifest["settings"]["data"],
        "environment": environment(checkout),
        "stages": stages,
        "choices": {"serve": "int8"},
        "model": hash_file(bundles["serving"].file("model.int8-cpu.onnx")),
    }


def test_the_recorded_commit_makes_the_same_contents(
    checkout: Path, recorded: dict[str, Any], tmp_path: Path
):
    """Every stage and the graph that serves, though the checkout has moved on since.

    Trained with another seed on the same rows, the model is the first that differs.
    """
    edited = checkout / "workloads" / "digits" / "model.py"
    before = edited.read_bytes()
    edited.write_bytes(before + b"\n# moved on\n")
    heard: list[str] = []
    try:
        found = reproduce(
            recorded, root=checkout, scratch=tmp_path, heard=lambda verb, _: heard.append(verb)
        )
    finally:
        edited.write_bytes(before)
    shutil.rmtree(tmp_path / "model")
    train = next(step for step in module.steps(recorded) if step.verb == "train")
    reseeded = module._made_again(train, {**recorded, "seed": 43}, checkout, tmp_path, found.rows)

    assert found.same, found
    assert found.sources.startswith(f"commit {recorded['code']['git'][:9]}")
    assert {row.artifact: row.same for row in found.rows} == {
        "features": True,
        "datachecks": True,
        "train": True,
        "export": None,
        "quantize": True,
        "model.onnx": True,
    }
    assert heard[::2] == ["features", "datachecks", "train", "export", "quantize"]
    assert not (tmp_path / "source").exists()
    assert reseeded.same is False
    assert "model.safetensors" in reseeded.note
    assert "the first that differs" in reseeded.note


def changed(recorded: dict[str, Any], **over: Any) -> dict[str, Any]:
    """Return a record with fields replaced."""
    return {**copy.deepcopy(recorded), **over}


def test_other_sources_are_refused_and_named(
    checkout: Path, recorded: dict[str, Any], tmp_path: Path
):
    """What was recorded with changes that no commit holds cannot be had; the files are named."""
    other = {**recorded["files"], "penstock/train/loop.py": "sha256:0"}
    commit = recorded["code"]["git"]
    for code, said in (
        (commit + "+changes", "changes that no commit holds"),
        (None, "no commit is recorded"),
        ("0" * 40, "is not in this checkout; fetch it"),
        (commit, "holds others"),
    ):
        record = changed(recorded, files=other, code={"git": code})
        (sentence,) = module._other_code(record, checkout, checkout)
        assert "penstock/train/loop.py" in sentence
        assert said in sentence
    with pytest.raises(Refused, match=r"penstock/train/loop\.py differ"):
        reproduce(record, root=checkout, scratch=tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_surroundings_are_refused_and_named(
    checkout: Path, recorded: dict[str, Any], tmp_path: Path
):
    """A library, the processor and the data source, each with both values."""
    here = recorded["environment"]
    libraries = {**here["libraries"], "torch": "1.0"}
    other = changed(
        recorded,
        environment={**here, "libraries": libraries, "machine": "abacus"},
        data_source={"seed": 8},
    )

    with pytest.raises(Refused) as refused:
        reproduce(other, root=checkout, scratch=tmp_path)

    for said in (f"torch {here['libraries']['torch']} for 1.0", "recorded abacus", "{'seed': 8}"):
        assert said in str(refused.value)


def test_a_source_that_takes_no_part_may_differ(
    checkout: Path, recorded: dict[str, Any], tmp_path: Path
):
    """A report drawn otherwise makes no other model."""
    other = changed(recorded, files={**recorded["files"], "penstock/report/page.py": "sha256:0"})

    assert module._other_code(other, checkout, checkout) == []


def test_a_record_without_stages_is_refused(tmp_path: Path):
    """An older version cannot be compared with anything."""
    with pytest.raises(Refused, match="only newer versions"):
        reproduce({"workload": "digits"}, root=tmp_path, scratch=tmp_path)


def test_nothing_compared_is_nothing_reproduced():
    """No evidence is never a pass."""
    row = Row(artifact="export", recorded=None, rebuilt="sha256:1", same=None)

    assert not Reproduction(rows=(row,), sources="here", differs=()).same
    assert not Reproduction(rows=(), sources="here", differs=()).same


def test_a_rebuilding_stage_sees_no_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What is taken from a store was not made again."""
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path))

    done = module._run(["import os; print(sorted(os.environ))"], tmp_path)

    assert "PENSTOCK_STORE" not in done.stdout
    assert "PYTHONPATH" in done.stdout
