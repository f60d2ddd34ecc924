"""Laws of the home: one run at a time, a clear word when it cannot be used, leftovers cleared."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock.cli.home import FREE_BYTES, Home, HomeError, locked
from penstock.ledger import Actor


def test_a_second_run_is_told_who_holds_the_home(tmp_path: Path):
    """The one that waits is told the process; afterwards the home is free again."""
    held = Home(tmp_path / "home")
    with (
        locked(held),
        pytest.raises(HomeError, match=r"another run is using .*process \d+"),
        locked(held),
    ):
        pass

    with locked(held):
        assert (held.path / "run.pid").exists()
    assert not (held.path / "run.pid").exists()


def test_a_full_disk_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run that would fill the disk is not begun; a stand-in says how full it is."""
    nearly = SimpleNamespace(free=FREE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly)

    with (
        pytest.raises(HomeError, match="499 MB of free disk, 500 are needed"),
        locked(Home(tmp_path)),
    ):
        raise AssertionError("begun")


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path):
    """The message names the variable that moves it."""
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(HomeError, match="set PENSTOCK_HOME"), locked(Home(tmp_path / "file")):
        raise AssertionError("begun")


def test_what_a_crash_left_half_written_is_cleared(tmp_path: Path):
    """Halves go, whole bundles stay."""
    for name in ("model/.part-digits-1-ab", "model/digits-1"):
        (tmp_path / "store" / name).mkdir(parents=True)

    with locked(Home(tmp_path)):
        assert [p.name for p in (tmp_path / "store" / "model").iterdir()] == ["digits-1"]


def test_a_home_has_a_key_from_its_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The steps of a run find it in their environment; a named key is used instead of it."""
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    held = Home(tmp_path)

    named = held.environment()["PENSTOCK_KEY"]

    assert named == str(tmp_path / "actor.pem")
    made = Actor.load(Path(named))
    assert Actor.load(held.key()).key_id == made.key_id
    other = Actor.create(tmp_path / "other.pem", name="robot")
    monkeypatch.setenv("PENSTOCK_KEY", str(tmp_path / "other.pem"))
    assert held.environment()["PENSTOCK_KEY"] == str(tmp_path / "other.pem")
    assert Actor.load(held.key()).key_id == other.key_id


def test_a_user_without_a_name_gets_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A container may run as a number that no list of users knows."""
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    monkeypatch.setattr(getpass, "getuser", nameless)

    assert Actor.load(Home(tmp_path).key()).name == "home"


def nameless() -> str:
    """Fail as getpass does for a user without a name."""
    raise KeyError("getpwuid(): uid not found: 12345")


def test_the_salt_is_made_once_and_is_its_owner_s_alone(tmp_path: Path):
    """Servers are told where it lies; asked again, it is the same."""
    held = Home(tmp_path / "home")
    held.path.mkdir()
    path = held.salt()
    first = path.read_text()

    assert Path(held.environment()["PENSTOCK_SALT"]) == held.salt() == path
    assert path.read_text() == first
    assert len(first) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert Home(tmp_path / "other").salt().read_text() != first
    assert [p.name for p in held.path.glob(".salt*")] == []
