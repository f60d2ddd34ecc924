"""Laws of ``penstock submit``: what people and jobs see, with the real pipeline and process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.main import main
from penstock.cli.submitted import EXIT
from penstock.ledger import REGISTERED, Ledger, Stage
from pipelines.submission import runs, versions
from pipelines.submission.ended import Outcome
from pipelines.submission.service import Service
from tests.people import person
from tests.submit.kubeflow import Kubeflow, becomes
from tests.submit.test_runs import wanted
from tests.submit.web import Server

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "run-from-ci.md"
IMAGE = f"registry.example.com/penstock-python@sha256:{'0' * 64}"
PINNED = {f"PENSTOCK_IMAGE_{group}": IMAGE for group in ("DATA", "TRAIN", "ENGINE", "CONTROL")}
NOW = datetime(2026, 11, 22, tzinfo=UTC)
TOKEN = "eyJhbGciOiJSUzI1NiJ9.a-token-that-nobody-may-see"


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "penstock"), "submit", *arguments]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "GITHUB_"))}
    home = {"PENSTOCK_HOME": str(tmp_path / "home"), "COLUMNS": "160", "NO_COLOR": "1"}
    return {**kept, **home, **more}


def penstock(tmp_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(tmp_path, **more),
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class Done:
    """How a call in this process ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Call:
    """Call the command here, which spares the seconds that it takes to start."""

    def call(*arguments: str, **more: str) -> Done:
        monkeypatch.setattr(sys, "argv", command(*arguments))
        monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return call


def test_every_end_has_an_exit_code_of_its_own():
    """What can end otherwise would end as a traceback; only good ends share a code."""
    assert EXIT.keys() == {*map(str, Outcome), "interrupted"}
    bad = [code for code in EXIT.values() if code]
    assert len(bad) == len(set(bad))


def test_the_exit_codes_are_those_of_the_guide_and_of_the_help(called: Call):
    rows = re.findall(r"^\| (\d+) \| ([\w, ]+) \|", GUIDE.read_text(), re.MULTILINE)
    written = {name: int(code) for code, names in rows for name in names.split(", ")}
    assert written == EXIT

    shown = " ".join(called("--help").out.split())
    (codes,) = re.findall(r"Exit codes: ([^│╭]+?)\.", shown)
    assert {int(code) for code in re.findall(r"\b\d+\b", codes)} == set(EXIT.values())


def test_a_run_from_ci_to_its_end(server: Server, kubeflow: Kubeflow, tmp_path: Path):
    """The real pipeline: compiled, checked, uploaded, run, followed, rejected, and all said."""
    kubeflow.script = [
        becomes("RUNNING", features="RUNNING"),
        becomes("FAILED", features="SUCCEEDED", gate="SUCCEEDED", reject="FAILED"),
    ]
    kubeflow.logs["wf-system-container-303"] = "penstock.stage.Refused: gate is fail: `worse`\n"
    (tmp_path / "p.toml").write_text("seed = 7\n")
    done = penstock(
        tmp_path,
        *("digits", "--host", server.url, "--params", str(tmp_path / "p.toml")),
        *("--wait", "60", "--every", "1", "--json", str(tmp_path / "run.json")),
        GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"),
        PENSTOCK_REVISION="3f2a1c9e0b12",
        **PINNED,
    )

    assert done.returncode == 3, done.stdout + done.stderr
    (run,), (version,) = kubeflow.runs, kubeflow.versions
    kept = json.loads((tmp_path / "run.json").read_text())
    url = f"{server.url}/#/runs/details/{run['run_id']}"
    assert (kept["outcome"], kept["run_id"], kept["url"]) == ("rejected", run["run_id"], url)
    assert kept["reason"] == "step reject failed: gate is fail: `worse`"
    assert kept["version"] == version["name"]
    assert kept["version"].startswith("3f2a1c9e0b12-")
    assert kept["parameters"] == run["runtime_config"]["parameters"]
    assert kept["parameters"]["seed"] == 7
    assert kept["steps"] == {"features": "SUCCEEDED", "gate": "SUCCEEDED", "reject": "FAILED"}
    for text in (url, version["name"], "seed=7", "features", "rejected: step reject failed"):
        assert text in done.stdout
    summary = (tmp_path / "summary.md").read_text()
    assert f"[run]({url})" in summary
    assert "`rejected: step reject failed: gate is fail: 'worse'`" in summary


@pytest.fixture
def run_id(service: Service, tmp_path: Path, file: Path) -> str:
    assert versions.name_of(file.read_text())
    return runs.made(service, wanted(service, file))[0].run_id


def test_a_token_that_is_refused_has_its_code_and_is_shown_nowhere(
    called: Call, server: Server, run_id: str, tmp_path: Path
):
    """The server repeats it in its answer, as some do."""
    server.token = "another"
    kept = tmp_path / "run.json"
    done = called(
        *("--follow", run_id, "--host", server.url, "--json", str(kept)),
        PENSTOCK_KFP_TOKEN=TOKEN,
        GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"),
    )

    assert done.code == EXIT["not allowed"]
    assert f"Bearer {TOKEN}" in server.tokens
    everything = done.out + done.err + kept.read_text()
    assert TOKEN not in everything + (tmp_path / "summary.md").read_text()
    assert "Bearer ***" in done.out


def test_an_interruption_ends_the_waiting_and_not_the_run(
    server: Server, kubeflow: Kubeflow, run_id: str, tmp_path: Path
):
    """What to type to follow or to end it is said; the process that asked is gone."""
    kubeflow.script = [becomes("RUNNING", train="RUNNING")]
    following = command("--follow", run_id, "--host", server.url, "--every", "1")
    with subprocess.Popen(
        following, env=environment(tmp_path), stdout=subprocess.PIPE, text=True, process_group=0
    ) as process:
        assert process.stdout is not None
        while "train" not in process.stdout.readline():
            assert process.poll() is None
        # As a terminal does it: to everybody in front of it.
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read()

    assert process.returncode == 130
    assert f"submit --follow {run_id}" in said
    assert f"submit --cancel {run_id}" in said
    assert kubeflow.runs[0]["state"] == "RUNNING"
    looks = server.count("GET .*/runs/")
    time.sleep(1.5)
    assert server.count("GET .*/runs/") == looks


def test_a_run_is_cancelled_by_its_id(
    called: Call, server: Server, kubeflow: Kubeflow, run_id: str
):
    done = called("--cancel", run_id, PENSTOCK_KFP_HOST=server.url)

    assert kubeflow.runs[0]["state"] == "CANCELING"
    assert (done.code, "stopping" in done.out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digit"], "no workload 'digit'"),
        ([], "no workload ''"),
        (["digits", "--dry-run", "--cron", "0 0 2 * * *"], "leave one"),
        (["digits", "--cron", "0 0 2 * * *", "--wait", "9"], "--wait came, and is of no use"),
        (["digits", "--cron", "0 0 2 * * *", "--once", "k"], "--once came, and is of no use"),
        (["digits", "--recurring-name", "nightly"], "--recurring-name came, and is of no use"),
        (["digits", "--disable", "-p", "seed=7"], "-p came, and is of no use"),
        (["digits", "--dry-run", "--json", "none/run.json"], "a file in a folder that is there"),
        (["--cancel", "x", "--params", "p.toml"], "--params came, and is of no use"),
        (["--follow", "x"], "say --host"),
        (["--follow", "x", "--host", "kubeflow"], "http://… or https://… was wanted"),
    ],
)
def test_a_wrong_call_gets_one_sentence(called: Call, arguments: list[str], said: str):
    done = called(*arguments)

    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def served(url: str, package: str) -> None:
    """Write a ledger in which version 1 serves."""
    with contextlib.closing(Ledger(url)) as ledger:
        named: dict[str, Any] = {"workload": "digits", "version": 1, "actor": person()}
        body = {"package": package, "digest": "sha256:0", "fingerprint": "digits-0"}
        ledger.append(**named, kind=REGISTERED, body=body, now=NOW)
        for stage in (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION):
            ledger.move(**named, to=stage, reason="a test", now=NOW)


def test_whoever_serves_is_named_where_the_ledger_is_known(called: Call, tmp_path: Path):
    """By the address of its package."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    served(url, "s3://models/digits/abc")
    done = called("digits", "--dry-run", PENSTOCK_LEDGER=url, **PINNED)

    assert done.code == 0, done.err
    assert " champion=s3://models/digits/abc " in done.out


@pytest.mark.parametrize("more", [("-p", "champion=gs://b"), ("--pipeline", "watch")], ids=str)
def test_who_serves_is_not_looked_up_where_it_is_not_needed(
    called: Call, tmp_path: Path, more: tuple[str, str]
):
    """That the package lies where no cluster reaches it is no matter then."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    served(url, str(tmp_path / "package"))
    done = called("digits", "--dry-run", *more, PENSTOCK_LEDGER=url, **PINNED)

    assert done.code == 0, done.err


def test_a_run_whose_token_ends_is_said_to_go_on(
    called: Call, server: Server, kubeflow: Kubeflow, run_id: str, tmp_path: Path
):
    """Whoever reads the job's log sees how to follow it; the summary is no broken markup."""

    def happens(run: dict[str, Any]) -> None:
        becomes("RUNNING", train="RUNNING")(run)
        server.token = "another"

    kubeflow.script = [happens]
    where = ("--host", server.url, "--every", "1")
    done = called("--follow", run_id, *where, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))

    assert done.code == EXIT["not allowed"]
    assert f"submit --follow {run_id}" in done.out
    assert "``" not in (tmp_path / "summary.md").read_text()


def test_a_champion_that_no_cluster_reaches_is_said_before_anything_is_sent(
    called: Call, tmp_path: Path
):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    served(url, str(tmp_path / "package"))
    done = called("digits", "--dry-run", PENSTOCK_LEDGER=url)

    assert done.code == 2
    assert "set PENSTOCK_PACKAGES" in done.err
