"""Laws of secrets' files: on a machine the owner's alone, in a pod as kubelets mount them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.ledger import Actor, KeyFileError
from penstock.predictions.hashing import read_salt
from penstock.private import exposed


def mounted(folder: Path, text: str = "s" * 32, mode: int = 0o644) -> Path:
    """Return a file as a kubelet mounts it: behind ``..data``, which it exchanges whole."""
    dated = folder / "..2026_11_22_01_00_00.1"
    dated.mkdir(parents=True)
    (dated / "salt").write_text(text)
    (dated / "salt").chmod(mode)
    (folder / "..data").symlink_to(dated.name)
    (folder / "salt").symlink_to("..data/salt")
    return folder / "salt"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_what_only_the_owner_reads_is_private(tmp_path: Path, mode: int):
    path = tmp_path / "salt"
    path.write_text("s")
    path.chmod(mode)

    assert not exposed(path, path.stat(), root=-1)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o444, 0o620])
def test_what_others_read_or_write_is_not(tmp_path: Path, mode: int):
    """That it is root's own changes nothing: on a machine others are there."""
    path = tmp_path / "salt"
    path.write_text("s")
    path.chmod(mode)

    assert exposed(path, path.stat(), root=os.getuid())


@pytest.mark.parametrize("mode", [0o440, 0o444, 0o644])
def test_what_a_kubelet_mounts_is_the_pods_alone(tmp_path: Path, mode: int):
    path = mounted(tmp_path, mode=mode)

    assert not exposed(path, path.stat(), root=os.getuid())
    assert exposed(path, path.stat(), root=os.getuid() + 1), "somebody else's links prove nothing"


@pytest.mark.parametrize("mode", [0o460, 0o446])
def test_nobody_else_may_write_it_there_either(tmp_path: Path, mode: int):
    path = mounted(tmp_path, mode=mode)

    assert exposed(path, path.stat(), root=os.getuid())


def test_a_link_without_the_mounts_own_is_no_mount(tmp_path: Path):
    path = mounted(tmp_path)
    (tmp_path / "..data").unlink()
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "salt").write_text("s")

    assert exposed(path, path.stat(), root=os.getuid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes files of root's, as a kubelet does")
def test_keys_and_salts_are_taken_from_a_mount(tmp_path: Path):
    """The readers of both go by it; the same bytes beside the mount are refused."""
    Actor.create(tmp_path / "actor.pem", name="pipeline")
    key = mounted(tmp_path / "key", (tmp_path / "actor.pem").read_text())
    salt = mounted(tmp_path / "salt")
    plain = tmp_path / "plain"
    plain.write_text(salt.read_text())
    plain.chmod(0o644)

    assert Actor.load(key).name == "pipeline"
    assert read_salt(salt) == b"s" * 32
    with pytest.raises(ValueError, match="chmod 600"):
        read_salt(plain)
    plain.write_text(key.read_text())
    with pytest.raises(KeyFileError, match="chmod 600"):
        Actor.load(plain)
