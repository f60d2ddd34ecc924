"""Every command that a document tells a person to type is there; what can be run here, is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from penstock.cli.main import app
from tests.docs.commands import DOCUMENTS, HELD, ROOT, RUN_BY, Block, blocks, simple, spoken

BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
OURS = [b for b in BLOCKS if b.document in HELD and b.commands]
VERBS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"docs"}
CLOSED = "http://127.0.0.1:1"
"""Where no API server is."""

RUN_S = 120


def lines(program: str) -> list[Any]:
    """Return the commands of a program in all documents, each as a case of a test."""
    return [
        pytest.param(words, id=f"{block} {' '.join(words)}"[:90])
        for block in BLOCKS
        for words in block.commands
        if Path(words[0]).name == program and (words[0] == program or "venv" in words[0])
    ]


UsageError: Any = typer.BadParameter.__base__
"""Of the click that typer brings, which says it no other way."""


@cache
def penstock() -> Any:
    """Return the command line, as it is."""
    return typer.main.get_command(app)


def wrong(words: list[str]) -> str:
    """Return why our command line does not know a command; empty where it does.

    Words in capitals stand for what a person puts there, so values are not looked at.
    """
    command, rest = penstock(), words[1:]
    while hasattr(command, "commands"):
        if rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        elif rest == ["--help"] or (command.invoke_without_command and is_option(rest)):
            break
        else:
            return f"no command {' '.join(rest[:1])!r}"
    try:
        parser = command.make_parser(typer.Context(command))
        _, left, _ = parser.parse_args(list(rest))
    except UsageError as e:
        return e.format_message()
    return f"unexpected {left}" if left else ""


def is_option(words: list[str]) -> bool:
    """Return whether what follows a group is its own, and no verb of it."""
    return not words or words[0].startswith("-")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("penstock frobnicate digits", "no command 'frobnicate'"),
        ("penstock release", "no command ''"),
        ("penstock kill --whyever WHY", "--whyever"),
        ("penstock release stauts digits", "no command 'stauts'"),
        ("penstock status --colour", "--colour"),
        ("penstock compile digits streamrec", "streamrec"),
        ("penstock compile digits --out", "--out"),
        ("penstock compile digits --out FILE", ""),
        ("penstock release --help", ""),
    ],
)
def test_a_wrong_command_is_found(typed: str, said: str):
    """The check itself can fail: verbs, options and arguments that are not there."""
    found = wrong(typed.split())

    assert said in found
    assert bool(said) == bool(found)


def test_commands_are_taken_out_of_a_script():
    """Assignments, redirections, comments and words of the shell are none of a command."""
    script = "A=1 make run ARGS='x y' 2>&1 | tee out  # why\nif ls > f && \\\n  pwd; then id; fi"

    assert list(simple(script)) == [
        ["make", "run", "ARGS=x y"], ["tee", "out"], ["ls"], ["pwd"], ["id"], ["fi"],
    ]  # fmt: skip


@pytest.mark.parametrize("words", lines("penstock"))
def test_a_command_of_ours_is_there(words: list[str]):
    assert wrong(words) == ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_command_that_a_sentence_names_is_there(path: Path):
    assert {" ".join(words): wrong(words) for words in spoken(path) if wrong(words)} == {}


@pytest.mark.parametrize("words", lines("make"))
def test_a_verb_of_make_is_there(words: list[str]):
    assert len(words) == 1 or words[1] in VERBS


@pytest.mark.parametrize("words", lines("python"))
def test_a_module_that_is_run_is_there(words: list[str]):
    """``python -m`` names a module of this repository, or a tool of its environment."""
    name = words[words.index("-m") + 1] if "-m" in words else ""
    path = ROOT / name.replace(".", "/")
    known = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()

    assert known or (path / "__init__.py").is_file()


@pytest.mark.parametrize("block", OURS, ids=str)
def test_a_block_of_commands_says_that_it_is_one(block: Block):
    assert block.language == "sh"


@pytest.mark.parametrize("block", OURS, ids=str)
def test_the_shell_takes_it(block: Block):
    """Placeholders and all: a person fills them in and nothing else."""
    done = subprocess.run(
        ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""


@pytest.mark.parametrize("block", OURS, ids=str)
def test_what_asks_a_cluster_says_so(block: Block):
    asks = [w for w in block.commands if w[0] in ("kubectl", "helm") and w[1] != "kustomize"]

    assert not asks or block.needs


@pytest.mark.parametrize("block", OURS, ids=str)
def test_files_of_the_repository_that_are_named_are_there(block: Block):
    """Whatever begins with a folder of ours, and holds no placeholder."""
    words = [word.rsplit("=", 1)[-1] for command in block.commands for word in command]
    paths = [w for w in words if w.split("/")[0] in FOLDERS and "/" in w and w == w.lower()]

    assert [path for path in paths if not (ROOT / path).exists()] == []


def objects() -> list[Any]:
    """Return the objects of Kubernetes that documents show, as cases of a test."""
    held = [block for path in DOCUMENTS for block in blocks(path, languages=("yaml",))]
    found = [(b, o) for b in held for o in yaml.safe_load_all(b.text) if "apiVersion" in (o or {})]
    return [pytest.param(o, id=f"{b} {o['kind']}") for b, o in found if b.document in HELD]


@pytest.mark.parametrize("shown", objects())
def test_an_object_that_is_shown_is_one(shown: dict[str, Any]):
    """By Kubernetes' own schemas; a field that it does not know is a mistake."""
    kubernetes_validate.validate(shown, kubernetes_validate.latest_version(), strict=True)


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a configuration of kubectl by which it finds nobody."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, by which the documents' commands are read")
    path = tmp_path_factory.mktemp("kube") / "config"
    cluster = {"name": "none", "cluster": {"server": CLOSED}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "none", "clusters": [cluster],
        "contexts": [context], "users": [{"name": "none", "user": {}}],
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def read_by_kubectl(words: list[str], config: Path) -> str:
    """Return what kubectl does not understand of a command; it finds no cluster to do it in."""
    done = subprocess.run(
        words, cwd=ROOT, env={"PATH": os.environ["PATH"], "KUBECONFIG": str(config)},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    said = re.search(
        r"unknown (?:flag|command|shorthand flag)[^\n]*|required flag[^\n]*|flag needs[^\n]*"
        r"|exactly [^\n]* required|must specify[^\n]*",
        done.stderr,
    )
    return said[0] if said else ""


@pytest.mark.parametrize(
    "typed", ["kubectl get pods --colour", "kubectl frobnicate", "kubectl rollout statuss a/b"]
)
def test_a_wrong_command_of_kubectl_is_found(nowhere: Path, typed: str):
    assert read_by_kubectl(typed.split(), nowhere) != ""


@pytest.mark.parametrize("words", lines("kubectl"))
def test_kubectl_understands_it(nowhere: Path, words: list[str]):
    assert read_by_kubectl(words, nowhere) == ""


def documents() -> list[Any]:
    """Return the documents whose unmarked blocks are run here, as cases of a test."""
    of = {name: [b for b in OURS if b.document == name and not b.needs] for name in HELD}
    return [pytest.param(b, id=name) for name, b in of.items() if b and name not in RUN_BY]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder that has what a checkout has, and into which may be written."""
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "shared":
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("held", documents())
def test_commands_of_a_document_run(checkout: Path, held: list[Block]):
    """As they stand there, one after the other, on a machine without a cluster."""
    script = "set -euo pipefail\n" + "\n".join(block.text for block in held)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {
        "PATH": path, "HOME": str(checkout), "PENSTOCK_HOME": str(checkout / ".penstock"),
        "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip

    done = subprocess.run(
        ["bash"], input=script, cwd=checkout, env=env, capture_output=True, text=True,
        timeout=RUN_S, check=False,
    )  # fmt: skip

    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("document", "test"), RUN_BY.items())
def test_another_test_that_runs_a_document_names_it(document: str, test: str):
    assert Path(document).name in (ROOT / test).read_text()
