"""The locks agree with pyproject.toml and with each other, and say what, never from where."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASE = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
FILES = sorted(FOLDER.glob("*.txt"))

WANTED = {
    "all": [*BASE, *(r for extra in EXTRAS.values() for r in extra), *GROUPS["dev"]],
    "uv": GROUPS["bootstrap"],
    "stores": GROUPS["stores"],
    "rtx": GROUPS["rtx"],
    **{name: [*BASE, *extra] for name, extra in EXTRAS.items()},
}


def entries(path: Path) -> list[str]:
    """Return a lock's logical lines, comments left out."""
    text = path.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins(path: Path) -> dict[str, Version]:
    """Return the version of every package a lock names."""
    found = [re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", line) for line in entries(path)]
    return {canonicalize_name(m[1]): Version(m[2]) for m in found if m}


def test_there_is_one_lock_for_each_extra_and_optional_group_one_for_all_and_one_for_uv():
    assert {path.stem for path in FILES} == set(WANTED)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_line_is_a_pin_with_hashes(path):
    pin = re.compile(r"^[A-Za-z0-9._\[\],-]+==\S+( ;[^#]*?)? +(--hash=sha256:[0-9a-f]{64} *)+$")

    assert [line for line in entries(path) if not pin.match(line)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_no_lock_says_where_to_fetch_from(path):
    assert re.findall(r"://|--(?:extra-)?index|--find-links|--trusted-host", path.read_text()) == []


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_holds_what_pyproject_asks_for(name):
    """Stands in for resolving again, which would need the network."""
    locked = pins(FOLDER / f"{name}.txt")
    for requirement in map(Requirement, WANTED[name]):
        version = locked.get(canonicalize_name(requirement.name))

        assert version is not None, f"{requirement.name} is not in {name}.txt: run make lock"
        assert requirement.specifier.contains(version), f"{requirement}: run make lock"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_no_two_locks_disagree(path):
    here, everywhere = pins(path), pins(FOLDER / "all.txt")
    optional = path.stem in ("stores", "rtx")
    shared = here.keys() & everywhere.keys() if optional else here
    assert {n: here[n] for n in shared}.items() <= everywhere.items()


def test_the_local_runner_of_pipelines_takes_one_branch_of_a_condition():
    """Below 2.17 it ran both, and a rejected model would have been registered."""
    assert pins(FOLDER / "all.txt")["kfp"] >= Version("2.17")


def test_the_environment_is_the_lock():
    """``make setup`` leaves what is locked; anything else was installed by hand."""
    from importlib.metadata import distributions  # noqa: PLC0415 - slow, and only here

    installed = {canonicalize_name(d.name): Version(d.version) for d in distributions()}
    locked = pins(FOLDER / "all.txt")
    wrong = {
        n: (installed[n], v) for n, v in locked.items() if n in installed and installed[n] != v
    }

    assert wrong == {}
