"""Laws of the command: a verb per stage does the stage's work, and mistakes get one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from penstock.bundle import read
from penstock.cli.stages import STAGES
from tests import bundles


def penstock(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a home."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "penstock"), *arguments],
        env={**os.environ, "PENSTOCK_HOME": str(home), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_verb(tmp_path: Path):
    """One verb per stage, and those around a run."""
    shown = penstock(tmp_path, "--help").stdout

    for verb in (*STAGES, "run", "up", "down", "status", "ledger", "compile"):
        assert f" {verb} " in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "digit"), "no workload 'digit'; there is credit, digits, streamrec"),
        (("run", "credit"), "declares its data and no model yet"),
        (("up",), "digits has no champion yet; release one: penstock run digits"),
        (("up", "digit"), "no workload 'digit'"),
    ],
    ids=[
        "run of a misspelt workload",
        "run of data alone",
        "up with no champion",
        "up of an unknown workload",
    ],
)
def test_a_mistake_gets_one_sentence_and_its_code(
    tmp_path: Path, arguments: tuple[str, ...], said: str
):
    """No traceback: what came and what to do."""
    done = penstock(tmp_path, *arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_stage_is_repeated_by_hand(tmp_path: Path):
    """The verb of a stage takes folders and leaves its bundle; what it refuses exits with 3."""
    good = bundles.snapshot(tmp_path / "good")
    small = bundles.snapshot(tmp_path / "small", train=bundles.rows().slice(0, 3))
    arguments = ("datachecks", "--workload", "digits", "--out")

    passed = penstock(tmp_path, *arguments, str(tmp_path / "a"), "--snapshot", str(good))
    refused = penstock(tmp_path, *arguments, str(tmp_path / "b"), "--snapshot", str(small))

    assert passed.returncode == 0, passed.stderr
    assert read(tmp_path / "a", kind="data-verdict").summary.outcome == "pass"
    assert refused.returncode == 3
    assert "3 rows, at least 500" in refused.stderr


def test_the_ledger_of_an_empty_home_is_whole(tmp_path: Path):
    """Nothing happened yet, and that can be verified."""
    done = penstock(tmp_path, "ledger")

    assert done.returncode == 0, done.stderr
    assert "0 entries, chain whole" in done.stdout


def test_status_and_down_with_nothing_running(tmp_path: Path):
    """Both say so; status has its own code for scripts."""
    assert penstock(tmp_path, "status").returncode == 1
    down = penstock(tmp_path, "down")
    assert (down.returncode, down.stdout.strip()) == (0, "nothing is running")


def test_compile_writes_what_kubeflow_takes(tmp_path: Path):
    """The file names the pipeline and every stage."""
    out = tmp_path / "digits.yaml"

    done = penstock(tmp_path, "compile", "digits", "--out", str(out))

    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    document = yaml.safe_load(text.split("\n---\n")[0])
    assert document["pipelineInfo"]["name"] == "train-digits"
    assert {f"comp-{stage}" for stage in STAGES} <= set(document["components"])
