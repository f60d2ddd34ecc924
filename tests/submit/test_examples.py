"""Laws of the examples for CI: they are what the two systems take, safe, and call what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from penstock.cli.main import app
from penstock.workload import load

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / "docs" / "ci" / "github-actions.yml"
GITLAB = ROOT / "docs" / "ci" / "gitlab-ci.yml"
GUIDE = ROOT / "docs" / "how-to" / "run-from-ci.md"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def document(path: Path) -> Any:
    # YAML 1.1 reads GitHub's key "on" as true.
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


def steps() -> list[dict[str, Any]]:
    return [step for job in document(GITHUB)["jobs"].values() for step in job["steps"]]


def jobs() -> dict[str, Any]:
    return {name: job for name, job in document(GITLAB).items() if "script" in job}


def scripts() -> list[str]:
    """Return every script of both examples, and every command of the guide."""
    github = [step["run"] for step in steps() if "run" in step]
    gitlab = ["\n".join(job["script"]) for job in jobs().values()]
    guide = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [*github, *gitlab, *guide]


def commands(name: str) -> list[list[str]]:
    """Return every call of a program in them, as words."""
    lines = [line for text in scripts() for line in text.replace("\\\n", " ").splitlines()]
    found = [re.sub(r"^.*\|\| ", "", line.strip()) for line in lines]
    return [shlex.split(line, comments=True) for line in found if line.startswith(f"{name} ")]


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        (GITHUB, ["--builtin-schema", "vendor.github-workflows"]),
        (GITHUB, ["--builtin-schema", "custom.github-workflows-require-timeout"]),
        (GITLAB, ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]),
    ],
    ids=["github", "github's timeouts", "gitlab"],
)
def test_an_example_is_of_the_published_schema(path: Path, arguments: list[str]):
    """The schemas come with the checker: nothing is fetched."""
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [checker, *arguments, path], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "HTTPS_PROXY": "http://127.0.0.1:1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("typed", commands("penstock"), ids=" ".join)
def test_every_command_is_one_there_is(typed: list[str]):
    """Its verb, its options and their values; the workload and the profile that it names."""
    verb = typer.main.get_command(app).commands[typed[1]]  # pyright: ignore[reportAttributeAccessIssue]
    called = verb.make_context(typed[1], typed[2:]).params

    if called["workload"]:
        load(called["workload"])
    assert called["profile"] is None or (ROOT / called["profile"]).exists()


def test_both_examples_and_the_guide_submit():
    """A pattern that finds no command would find nothing wrong with any."""
    assert len(commands("penstock")) >= 9
    assert {typed[1] for typed in commands("make")} <= TARGETS


@pytest.mark.parametrize("script", scripts())
def test_scripts_are_clean_to_shellcheck(script: str, tmp_path: Path):
    (tmp_path / "script").write_text(f"#!/bin/sh\n{script}\n")
    checker = Path(sys.executable).parent / "shellcheck"
    # What the job's own activation script does is not there to follow.
    done = subprocess.run(
        [checker, "--exclude=SC1091", tmp_path / "script"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_actions_are_pinned_by_commit():
    """A tag can be moved by whoever owns it. The zeros are explained."""
    used = [step["uses"] for step in steps() if "uses" in step]

    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", one) for one in used)
    assert "`uses: …@`" in GUIDE.read_text()


def test_the_job_may_read_the_repository_and_nothing_else():
    workflow = document(GITHUB)

    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    assert not workflow["on"].keys() & {"pull_request", "pull_request_target", "issue_comment"}
    (checkout,) = [step for step in steps() if "actions/checkout" in step.get("uses", "")]
    assert checkout["with"]["persist-credentials"] == "false"


def test_no_text_from_outside_becomes_part_of_a_command():
    """An expression in a script is put in before the shell reads it."""
    assert [step["run"] for step in steps() if EXPRESSION.search(step.get("run", ""))] == []


def test_secrets_come_from_the_store_and_go_to_one_variable():
    """Not to a whole job, not to a command line, not to an action."""
    text = GITHUB.read_text()
    named = re.findall(r" (\w+): \$\{\{ secrets\.(\w+) \}\}$", text, re.MULTILINE)
    assert {name for name, _ in named} == {"PENSTOCK_KFP_TOKEN", "PENSTOCK_LEDGER"}
    assert all(variable == secret for variable, secret in named)
    assert text.count("secrets.") == len(named)
    for job in document(GITHUB)["jobs"].values():
        assert "env" not in job
    assert "env" not in document(GITHUB)
    for step in steps():
        assert "secrets." not in str(step.get("env")) or "run" in step
    for name, job in jobs().items():
        script = " ".join(job["script"])
        assert ("--token-file" in script) == (name == "train")
        assert "PENSTOCK_KFP_TOKEN" not in job.get("variables", {})


def test_what_runs_for_a_merge_request_sends_nothing():
    asked = [
        job["script"]
        for job in jobs().values()
        if any("merge_request" in rule["if"] for rule in job["rules"])
    ]

    assert asked
    assert all("--dry-run" in " ".join(script) for script in asked)


def test_images_are_pinned_by_digest():
    images = re.findall(r"image: (\S+)", GITLAB.read_text())

    assert images
    assert all(re.fullmatch(r"registry\.example\.com/\S+@sha256:[0-9a-f]{64}", i) for i in images)


def test_the_command_that_sends_nothing_runs_as_written(tmp_path: Path):
    """The others of the guide need a cluster, and say so."""
    (typed,) = [one for one in commands("penstock") if "--unpinned" in one]
    done = subprocess.run(
        [Path(sys.executable).parent / "penstock", *typed[1:]], cwd=ROOT, check=False,
        capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "nothing was sent" in done.stdout
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert all("--dry-run" in block or "# needs a cluster" in block for block in blocks)
