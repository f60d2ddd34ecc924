"""What README and the other documents say is so."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
VERBS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
PIPELINE_STAGES = {
    "features",
    "datachecks",
    "train",
    "export",
    "quantize",
    "engine",
    "equivalence",
    "gate",
    "register",
}

DOCUMENTS = sorted(
    p
    for p in ROOT.rglob("*.md")
    if not any(
        part.startswith((".venv", ".penstock", ".git", ".hyp", ".pytest")) for part in p.parts
    )
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
READ_FIRST = re.findall(r"^\| \[([^\]]+)\]\(\1\) \| (.+) \|$", README, re.MULTILINE)
STAGE_ROWS = re.findall(
    r"^\| (\w+) \|", README.partition("## The stages")[2].partition("\n## ")[0], re.MULTILINE
)[1:]


def commands(text: str) -> list[str]:
    """Return the lines of all fenced blocks that call make or penstock."""
    blocks = re.findall(r"^ *```(?:\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(make|penstock) ", line)]


def anchors(document: Path) -> set[str]:
    """Return the anchors a reader's browser knows for a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    broken = []
    for target in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_is_a_verb_there_is(document):
    unknown = [
        line
        for line in commands(document.read_text())
        if line.startswith("make ") and line.split()[1] not in VERBS
    ]

    assert unknown == []


def test_the_commands_of_the_readme_are_there():
    assert {"make run", "make test", "make up"} <= {
        " ".join(c.split()[:2]) for c in commands(README)
    }


@pytest.mark.parametrize("verb", ["run", "up", "down", "status", "logs"])
def test_a_verb_of_the_makefile_is_a_verb_of_the_command_line(verb):
    shown = subprocess.run(
        [ROOT / ".venv/bin/penstock", verb, "--help"], capture_output=True, text=True, check=False
    )

    assert shown.returncode == 0, shown.stderr


GROUPS = ("release", "predictions", "ledger", "lineage")
"""Verbs that have verbs of their own."""


def options_by_verb() -> dict[str, set[str]]:
    """Return, of each verb that the README types with options, those options."""
    found: dict[str, set[str]] = {}
    for line in commands(README):
        typed = line.split()
        verb = typed[1] if line.startswith("penstock ") else "run"
        if verb in GROUPS:
            verb += f" {typed[2]}"
        if options := re.findall(r"--[a-z-]+", line.partition("#")[0]):
            found.setdefault(verb, set()).update(options)
    return found


@pytest.mark.parametrize("verb", sorted(options_by_verb()))
def test_the_options_the_readme_uses_are_there(verb: str):
    shown = subprocess.run(
        [ROOT / ".venv/bin/penstock", *verb.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "TERM": "dumb"},
    )

    assert {o for o in options_by_verb()[verb] if o not in shown.stdout} == set()


def test_seven_files_are_read_first():
    assert len(READ_FIRST) == 7


@pytest.mark.parametrize(("path", "says"), READ_FIRST, ids=[path for path, _ in READ_FIRST])
def test_the_readme_says_of_a_file_what_the_file_says_of_itself(path, says):
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text()))

    assert docstring is not None
    assert says == docstring.splitlines()[0]


@pytest.mark.parametrize("stage", STAGE_ROWS)
def test_a_stage_has_its_package_its_component_and_its_tests(stage):
    assert (ROOT / "penstock" / stage / "__init__.py").exists()
    assert (ROOT / "tests" / stage).is_dir()
    if stage in PIPELINE_STAGES:
        assert (ROOT / "components" / stage / "component.py").exists()


def test_every_stage_of_the_pipeline_has_its_row():
    assert set(STAGE_ROWS) >= PIPELINE_STAGES
