"""Laws of the command: a verb per stage does the stage's work, and mistakes get one sentence."""

from __future__ import annotations

import os
import socket
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
        (("up",), "digits has no champion yet; release one: penstock run digits"),
        (("up", "digit"), "no workload 'digit'"),
    ],
    ids=[
        "run of a misspelt workload",
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
    assert "datachecks: pass: " in passed.stdout
    assert "::penstock" not in passed.stdout + refused.stdout
    assert read(tmp_path / "a", kind="data-verdict").summary.outcome == "pass"
    assert refused.returncode == 3
    assert "3 rows, at least 500" in refused.stderr


def test_what_is_there_is_not_written_over(tmp_path: Path):
    """A folder named by mistake keeps its files."""
    good = bundles.snapshot(tmp_path / "good")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    log = tmp_path / "served.jsonl"
    log.write_text("")
    snapshot = ("--snapshot", str(good), "--out", str(mine))

    for arguments in (
        ("datachecks", "--workload", "digits", *snapshot),
        ("skew", "digits", "--served", str(log), *snapshot),
    ):
        done = penstock(tmp_path, *arguments)
        assert (done.returncode, "mine exists; name a folder" in done.stderr) == (2, True)
    assert (mine / "notes.txt").read_text() == "keep"


def test_another_workload_s_snapshot_is_refused(tmp_path: Path):
    """Its columns may be alike, what it is about is not."""
    good = bundles.snapshot(tmp_path / "good")
    log = tmp_path / "served.jsonl"
    log.write_text("")

    done = penstock(
        tmp_path, "skew", "credit", "--snapshot", str(good), "--served", str(log),
        "--out", str(tmp_path / "out"),
    )  # fmt: skip

    assert done.returncode == 2
    assert "is of 'digits', not of 'credit'" in done.stderr


def test_a_port_that_cannot_be_used_is_said_before_any_work(tmp_path: Path):
    """Nothing is carried through the stages to fail at the end."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = penstock(tmp_path, "run", "digits", "--port", str(port))

    assert done.returncode == 2
    assert f"port {port} is in use; choose another with --port" in done.stderr
    assert not list(tmp_path.glob("**/runs/*/run.log"))
    assert penstock(tmp_path, "run", "digits", "--port", "99999").returncode == 2


@pytest.mark.parametrize("verb", [(), ("verify",), ("export", "--out", "ledger.jsonl")])
def test_a_home_without_a_ledger_has_nothing_that_could_be_whole(
    tmp_path: Path, verb: tuple[str, ...]
):
    """A home that was misspelt must not look like one whose record is in order."""
    done = penstock(tmp_path, "ledger", *verb)

    assert done.returncode == 2
    assert "no ledger at" in done.stderr
    assert not (tmp_path / "ledger.db").exists()


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
