"""Laws of ``penstock logs``."""

from __future__ import annotations

from pathlib import Path

from penstock.cli.logs import following
from tests.cli.test_main import penstock


def test_the_last_words_are_shown_when_nothing_runs(tmp_path: Path):
    """Each line says whose it is; an older piece fills up what the newest lacks."""
    folder = tmp_path / "serving" / "a"
    folder.mkdir(parents=True)
    (folder / "server.log.1").write_text("one\ntwo\n")
    (folder / "server.log").write_text("three\n\x1b[2Jfour\n")
    (folder.parent / "envoy.log").write_text("envoy's\n")

    every, own = penstock(tmp_path, "logs"), penstock(tmp_path, "logs", "a", "--lines", "3")

    assert "nothing is running; these were the last words" in every.stderr
    assert "envoy      | envoy's" in every.stdout
    assert own.stdout.splitlines() == ["two", "three", r"\x1b[2Jfour"]
    assert "x1b" in every.stdout


def test_a_home_without_logs_says_what_to_do(tmp_path: Path):
    """No traceback, and how servers are started."""
    done = penstock(tmp_path, "logs", "envoy")

    assert done.returncode == 2
    assert "envoy has written nothing in" in done.stderr
    assert "up" in done.stderr


def test_following_loses_nothing_when_a_log_is_renamed(tmp_path: Path):
    """Half a line is waited for; what the old file still got comes before the new file's."""
    log = tmp_path / "server.log"
    log.write_text("before\n")
    lines = following(log)
    assert next(lines) == []
    with log.open("a") as old:
        old.write("one\nhal")
        old.flush()
        assert next(lines) == ["one"]
        log.rename(tmp_path / "server.log.1")
        old.write("f\n")
    log.write_text("two\n")

    assert [line for _ in range(3) for line in next(lines)] == ["half", "two"]
    lines.close()


def test_a_log_that_does_not_exist_yet_is_followed_too(tmp_path: Path):
    """Its first line comes when it is written."""
    lines = following(tmp_path / "later.log")
    assert next(lines) == []
    (tmp_path / "later.log").write_text("first\n")

    assert [line for _ in range(2) for line in next(lines)] == ["first"]
    lines.close()
