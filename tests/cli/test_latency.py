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
    return CliRunner().invoke(app, arguments)


def budget(**parts: float) -> list[str]:
    """Return the options of a budget."""
    return [word for part, ms in parts.items() for word in ("--budget", f"{part}={ms}")]


def test_answers_within_their_budget_pass(log: Path):
    """Refused requests and copies are nobody's latency; every part is on one screen."""
    parts = budget(read=1, queue=1, inference=5, write=1)

    ended = asked(str(log), *parts, "--faster", "inference=2")

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
    ended = asked(str(log), *budget(read=1, queue=1, inference=0.1, write=1))

    assert ended.exit_code == 1
    assert "  fail          inference  p99 0.2 ms, at most 0.1 ms (2x); 400 of 400 over" in (
        ended.output.splitlines()
    )


@pytest.mark.parametrize("more", [["--version", "4"], ["--minutes", "0"]])
def test_a_log_without_such_requests_is_no_pass(log: Path, more: list[str]):
    """No request, no evidence."""
    ended = asked(str(log), *budget(read=1, queue=1, inference=5, write=1), *more)

    assert ended.exit_code == 1
    assert "not measured" in ended.output


@pytest.mark.parametrize("wrong", ["inference", "inference=soon", "inference=-1"])
def test_what_is_no_budget_is_a_wrong_call(log: Path, wrong: str):
    """A part without its milliseconds ends with 2 and says so."""
    assert asked(str(log), "--budget", wrong).exit_code == 2
