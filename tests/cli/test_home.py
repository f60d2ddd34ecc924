"""Laws of the home: one run at a time, a clear word when it cannot be used, leftovers cleared."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock.cli.home import FREE_BYTES, Home, HomeError, locked


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
