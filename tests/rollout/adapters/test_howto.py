"""What docs/how-to/release-on-a-cluster.md tells a person to type is what the code says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from penstock.rollout.adapters.gateway import Gateway
from penstock.rollout.adapters.istio import Istio
from tests.rollout.adapters import published
from tests.rollout.adapters.stage import LABELS, PLACE

TEXT = (Path(__file__).parents[3] / "docs/how-to/release-on-a-cluster.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_snippet_writes_what_a_cluster_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run as it stands there, it writes the objects to create."""
    monkeypatch.chdir(tmp_path)
    (snippet,) = blocks("python")

    exec(compile(snippet, "release-on-a-cluster.md", "exec"), {})

    found = json.loads((tmp_path / "routes.json").read_text())
    assert [o["metadata"]["name"] for o in found["items"]] == [
        "digits-kill",
        "digits-assigner",
        "digits",
    ]
    assert [published.wrong(o) for o in found["items"]] == [[], [], []]


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
        shlex.split(block.replace("\\\n", "")) for block in blocks("sh") if f"patch {kind}" in block
    ]

    assert [[*t[:-1], json.loads(t[-1])] for t in typed] == [
        [*command[:-1], json.loads(command[-1])]
    ]
