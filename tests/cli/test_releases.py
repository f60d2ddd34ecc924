"""Laws of seeing releases: one screen of 80 columns, JSON for programs, exit codes that tell."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from penstock.cli import releases
from penstock.cli.home import VARIABLE
from penstock.rollout.looks import Looks, looks_folder
from penstock.rollout.plan import plan_of
from penstock.rollout.state import Act
from tests.rollout.tales import RELEASE, Tale, a_policy, looks_of, rolled_back

WIDTH = 80


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home, shown on a terminal of 80 columns."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    return tmp_path


def asked(*arguments: str) -> Result:
    """Return what the commands answer."""
    app = typer.Typer()
    verbs = {"status": releases.status, "explain": releases.explain,
             "timeline": releases.timeline, "list": releases.list_}  # fmt: skip
    for name, verb in verbs.items():
        app.command(name=name)(verb)
    return CliRunner().invoke(app, list(arguments))


def under_way(held: Path, **over: Any) -> Tale:
    """Return a release at its canary, looked at a moment ago."""
    begun = datetime.now(UTC) - timedelta(minutes=12)
    tale = Tale.begun(held, now=begun, **over)
    tale.climb(1)
    looks = Looks(looks_folder(held, RELEASE))
    for look in looks_of(tale, "canary 10 %", 9.375, count=6):
        looks.note(look)
    return tale


def test_one_screen_has_all_of_it_in_eighty_columns(held: Path):
    """Stage, share, intervals and limits, users, time left, what comes next: nothing cut off."""
    under_way(held)

    shown = asked("status")

    assert shown.exit_code == 0, shown.output
    for told in (
        "canary 10 %: 9.38 % of users",
        "✓ shadow",
        "▶ canary 10 %",
        "240 challenger, 2,160 champion",
        "[-0.0225, +0.0265]",
        "> -0.01",
        "240/400",
        "slow users, over 20 ms",
        "0 of 2",
        "enter progressive 50 %",
        "waits for: users",
    ):
        assert told in shown.output
    assert "…" not in shown.output
    assert all(len(line) <= WIDTH for line in shown.output.splitlines())
    assert len(shown.output.splitlines()) <= 24


def test_what_people_must_do_is_said_and_told_by_the_exit_code(held: Path):
    """The command can be copied; a program sees 6."""
    tale = under_way(held, plan=plan_of(a_policy(approve_triggers=("manual",))))
    tale.decide(Act.AWAIT, 2, table=None)

    shown = asked("status", "digits")

    assert shown.exit_code == releases.PERSON
    assert "approver: progressive 50 % waits for an approval" in shown.output
    assert f"penstock release approve {RELEASE} --reason WHY" in shown.output


def test_a_rolled_back_release_is_told_by_the_exit_code(held: Path):
    """With the reason and both strikes."""
    rolled_back(held)

    shown = asked("status")

    assert shown.exit_code == releases.ENDED_BADLY
    assert "rolled back: 0 % of users" in shown.output
    assert shown.output.count("strike ") == 2


def test_a_promoted_release_is_good(held: Path):
    """All users, no further decision, exit code 0."""
    tale = Tale.begun(held)
    tale.climb(4)
    tale.decide(Act.FINISH)

    shown = asked("status")

    assert shown.exit_code == 0
    assert "promoted: 100 % of users" in shown.output


def test_no_release_is_told_by_the_exit_code(held: Path):
    """And what to type; of another workload or market there is none either."""
    Tale.begun(held)

    for arguments in (("credit",), ("--market", "eu")):
        shown = asked("status", *arguments)
        assert shown.exit_code == releases.NO_RELEASE
        assert "penstock run" in shown.output


def test_json_has_the_same_for_programs(held: Path):
    """Its fields are those of the how-to, no more and no fewer."""
    under_way(held)

    document = json.loads(asked("status", "--json").output)

    assert document["format"] == 1
    assert document["notifications"] == {"sequence": 0, "lost": 0, "problem": ""}
    told = document["releases"][0]
    page = Path("docs/how-to/follow-a-release.md").read_text(encoding="utf-8")
    listed = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert set(told) == listed


def test_watching_ends_with_the_release(held: Path, monkeypatch: pytest.MonkeyPatch):
    """Each change is a line; the end decides the exit code."""
    monkeypatch.setattr(releases, "EVERY_S", 0.01)
    tale = under_way(held)
    ending = threading.Timer(0.3, lambda: tale.decide(Act.ROLL_BACK, why="harm"))
    ending.start()

    shown = asked("status", "--watch")
    ending.join()

    lines = shown.output.splitlines()
    assert shown.exit_code == releases.ENDED_BADLY
    assert "canary 10 %: 9.38 % of users" in lines[0]
    assert lines[-1] == f"{RELEASE}  rolled back: 0 % of users  harm"
    assert len(lines) == len(set(lines))


def test_a_program_that_watches_hears_of_changes_alone(held: Path, monkeypatch: pytest.MonkeyPatch):
    """The clock going on is no change, though its fields are in each line."""
    monkeypatch.setattr(releases, "EVERY_S", 0.01)
    tale = under_way(held)
    ending = threading.Timer(0.5, lambda: tale.decide(Act.ROLL_BACK, why="harm"))
    ending.start()

    shown = asked("status", "--watch", "--json")
    ending.join()

    told = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(told) <= 3, "under way, decided, in force"
    assert (told[0]["phase"], told[-1]["phase"]) == ("CANARY", "ROLLED_BACK")
    assert told[0]["time"]["in_step_s"] > 0


def test_watching_nothing_says_why(held: Path):
    """On stderr: a program that reads lines gets none."""
    Tale.begun(held).ledger.close()

    shown = asked("status", "another", "--watch")

    assert (shown.exit_code, shown.stdout) == (releases.NO_RELEASE, "")
    assert "no release yet" in shown.stderr


def test_a_decision_is_explained(held: Path):
    """By its step, its number, or as JSON; with its interval, its share and its hash."""
    tale, _ = rolled_back(held)

    shown = asked("explain", "digits", "2", "--at", "canary 10 %")

    assert shown.exit_code == 0, shown.output
    assert "rolled back at canary 10 %: clicks: -0.0280" in shown.output
    assert "9.38 % → 0 % of users" in shown.output
    assert "41.5 ms" in shown.output
    assert all(len(line) <= WIDTH for line in shown.output.splitlines())
    document = json.loads(asked("explain", RELEASE, "--at", "3", "--json").output)
    assert document["action"] == "step back"
    assert document["hash"] in {e.hash for e in tale.entries}


def test_what_does_not_exist_is_refused_with_what_there_is(held: Path):
    """A version that was never released, and a decision that was never made."""
    rolled_back(held)

    for arguments, said in (
        (("explain", "digits", "7"), f"there are: {RELEASE}"),
        (("explain", "digits", "--at", "99"), "5 roll back (at canary 10 %)"),
        (("timeline", "credit"), "none yet"),
    ):
        refused = asked(*arguments)
        assert isinstance(refused.exception, LookupError)
        assert said in str(refused.exception)


def test_a_timeline_is_written(held: Path, tmp_path: Path):
    """One file, of the newest release of the workload."""
    rolled_back(held)
    out = tmp_path / "release.html"

    shown = asked("timeline", "digits", "--out", str(out))

    assert shown.exit_code == 0, shown.output
    assert "Rolled back: version 2, over version 1" in out.read_text(encoding="utf-8")


def test_all_releases_are_listed_oldest_first(held: Path):
    """As a table and as JSON."""
    tale, _ = rolled_back(held)
    Tale(tale.ledger, release="digits/3/all/1", now=tale.now).open()

    lines = asked("list").output.splitlines()
    rows = json.loads(asked("list", "digits", "--json").output)["releases"]

    assert "rolled back" in lines[1]
    assert "getting ready" in lines[2]
    assert [r["release"] for r in rows] == [RELEASE, "digits/3/all/1"]
    assert asked("list", "credit").exit_code == releases.NO_RELEASE


@pytest.mark.parametrize("at", ["2026-01-05 09:50", "2026-01-05T09:50:00+00:00"])
def test_a_moment_names_the_decision_before_it(held: Path, at: str):
    """Without a zone it is UTC, as all that is shown."""
    rolled_back(held)

    assert json.loads(asked("explain", "digits", "--at", at, "--json").output)["n"] == 2
