"""Laws of registered packages in a store: the ledger names an address, and everything reads it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import registered, storage
from penstock.bundle import SIGNATURE, BundleError, read
from penstock.gate import step as gate
from penstock.ledger import Ledger, Stage, package_of, stage_of
from penstock.register import retire, signing
from penstock.register import step as registering
from penstock.register.record import lost
from penstock.rollout.servers import Servers
from penstock.storage.store import Store
from penstock.workload import load
from serving.signature import verify
from tests.bundles import NOW
from tests.packages import GOLDEN, keys, make_package, predictor
from tests.people import person
from tests.register.admitted import registered as enter
from tests.register.test_retire import Aliases
from tests.register.test_step import Home, empty_database, evidence, home
from tests.storage.conftest import s3_named
from tests.storage.parts import contents, lay

__all__ = ["empty_database", "home"]

WAY = (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


@pytest.fixture
def published(home: Home, in_swift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose packages go to a store, and which keeps copies of its own."""
    monkeypatch.setenv("PENSTOCK_PACKAGES", in_swift)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "here"))
    return home


def served(home: Home, version: int) -> None:
    """Let a version serve everybody."""
    for to in WAY:
        home.ledger.move(
            workload="digits", version=version, to=to, reason="t", actor=person(), now=NOW,
            override="t",
        )  # fmt: skip


def test_a_registered_package_is_served_on_a_machine_that_has_only_the_ledger(
    published: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Registered with a store, every folder of the machine lost: another fetches it and serves."""
    assert published.register(evidence(tmp_path / "stages")) == "1"
    entries = published.ledger.entries("digits")
    address = registered.uri(entries, 1)
    made = registered.package(entries, 1)
    assert address == f"{storage.packages()}/digits/{storage.name_of(made.manifest)}"
    assert published.stage(1) is Stage.STAGING

    for lost_folder in ("here", "store", "artifacts", "out"):
        shutil.rmtree(tmp_path / lost_folder)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "elsewhere"))
    held = registered.package_to_serve(entries, 1)

    assert held.digest == registered.registration(entries, 1).body["digest"]
    assert held.path.is_relative_to(tmp_path / "elsewhere" / "packages")
    assert contents(held.path) != {}
    with predictor(held.path, tmp_path / "log") as (process, _port):
        assert process.poll() is None
        assert (tmp_path / "log" / "ready.json").exists()


def test_registered_again_it_is_the_same_version_at_the_same_address(
    published: Home, tmp_path: Path
):
    """By who asks twice, and by who serves already."""
    stages = evidence(tmp_path / "stages")
    assert [published.register(stages, name=n) for n in ("a", "b")] == ["1", "1"]
    served(published, 1)
    assert published.register(stages, name="c") == "1"
    assert len({e.body["package"] for e in published.ledger.entries("digits")
                if e.kind == "registered"}) == 1  # fmt: skip


def test_a_champion_is_named_by_its_address(published: Home, tmp_path: Path):
    """The gate and the register step compare with what lies there; another one is refused."""
    published.register(evidence(tmp_path / "first"))
    served(published, 1)
    address = registered.uri(published.ledger.entries("digits"), 1)
    champion = registered.package(published.ledger.entries("digits"), 1)
    second = evidence(tmp_path / "second", seed=8, champion=champion.fingerprint)

    assert published.register(second, champion=address, name="second") == "2"
    other = storage.publish(make_package(tmp_path / "other"), storage.packages() or "")
    with pytest.raises(BundleError, match="the gate compared with"):
        published.register(second, champion=other, name="third")
    # The gate reads the champion first of all, and says so of one that is not there.
    inputs: dict[str, Any] = {n.replace("-", "_"): p for n, p in second.items() if n != "gate"}
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        gate.run(workload="digits", **inputs, champion=f"{address}x", out=tmp_path / "g", now=NOW)


def test_without_a_store_everything_is_as_it_was(home: Home, tmp_path: Path):
    """The ledger names a folder; nobody else can fetch it, and says what to do."""
    home.register(evidence(tmp_path / "stages"))
    entries = home.ledger.entries("digits")
    assert Path(package_of(entries, 1)).is_dir()
    with pytest.raises(LookupError, match=r"folder of the machine.*set PENSTOCK_PACKAGES"):
        registered.uri(entries, 1)


def test_a_folder_is_a_store_too(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that several machines share: the ledger names a path there, read where it lies."""
    monkeypatch.setenv("PENSTOCK_PACKAGES", str(tmp_path / "shared"))
    home.register(evidence(tmp_path / "stages"))

    held = registered.package(home.ledger.entries("digits"), 1)
    assert held.path.parent == tmp_path / "shared" / "digits"


def test_an_address_that_cannot_be_is_refused_before_any_work(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And with a store that refuses nothing is in the ledger."""
    stages = evidence(tmp_path / "stages")
    monkeypatch.setenv("PENSTOCK_PACKAGES", "s3://key:planted@bucket/x")
    with pytest.raises(ValueError, match="PENSTOCK_PACKAGES") as refused:
        home.register(stages)
    assert "planted" not in str(refused.value)
    assert not (home.path / "out").exists()


def test_what_could_not_be_published_is_not_registered(
    published: Home, swift_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The version waits in MLflow without an entry; with the right keys it gets one."""
    stages = evidence(tmp_path / "stages")
    with monkeypatch.context() as patch:
        s3_named(patch, swift_url, "store:writer", "wrong")
        with pytest.raises(storage.StoreError, match="credentials may do this"):
            published.register(stages, name="a")
    assert published.ledger.entries("digits") == []

    assert published.register(stages, name="b") == "1"


def test_a_store_that_is_down_loses_no_champion(
    published: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its copy here serves on; where there is none, that is an outage and not a lost package."""
    published.register(evidence(tmp_path / "stages"))
    served(published, 1)
    entries = published.ledger.entries("digits")
    monkeypatch.setattr("penstock.storage.errors.ATTEMPTS", 1)
    monkeypatch.setattr("penstock.storage.backends.CLIENT_TRIES", 1)
    s3_named(monkeypatch, "http://127.0.0.1:1", "k", "s")
    assert registered.package_to_serve(entries, 1).digest
    assert lost(entries) == ""

    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(storage.Unreachable):
        lost(entries)


def test_a_champion_that_was_altered_in_the_store_is_lost_and_said_to_be(
    published: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As one that was altered on a disk: the reason is in the note, and nobody is blocked."""
    published.register(evidence(tmp_path / "stages"))
    served(published, 1)
    entries = published.ledger.entries("digits")
    lay(Store.at(registered.uri(entries, 1)), "model.onnx", b"altered")
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "elsewhere"))

    assert "champion 1 is lost" in lost(entries)
    assert "model.onnx" in lost(entries)


def test_it_is_signed_where_it_was_published(
    published: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the key of today or a newer one; whoever fetches it finds the signature that counts."""
    stages = evidence(tmp_path / "stages")
    for number, name in enumerate(("old", "new")):
        private, public = keys(tmp_path, name=name)
        monkeypatch.setenv(signing.KEY_VARIABLE, str(private))
        published.register(stages, name=name)
        address = registered.uri(published.ledger.entries("digits"), 1)
        held = storage.fetch(address, tmp_path / f"cache{number}")
        assert (held.path / SIGNATURE).exists()
        verify(held.path, public)


def test_a_retired_version_is_archived_from_the_store(
    in_swift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its package is fetched and kept in the archive; the published one stays, as a folder does."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "here"))
    packaged = make_package(tmp_path / "p")
    address = storage.publish(packaged, in_swift)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    enter(ledger, packaged, package=address)
    shutil.rmtree(packaged.path)

    entry = retire.retire(
        load("digits"), 1, reason="replaced", archive=tmp_path / "archive", opened=Aliases,  # pyright: ignore[reportArgumentType]
        ledger=ledger, actor=person(), now=NOW + timedelta(days=1),
    )  # fmt: skip

    assert retire.contents(Path(entry.body["archive"])) == packaged.digest
    assert stage_of(ledger.entries("digits"), 1) is Stage.ARCHIVED
    assert storage.fetch(address, tmp_path / "cache").digest == packaged.digest
    ledger.close()
