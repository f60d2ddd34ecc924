"""Laws of ``penstock latency``: a real log beside a budget, and what is not known is no pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from penstock.cli.latency import latency
from serving.prediction_log import PredictionLog
from serving.seen import Seen
from tests.packages import DIGITS

SPENT_US = {"read": 40.0, "queue": 10.0, "inference": 200.0, "write": 30.0}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 400 answers, 5 refusals and 5 copies; none of the latter was quick."""
    made = PredictionLog(tmp_path, DIGITS, slot="a", version="3", salt=bytes(32))
    made.start()
    for number in range(410):
        seen = Seen({b"x-rollout-shadow": b"1"} if number >= 405 else {})
        seen.status = 503 if 400 <= number < 405 else 200
        seen.latency_ms, seen.spent_us = (0.3, SPENT_US) if number < 400 else (900.0, {})
        made.add(seen)
    made.close()
    return tmp_path


def asked(*arguments: str) -> Result:
    """Run the command."""
    app = typer.Typer()
    app.command()(latency)
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments)


def budget(**parts: float) -> list[str]:
    """Return the options of a budget."""
    return [word for part, ms in parts.items() for word in ("--budget", f"{part}={ms}")]


def test_answers_within_their_budget_pass(log: Path):
    """Refused requests and copies are nobody's latency; every part is on one screen."""
    parts = budget(read=1, queue=1, inference=5, write=1)

    ended = asked("--log", str(log), *parts, "--faster", "inference=2")

    assert ended.exit_code == 0, ended.output
    lines = ended.output.splitlines()
    assert [line.split()[:2] for line in lines[:6]] == [
        ["pass"],
        ["pass", "read"],
        ["pass", "queue"],
        ["pass", "inference"],
        ["pass", "write"],
        ["pass", "together"],
    ]
    assert "p99 0.2 ms, at most 5 ms" in lines[3]
    assert lines[6] == "inference 2 times as fast: 5.5 ms of 8 ms, 1.45x"


def test_a_part_over_its_budget_is_named(log: Path):
    """The part that takes too long fails, by name."""
    ended = asked("--log", str(log), *budget(read=1, queue=1, inference=0.1, write=1))

    assert ended.exit_code == 1
    assert "  fail          inference  p99 0.2 ms, at most 0.1 ms (2x); 400 of 400 over" in (
        ended.output.splitlines()
    )


def test_without_a_budget_each_part_is_shown(log: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the home's own log, where none is named; what nobody went through has no time."""
    home = log.parent / "home"
    (home / "serving").mkdir(parents=True)
    log.rename(home / "serving" / "a")
    monkeypatch.setenv("PENSTOCK_HOME", str(home))

    ended = asked()

    assert ended.exit_code == 0, ended.output
    lines = [line.split() for line in ended.output.splitlines()]
    assert lines[1] == ["read", "400", "0.04", "0.04"]
    assert lines[2] == ["features", "0"]
    assert lines[-1] == ["together", "400", "0.3", "0.3"]
    assert asked("--minutes", "0").output == "no answered request there in the last 0 minutes\n"
    assert asked("--faster", "inference=2").exit_code == 2


def test_a_look_up_that_no_request_needed_is_no_gap(log: Path):
    """The runbook's line is a check for models with and without look-ups."""
    parts = budget(read=5, features=25, queue=5, inference=45, write=10)

    ended = asked("--log", str(log), *parts)

    assert ended.exit_code == 0, ended.output
    assert "none of 400 requests needed it, at most 25 ms" in ended.output
    assert asked("--log", str(log), *parts, *budget(network=15)).exit_code == 1


def test_a_folder_that_is_not_there_is_said(log: Path):
    """It is no log without requests."""
    done = asked("--log", str(log / "none"))

    assert "is not there; name the folder of the log with --log" in str(done.exception)


@pytest.mark.parametrize("more", [["--version", "4"], ["--minutes", "0"]])
def test_a_log_without_such_requests_is_no_pass(log: Path, more: list[str]):
    """No request, no evidence."""
    ended = asked("--log", str(log), *budget(read=1, queue=1, inference=5, write=1), *more)

    assert ended.exit_code == 1
    assert "not measured" in ended.output


@pytest.mark.parametrize("wrong", ["inference", "inference=soon", "inference=-1"])
def test_what_is_no_budget_is_a_wrong_call(log: Path, wrong: str):
    """A part without its milliseconds ends with 2 and says so."""
    assert asked("--log", str(log), "--budget", wrong).exit_code == 2
