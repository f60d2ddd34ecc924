"""Laws of signing: who asks for signatures gets them, and they travel with the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ed25519

from penstock.bundle import SIGNATURE, Bundle, BundleError, read
from penstock.endpoint import Endpoint
from penstock.register import signing
from penstock.register.copies import kept
from penstock.register.mlflow import MlflowRegistry
from penstock.register.registry import described
from penstock.stage import Refused
from penstock.workload import load
from serving.signature import NotSigned, verify
from tests.packages import keys
from tests.register import standin

PLAIN = load("digits")
ASKS = replace(PLAIN, endpoint=Endpoint(signed=True))


def test_a_signature_is_no_part_of_what_a_package_is(tmp_path: Path):
    """Signed or not, it is whole and has the same digest; any other file more is one too many."""
    package = standin.package(tmp_path / "package")
    private, public = keys(tmp_path)

    assert signing.sign(package, private)

    assert read(package.path, kind="package") == package
    verify(package.path, public)
    shutil.copy(package.path / SIGNATURE, package.path / "other.sig")
    with pytest.raises(BundleError, match=r"does not list: \['other.sig'\]"):
        read(package.path)


def test_a_key_signs_once_and_another_anew(tmp_path: Path):
    """Signing again changes no byte; after a change of keys the new one's signature is there."""
    package = standin.package(tmp_path / "package")
    (private, public), (second, newer) = keys(tmp_path), keys(tmp_path, name="second")
    signing.sign(package, private)
    before = (package.path / SIGNATURE).read_bytes()

    assert not signing.sign(package, private)
    assert (package.path / SIGNATURE).read_bytes() == before
    assert signing.sign(package, second)
    verify(package.path, newer)
    with pytest.raises(NotSigned):
        verify(package.path, public)
    assert list(tmp_path.glob(".part-*")) == []


def damage(package: Bundle) -> None:
    """Spoil the signature's bytes; the hint of the key that it names stays."""
    held = json.loads((package.path / SIGNATURE).read_text())
    made = held["dsseEnvelope"]["signatures"][0]
    made["sig"] = "A" * len(made["sig"])
    (package.path / SIGNATURE).write_text(json.dumps(held))


def test_a_damaged_signature_is_renewed_by_the_key_that_it_names(tmp_path: Path):
    """Registering again mends it: a right hint over wrong bytes is no signature."""
    package = standin.package(tmp_path / "package")
    private, public = keys(tmp_path)
    signing.sign(package, private)
    damage(package)
    with pytest.raises(NotSigned):
        verify(package.path, public)

    assert signing.sign(package, private)
    verify(package.path, public)


def ed25519_key(path: Path) -> None:
    """Write a key of a kind that the format does not know: the ledger's."""
    held = ed25519.Ed25519PrivateKey.generate()
    raw = held.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    path.write_bytes(raw)


@pytest.mark.parametrize("write", [ed25519_key, lambda p: p.write_text("no key")])
def test_what_is_no_key_is_refused_with_how_to_make_one(
    write: Callable[[Path], object], tmp_path: Path
):
    """The ledger's key, or no key at all: nothing is written."""
    package = standin.package(tmp_path / "package")
    write(tmp_path / "key.pem")

    with pytest.raises(Refused, match="openssl ecparam"):
        signing.sign(package, tmp_path / "key.pem")
    assert not (package.path / SIGNATURE).exists()


@pytest.mark.parametrize("lacking", [signing.KEY_VARIABLE, signing.VERIFIER_VARIABLE])
def test_a_workload_that_asks_for_signatures_is_refused_without_a_key(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both keys are needed: one signs, and the real server that is asked first verifies."""
    private, public = keys(tmp_path)
    monkeypatch.setenv(signing.KEY_VARIABLE, str(private))
    monkeypatch.setenv(signing.VERIFIER_VARIABLE, str(public))
    assert signing.key_for(ASKS) == private

    monkeypatch.delenv(lacking)

    with pytest.raises(Refused, match=f"{lacking} is not set; name the file"):
        signing.key_for(ASKS)


def test_nobody_else_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without one nothing is signed; with one that is not there nothing is registered."""
    monkeypatch.delenv(signing.KEY_VARIABLE, raising=False)
    assert signing.key_for(PLAIN) is None

    monkeypatch.setenv(signing.KEY_VARIABLE, str(tmp_path / "none.pem"))
    with pytest.raises(Refused, match="there is no key"):
        signing.key_for(PLAIN)


def test_a_signature_travels_through_the_registry(
    registry: MlflowRegistry, workload: str, tmp_path: Path
):
    """What any kind of MLflow gives back is as validly signed as what it was given."""
    package = standin.package(tmp_path / "package", workload=workload)
    private, public = keys(tmp_path)
    signing.sign(package, private)
    tags = described(package, standin.EVIDENCE)
    version = registry.add(workload, package, experiment="", tags=tags)

    held = registry.package(workload, version)
    assert held.path != package.path
    verify(held.path, public)


def test_a_copy_gets_a_signature_and_keeps_the_one_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A package signed on the server after it was copied is so here; one signed here stays so."""
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    package = standin.package(tmp_path / "package")
    (private, public), (second, newer) = keys(tmp_path), keys(tmp_path, name="second")

    def fetch(folder: Path) -> Path:
        return Path(shutil.copytree(package.path, folder / "package"))

    assert not (kept(package.digest, fetch).path / SIGNATURE).exists()
    signing.sign(package, private)
    held = kept(package.digest, fetch)
    verify(held.path, public)
    signing.sign(held, second)

    verify(kept(package.digest, fetch).path, newer)


def test_a_copy_whose_signature_servers_would_refuse_gets_the_registry_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where the verifying key is named, a damaged one gives way to a valid one, never the reverse.

    Without that key nobody can tell which is right, and the copy keeps what it has.
    """
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    monkeypatch.delenv(signing.VERIFIER_VARIABLE, raising=False)
    package = standin.package(tmp_path / "package")
    private, public = keys(tmp_path)
    signing.sign(package, private)

    def fetch(folder: Path) -> Path:
        return Path(shutil.copytree(package.path, folder / "package"))

    held = kept(package.digest, fetch)
    damage(held)
    damaged = (held.path / SIGNATURE).read_bytes()
    assert (kept(package.digest, fetch).path / SIGNATURE).read_bytes() == damaged

    monkeypatch.setenv(signing.VERIFIER_VARIABLE, str(public))
    verify(kept(package.digest, fetch).path, public)
    damage(package)
    verify(kept(package.digest, fetch).path, public)
    second, newer = keys(tmp_path, name="second")
    signing.sign(held, second)
    verify(kept(package.digest, fetch).path, newer)
