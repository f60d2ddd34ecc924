"""Rules of the repository itself: nothing that holds on one machine only, nothing unfinished."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {"__pycache__", "build", "dist", "node_modules"}
BINARY = {".png", ".onnx", ".parquet", ".safetensors", ".db", ".pyc"}


def sources() -> list[Path]:
    """Return every text file that belongs to the repository."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = parts[0].startswith(".") and parts[0] not in (".ci", ".gitignore")
        if hidden or SKIPPED & set(parts) or path.suffix in BINARY or not path.is_file():
            continue
        if not any(part.endswith(".egg-info") for part in parts):
            found.append(path)
    return found


SOURCES = sources()


def lines_with(pattern: str, *, skip: tuple[str, ...] = ()) -> list[str]:
    """Return ``file:line: text`` for every line a pattern is found in."""
    wanted = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in SOURCES
        if path.relative_to(ROOT).as_posix() not in skip
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if wanted.search(line)
    ]


THIS = "tests/house/test_repo.py"


def test_no_path_of_one_machine():
    """Paths every machine of the kind has (/usr/bin, /proc, /dev/null) are no such paths.

    Nor is the one where KServe mounts a model.
    """
    machine = r"(?<![\w.$}/])/(?:home|root|Users|work|opt|mnt(?!/models\b)|srv)/"
    assert lines_with(machine, skip=(THIS,)) == []


def test_no_registry_is_named():
    """Where packages come from is the machine's setting, not the repository's."""
    hosts = r"pypi\.org|pythonhosted\.org|anaconda\.(?:org|com)|download\.pytorch\.org"

    assert lines_with(r"--(?:extra-)?index-url", skip=(THIS,)) == []
    assert lines_with(hosts, skip=(THIS,)) == []
    assert re.findall(r"\w+://", (ROOT / "scripts/setup.sh").read_text()) == []


def test_a_todo_names_its_issue():
    assert lines_with(r"\b(?:TODO|FIXME|XXX)\b(?!\(#\d+\))", skip=(THIS, "pyproject.toml")) == []


def test_make_alone_prints_every_verb():
    # A make inside `make check` announces the folders it enters, among the verbs.
    command = ["make", "--no-print-directory"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    rules = set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))

    assert phony == rules
    assert {line.split()[1] for line in shown.splitlines()} == rules


@pytest.mark.parametrize("verb", ["setup", "run", "test", "check", "up", "down", "status", "lock"])
def test_a_verb_can_be_planned(verb):
    subprocess.run(["make", "-n", verb], cwd=ROOT, capture_output=True, check=True)


def test_ci_runs_the_checks_and_the_readme_test_command():
    script = (ROOT / ".ci/run").read_text()

    assert {"make check", "make test"} <= set(script.splitlines())
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("script", [".ci/run", "scripts/setup.sh", "scripts/lock.sh"])
def test_scripts_can_be_executed_and_stop_at_the_first_error(script):
    path = ROOT / script

    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()


def test_every_change_has_a_fragment_of_a_known_kind():
    names = [p.name for p in (ROOT / "changelog.d").iterdir() if not p.name.startswith(".")]

    assert [
        n for n in names if not re.fullmatch(r"\d+\.(added|changed|fixed|removed)\.md", n)
    ] == []
