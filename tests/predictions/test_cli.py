"""Laws of the ``penstock predictions`` verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.predictions import app
from penstock.predictions.hashing import Hasher
from penstock.predictions.log import Predictions
from tests.predictions.logs import SALT, contract, journal, record


def said(*arguments: str, code: int = 0, typed: str = "") -> str:
    """Return what a verb prints, and check its exit code."""
    done = CliRunner().invoke(app, arguments, input=typed)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a home's servers: ten live requests, eight copies, one failed."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.delenv("PENSTOCK_PREDICTIONS", raising=False)
    ann = Hasher(SALT).user("anné".encode())
    folder = tmp_path / "serving"
    journal(folder / "a", [record(n, user=ann if n < 3 else None) for n in range(10)])
    copies = [record(n, version="2", slot="b", mirrored=True) for n in (*range(6), 9)]
    failed = record(6, version="2", slot="b", mirrored=True, status=500)
    journal(folder / "b", [*copies, failed])
    (tmp_path / "salt").write_bytes(SALT)
    (tmp_path / "salt").chmod(0o600)
    return folder


def test_show_is_one_line_a_group(slots: Path):
    """Who answered how many how fast, and that nothing was lost."""
    lines = [line.split() for line in said("show").splitlines()]

    assert lines[1] == ["1", "a", "champion", "10", "0", "0", "1.50", "1.50"]
    assert lines[2][:6] == ["2", "b", "shadow", "8", "0", "1"]
    assert lines[4] == ["1", "a", "champion", "0", "0", "2096-10-02", "07:06:49", "UTC"]
    assert lines[6] == ["no", "record", "lost,", "as", "far", "as", "counted"]
    assert "champion" not in said("show", "--version", "2")


def test_show_fits_a_terminal(slots: Path, monkeypatch: pytest.MonkeyPatch):
    """In 80 columns no name of a column and no number is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    journal(slots / "b", [record(n, version="2026", arm="challenger") for n in range(1500)])

    told = said("show")

    assert max(map(len, told.splitlines())) <= 80
    assert "…" not in told
    assert "p99 ms" in told
    assert "1,500" in told


def test_a_version_that_is_not_there_is_said(slots: Path):
    """By a code too: who asks for it expects it."""
    assert said("show", "--version", "77", code=1).startswith("no predictions of version 77 there")
    assert said("show", "--minutes", "1").startswith("version")
    assert "in the last 5 minutes" in said("show", "--version", "7", "--minutes", "5", code=1)


def test_losses_are_a_code_of_their_own(slots: Path):
    """A script that watches need not read."""
    counts = {"written": 9, "dropped": 4, "failed": 0, "problem": "the disk is full"}
    (slots / "a" / "counters.json").write_text(json.dumps(counts))

    lines = said("show", code=1).splitlines()

    assert lines[-2:] == [
        "lost: 4 dropped, 0 not writable, 0 unreadable; 9 written",
        "the disk is full",
    ]


def test_coverage_gives_a_share_and_its_reasons(slots: Path):
    """Two of ten had no copy, one copy failed."""
    lines = dict(line.rsplit(maxsplit=1) for line in said("coverage", "1", "2").splitlines())

    assert (lines["mirrored"], lines["answered by both"]) == ("10", "7")
    assert (lines["failed by the shadow"], lines["coverage"]) == ("1", "87.50%")
    assert said("coverage", "1", "3", code=1).startswith("version 3 has no copies")


def test_a_user_is_forgotten_by_the_home_and_its_salt(slots: Path):
    """Their id may come by standard input, where no shell remembers it."""
    assert said("forget", "-", typed="anné\n") == "removed 3 rows from 1 file\n"
    assert len(Predictions(slots).table()) == 15
    assert said("forget", "anné").startswith("nothing removed: nobody of this id")


def test_forgetting_reaches_copies_on_a_disk(slots: Path, monkeypatch: pytest.MonkeyPatch):
    """Where PENSTOCK_PREDICTIONS is a folder, it is rewritten in the same call, and may expire."""
    copies = str(slots.parent / "copies")
    monkeypatch.setenv("PENSTOCK_PREDICTIONS", copies)
    said("expire")

    assert said("forget", "anné") == "removed 6 rows from 2 files\n"
    assert len(Predictions(copies).table()) == 15
    assert said("expire", "--log", copies).startswith("finished 0 journals, copied 0 files")


@pytest.mark.parametrize("arguments", [["forget", "-"], ["forget", " "]])
def test_nobody_is_a_wrong_call(slots: Path, arguments: list[str]):
    """An empty file of users forgets nobody, and says so."""
    done = CliRunner().invoke(app, arguments, input="\n")

    assert "nobody is named" in str(done.exception)
    assert not list(slots.rglob("forgotten.jsonl"))


def test_a_salt_that_cannot_be_used_is_said(slots: Path, monkeypatch: pytest.MonkeyPatch):
    """Another file, or one that others read, is a sentence and no error number."""
    salt = slots.parent / "salt"
    salt.chmod(0o640)
    assert "chmod 600" in str(CliRunner().invoke(app, ["forget", "ann"]).exception)

    monkeypatch.setenv("PENSTOCK_SALT", str(slots / "none"))
    assert "is not there; name the file" in str(
        CliRunner().invoke(app, ["forget", "ann"]).exception
    )


def test_expire_leaves_the_logs_of_others(slots: Path):
    """A folder that has logs somewhere below is no log; which ones are, it says."""
    done = CliRunner().invoke(app, ["expire", "--log", str(slots.parent)])

    assert "is no log. Name the folder of a slot" in str(done.exception)
    assert not list(slots.rglob("*.parquet"))


def test_expire_finishes_and_removes(slots: Path):
    """And says how much of each."""
    old = contract(kept_days=1)
    journal(slots / "a", [record(0, at=1_000_000_000.0)], of=old, at=1_000_000_000.0)

    assert said("expire") == "finished 3 journals, copied 0 files, removed 1 old file\n"
    assert said("expire", "--log", str(slots)).startswith("finished 0 journals")


def test_a_folder_that_is_not_there_is_a_wrong_call(slots: Path):
    """What came and what to do."""
    done = CliRunner().invoke(app, ["show", "--log", str(slots / "nowhere")])

    assert "name the folder of the log with --log" in str(done.exception)
