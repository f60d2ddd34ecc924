"""What docs/how-to/release-on-a-cluster.md tells a person to type is what the code says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from penstock.rollout.adapters.first import first_objects
from penstock.rollout.adapters.gateway import Gateway
from penstock.rollout.adapters.istio import Istio
from penstock.rollout.adapters.places import FIELDS as KEYS
from penstock.rollout.adapters.places import read
from tests.rollout.adapters import published
from tests.rollout.adapters.stage import LABELS, PLACE

TEXT = (Path(__file__).parents[3] / "docs/how-to/release-on-a-cluster.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_places_file_and_the_first_objects_are_what_a_cluster_takes(tmp_path: Path):
    """As it stands there it is read, and what is printed of it is what the schemas allow."""
    (text,) = re.findall(r"<<'END'\n(.*?)^END", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "places.toml").write_text(text)

    where = read(tmp_path / "places.toml")["digits"]

    found = first_objects(where, rules=False)
    assert [o["metadata"]["name"] for o in found] == [
        "digits-kill",
        "digits-assigner",
        "digits",
        "digits-a",
        "digits-b",
    ]
    assert [published.wrong(o) for o in found] == [[]] * 5


def test_every_key_of_a_place_is_described():
    """A key that nobody reads of is a key that nobody uses."""
    told = set(re.findall(r"`(\w+)`", TEXT)) | set(re.findall(r"^(\w+) =", TEXT, re.MULTILINE))
    assert set(KEYS) - told == set()


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("httproute", Gateway(PLACE).throw()),
        ("virtualservice", Istio(PLACE, gateway_labels=LABELS).throw()),
    ],
)
def test_the_kill_commands_are_those_of_the_code(kind: str, command: list[str]):
    """Word for word: a person who copies one in the night must hit."""
    typed = [
        shlex.split(block.replace("\\\n", ""), comments=True)
        for block in blocks("sh")
        if f"patch {kind}" in block
    ]

    assert [[*t[:-1], json.loads(t[-1])] for t in typed] == [
        [*command[:-1], json.loads(command[-1])]
    ]
