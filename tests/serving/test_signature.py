"""Laws of signatures: only what the holder of the key signed is loaded, wherever it was carried."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.bundle import MANIFEST, SIGNATURE, Bundle, BundleError, hash_file, read, sealed
from penstock.endpoint import Endpoint
from penstock.register.signing import sign
from serving import signature
from serving.package import NotServable, Served
from serving.signature import NotSigned, verified, verify
from tests.packages import DIGITS, keys, make_package

SIGNED = replace(DIGITS, endpoint=Endpoint(signed=True))
"""Of a workload that serves signed packages only."""


class Signed:
    """A signed package, the key that signed it, and one that did not."""

    def __init__(self, folder: Path) -> None:
        self.package = make_package(folder / "package", contract=SIGNED)
        self.private, self.public = keys(folder)
        self.other_private, self.other = keys(folder, name="other")
        sign(self.package, self.private)

    def copied(self, to: Path) -> Bundle:
        """Return a copy that a test may spoil."""
        shutil.copytree(self.package.path, to)
        return read(to)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """One signed package for the module."""
    return Signed(tmp_path_factory.mktemp("signed"))


def test_a_signed_package_serves_wherever_it_was_carried(signed: Signed, tmp_path: Path):
    """A copy of another name in another place has the same digest and is as valid."""
    copied = signed.copied(tmp_path / "elsewhere")

    assert copied.digest == signed.package.digest
    assert Served(copied.path, key=signed.public).check_golden() > 0


def test_anybody_can_ask_without_penstock(signed: Signed):
    """The format is the published one: the library's own command accepts it."""
    command = [str(Path(sys.executable).parent / "model_signing"), "verify", "key"]
    given = ["--public_key", signed.public, "--signature", signed.package.path / SIGNATURE]

    run = subprocess.run([*command, *given, signed.package.path], capture_output=True, check=False)

    assert run.returncode == 0, run.stderr.decode()


def added(name: str) -> Callable[[Path], object]:
    """Return what puts one more file into a package."""

    def add(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("one more")

    return add


SPOILS: dict[str, Callable[[Path], object]] = {
    "altered model": lambda p: (p / "model.onnx").write_bytes(b"another"),
    "altered transform": lambda p: (p / "transform.py").write_text("raise SystemExit('ran')"),
    "altered manifest": lambda p: (p / MANIFEST).write_text("{}"),
    "lost file": lambda p: (p / "golden.json").unlink(),
    "added file": added("model.py"),
    "added file that git ignores": added(".gitignore"),
    "added file beside the signature": added(f"{SIGNATURE}.bak"),
    "link": lambda p: (p / "link").symlink_to("/etc/hostname"),
    "no signature": lambda p: (p / SIGNATURE).unlink(),
    "empty signature": lambda p: (p / SIGNATURE).write_text(""),
    "signature of nothing": lambda p: (p / SIGNATURE).write_text("{}"),
    "half a signature": lambda p: (p / SIGNATURE).write_text((p / SIGNATURE).read_text()[:900]),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_what_was_not_signed_is_refused(signed: Signed, tmp_path: Path, spoil: str):
    """One file altered, lost or added, or a signature that is none: not loaded, and said."""
    package = signed.copied(tmp_path / "package").path
    SPOILS[spoil](package)

    with pytest.raises(NotSigned, match=r"register the model again|is not what the holder of"):
        Served(package, key=signed.public)


def forge(package: Path, ran: Path) -> None:
    """Put code into a package that leaves a file when it runs, and make its hashes fit."""
    evil = f"open({str(ran)!r}, 'w').close()\n" + (package / "transform.py").read_text()
    (package / "transform.py").write_text(evil)
    manifest = json.loads((package / MANIFEST).read_text())
    entry = {"sha256": hash_file(package / "transform.py"), "bytes": len(evil)}
    manifest["files"]["transform.py"] = entry
    (package / MANIFEST).write_text(sealed(manifest))


def test_a_package_made_whole_again_is_refused_before_its_code_runs(signed: Signed, tmp_path: Path):
    """Hashes that were made to fit vouch for nothing: the key does, and is asked first."""
    package, ran = signed.copied(tmp_path / "package").path, tmp_path / "ran"
    forge(package, ran)
    read(package, kind="package")

    with pytest.raises(NotSigned, match="Hash mismatch"):
        Served(package, key=signed.public)
    assert not ran.exists()


def test_what_changes_after_the_check_is_not_loaded(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who writes to the folder while it loads has no code run: only what was checked is loaded."""
    package, ran = signed.copied(tmp_path / "package"), tmp_path / "ran"
    evil = f"open({str(ran)!r}, 'w').close()\n" + (package.path / "transform.py").read_text()

    def raced(path: Path, *, kind: str | None = None) -> Bundle:
        found = read(path, kind=kind)
        (package.path / "transform.py").write_text(evil)
        (package.path / "model.onnx").write_bytes(b"another")
        return found

    monkeypatch.setattr(signature, "read", raced)
    served = Served(package.path, key=signed.public)

    assert (package.path / "transform.py").read_text() == evil
    assert served.check_golden() > 0
    assert not ran.exists()
    assert (served.bundle.path, served.bundle.digest) == (package.path, package.digest)


def test_what_is_put_back_before_the_check_is_refused(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Right bytes in the folder do not vouch for a copy that was made of others."""
    package, ran, copied = (
        signed.copied(tmp_path / "package").path,
        tmp_path / "ran",
        signature.copy,
    )
    forge(package, ran)

    def raced(path: Path, to: Path) -> None:
        copied(path, to)
        shutil.copytree(signed.package.path, package, dirs_exist_ok=True)

    monkeypatch.setattr(signature, "copy", raced)

    with pytest.raises(NotSigned, match="Hash mismatch"):
        Served(package, key=signed.public)
    verify(package, signed.public)
    assert not ran.exists()


def test_nobody_else_can_reach_what_is_loaded_and_nothing_of_it_stays(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The copy lies in a folder of the server's own, which goes once it is loaded, or refused."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with verified(signed.package.path, signed.public) as copy:
        assert copy == replace(signed.package, path=copy.path)
        assert copy.path.parent.parent == tmp_path
        assert copy.path.parent.stat().st_mode & 0o777 == 0o700
    Served(signed.package.path, key=signed.public)
    with pytest.raises(NotSigned, match=re.escape(f"{signed.package.path} is not what")):
        Served(signed.package.path, key=signed.other)

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_goes_and_what_another_loads_stays(
    signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A server that is killed again and again while it loads does not fill the disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"{signature.PREFIX}left"
    (left / "package").mkdir(parents=True)
    (tmp_path / f"{signature.PREFIX}link").symlink_to(signed.package.path)

    with verified(signed.package.path, None) as loading:
        assert not left.exists()
        Served(signed.package.path, key=signed.public)
        assert read(loading.path) == loading

    assert [path.name for path in tmp_path.iterdir()] == [f"{signature.PREFIX}link"]
    assert read(signed.package.path) == signed.package


def test_a_folder_that_is_not_there_is_said(tmp_path: Path):
    """The sentence names the folder that was asked for."""
    with pytest.raises(BundleError, match=r"nowhere is not a bundle"):
        Served(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=re.escape(f"{tmp_path} is not a bundle: it has no man")):
        Served(tmp_path)


def test_a_signature_by_another_key_is_refused(signed: Signed, tmp_path: Path):
    """Who can sign is who holds the key that the server names; a hint that lies changes nothing."""
    package = signed.copied(tmp_path / "package")
    hint = json.loads((package.path / SIGNATURE).read_text())["verificationMaterial"]
    sign(package, signed.other_private)

    with pytest.raises(NotSigned, match="is not what the holder of"):
        Served(package.path, key=signed.public)
    forged = json.loads((package.path / SIGNATURE).read_text()) | {"verificationMaterial": hint}
    (package.path / SIGNATURE).write_text(json.dumps(forged))
    with pytest.raises(NotSigned, match="is not what the holder of"):
        verify(package.path, signed.public)


def test_a_signature_of_another_package_is_refused(signed: Signed, tmp_path: Path):
    """A right signature says nothing of other files."""
    other = make_package(tmp_path / "other", seed=8)
    shutil.copy(signed.package.path / SIGNATURE, other.path / SIGNATURE)

    with pytest.raises(NotSigned, match="Hash mismatch"):
        verify(other.path, signed.public)


def test_a_workload_that_asks_for_signatures_is_not_served_without_a_key(signed: Signed):
    """Without a key nobody can tell who signed, so a valid signature is not enough."""
    with pytest.raises(NotServable, match="set PENSTOCK_SIGNED_BY"):
        Served(signed.package.path)


def test_a_key_asks_for_signatures_of_every_workload(signed: Signed, tmp_path: Path):
    """A package could say of itself that it needs none; who names a key is not talked out of it."""
    made = make_package(tmp_path / "package")

    with pytest.raises(NotSigned, match=r"has no signature.*PENSTOCK_SIGNING_KEY"):
        Served(made.path, key=signed.public)


def test_a_key_that_is_not_there_is_said(signed: Signed, tmp_path: Path):
    """A path with a mistake in it is not taken for a package with one."""
    with pytest.raises(NotSigned, match=r"no public key .*PENSTOCK_SIGNED_BY"):
        Served(signed.package.path, key=tmp_path / "none.pub")
