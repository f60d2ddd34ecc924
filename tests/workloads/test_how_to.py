"""The how-to adds a workload: its files, written into a checkout, and its commands, run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.workload import root

FOLDERS = (
    "penstock",
    "workloads",
    "feature_repo",
    "components",
    "pipelines",
    "requirements",
    "serving",
)
PAGE = (root() / "docs/how-to/add-a-workload.md").read_text()
FILE = re.compile(r"^`(\S+\.py)`\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MORE = re.compile(r"^append to `(\S+\.py)`\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def follow(commands: str, here: Path) -> None:
    """Run the page's commands in a checkout."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "MLFLOW_"))}
    main = "import sys; from penstock.cli.main import main; sys.exit(main())"
    for command in commands.splitlines():
        _, *arguments = command.split()
        done = subprocess.run(
            [sys.executable, "-c", main, *arguments],
            cwd=here, env={**keep, "PYTHONPATH": str(here)},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, command + done.stdout + done.stderr


def append(name: str, more: str, here: Path) -> None:
    """Write lines below a file's own."""
    (here / name).write_text((here / name).read_text() + more)


def outcome(bundle: Path) -> str:
    """Return how a stage ended."""
    return json.loads((bundle / "manifest.json").read_text())["summary"]["outcome"]


def test_a_stranger_who_follows_it_has_a_fourth_workload(tmp_path: Path):
    """Data, a network up to its ladder, a registered version: all copied from the page."""
    files = FILE.findall(PAGE)
    data_first, then_network, then_all = [held for kind, held in BLOCK.findall(PAGE) if not kind]
    here = tmp_path / "checkout"
    for folder in FOLDERS:
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root() / folder, here / folder, ignore=without)
    assert [name for name, _ in files] == [
        "workloads/parcels/workload.py", "workloads/parcels/data.py", "feature_repo/parcels.py",
        "workloads/parcels/transform.py", "workloads/parcels/model.py",
        "workloads/parcels/behaviour.py",
    ]  # fmt: skip
    for name, held in files:
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(held)
    (here / "workloads/parcels/__init__.py").touch()
    follow(data_first, here)

    proof = json.loads((here / "snapshot/proof.json").read_text())
    assert proof["rows"]["train"] > 1_000
    assert proof["views"][0]["found"] > 1_800
    assert json.loads((here / "checked/verdict.json").read_text())["outcome"] == "pass"

    network, release = MORE.findall(PAGE)
    append(*network, here)
    follow(then_network, here)

    made = ("model", "graph", "int8", "engine", "ladder")
    assert {name: outcome(here / name) for name in made} == dict.fromkeys(made, "pass")

    append(*release, here)
    follow(then_all, here)

    (run,) = (here / ".penstock/runs").glob("*/run.json")
    record = json.loads(run.read_text())
    assert (record["outcome"], record["version"]) == ("registered", 1)


@pytest.mark.parametrize("name", ["streamrec", "credit", "digits"])
def test_every_workload_has_what_the_page_asks_for(name: str):
    """A declaration, data, a network with its transform, features and a card."""
    parts = ("workload.py", "data.py", "transform.py", "model.py", "README.md")
    wanted = [f"workloads/{name}/{f}" for f in parts]

    assert [f for f in [*wanted, f"feature_repo/{name}.py"] if not (root() / f).is_file()] == []
