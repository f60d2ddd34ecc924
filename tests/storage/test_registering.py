"""Laws of registered packages in a store: the ledger names an address, and everything reads it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import registered, storage
from penstock.bundle import SIGNATURE, Bundle, BundleError, read
from penstock.gate import step as gate
from penstock.ledger import Ledger, Stage, package_of, stage_of
from penstock.ledger.actors import Actor
from penstock.register import retire, signing
from penstock.register.record import lost, record
from penstock.storage.store import Store
from penstock.workload import load
from serving.signature import verify
from tests.bundles import NOW
from tests.packages import keys, make_package, predictor
from tests.people import person
from tests.register import standin
from tests.register.admitted import registered as enter
from tests.register.test_retire import Aliases
from tests.register.test_step import Home, empty_database, evidence, home
from tests.storage.conftest import s3_named
from tests.storage.parts import contents, lay

__all__ = ["empty_database", "home"]

WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


@pytest.fixture
def published(home: Home, in_swift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose packages go to a store, and which keeps copies of its own."""
    monkeypatch.setenv("PENSTOCK_PACKAGES", in_swift)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "here"))
    return home


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'own.db'}")
    yield held
    held.close()


class Kept:
    """A registry in which packages stay where they were made."""

    def __init__(self) -> None:
        self.held: list[Path] = []

    def alone(self) -> AbstractContextManager[object]:
        return nullcontext()

    def find(self, workload: str, *, digest: str) -> list[int]:
        return [n for n, path in enumerate(self.held, 1) if read(path).digest == digest]

    def add(
        self, workload: str, package: Bundle, *, experiment: str, tags: Mapping[str, str]
    ) -> int:
        self.held.append(package.path)
        return len(self.held)

    def package(self, workload: str, version: int) -> Bundle:
        return read(self.held[version - 1])

    def tag(self, workload: str, version: int, tags: Mapping[str, str | None]) -> None:
        """Nobody asks for tags here."""


def recorded(packaged: Bundle, ledger: Ledger, kept: Kept, to: str | None) -> int:
    """Record a package as the register step does; return its version."""
    given: dict[str, Any] = {"actor": person(), "now": NOW, "evidence": standin.EVIDENCE}
    return record(packaged, lambda: kept, ledger, to=to, **given)[0]  # pyright: ignore[reportArgumentType,reportReturnType]


def move(ledger: Ledger, actor: Actor, *stages: Stage) -> None:
    """Carry version 1 through stages."""
    for to in stages:
        ledger.move(
            workload="digits", version=1, to=to, reason="t", actor=actor, now=NOW, override="t"
        )


def test_a_registered_package_is_served_on_a_machine_that_has_only_the_ledger(
    published: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every folder of the machine lost, another fetches it, serves it, and compares with it."""
    stages = evidence(tmp_path / "stages")
    assert [published.register(stages, name=n) for n in ("a", "b")] == ["1", "1"]
    entries = published.ledger.entries("digits")
    address, made = registered.uri(entries, 1), registered.package(entries, 1)
    assert address == f"{storage.packages()}/digits/{storage.name_of(made.manifest)}"
    assert published.stage(1) is Stage.STAGING

    for gone in ("here", "store", "artifacts", "a", "b"):
        shutil.rmtree(tmp_path / gone)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "elsewhere"))
    held = registered.package_to_serve(entries, 1)
    assert held.digest == registered.registration(entries, 1).body["digest"]
    assert held.path.parent == tmp_path / "elsewhere" / "packages"
    with predictor(held.path, tmp_path / "log") as (process, _port):
        assert process.poll() is None
        assert (tmp_path / "log" / "ready.json").exists()

    move(published.ledger, Actor.load(tmp_path / "actor.pem"), *WAY[1:])
    second = evidence(tmp_path / "second", seed=8, champion=held.fingerprint)
    assert published.register(second, champion=address, name="second") == "2"
    other = storage.publish(make_package(tmp_path / "other"), storage.packages() or "")
    with pytest.raises(BundleError, match="the gate compared with"):
        published.register(second, champion=other, name="third")


def test_the_gate_fetches_the_champion_that_it_is_given(published: Home, tmp_path: Path):
    """First of all; of one that is not there it says so."""
    found = {n: p for n, p in evidence(tmp_path / "stages").items() if n != "gate"}
    inputs: dict[str, Any] = {name.replace("-", "_"): path for name, path in found.items()}
    champion = f"{storage.packages()}/digits/none"
    with pytest.raises(BundleError, match=r"digits/none holds no manifest\.json"):
        gate.run(workload="digits", **inputs, champion=champion, out=tmp_path / "g", now=NOW)


def test_the_ledger_names_where_a_package_can_be_had(
    moto: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The registry's folder, a folder that machines share, or an address; only that is a URI."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "here"))
    kept, places = Kept(), (None, str(tmp_path / "shared"), moto)
    for version, to in enumerate(places, 1):
        packaged = standin.package(tmp_path / f"p{version}", model=str(version))
        assert recorded(packaged, ledger, kept, to) == version
        entries = ledger.entries("digits")
        said = package_of(entries, version)
        name = storage.name_of(packaged.manifest)
        assert said == (str(packaged.path) if to is None else f"{to}/digits/{name}")
        assert registered.package(entries, version).digest == packaged.digest
        assert contents(storage.local(said)) == contents(packaged.path)
        if to == moto:
            assert registered.uri(entries, version) == said
        else:
            with pytest.raises(LookupError, match=r"folder of the machine.*set PENSTOCK_PACKAGES"):
                registered.uri(entries, version)


def test_what_could_not_be_published_is_not_registered(
    in_swift: str, swift_url: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The version waits in the registry without an entry; with the right keys it gets one."""
    packaged, kept = standin.package(tmp_path / "p"), Kept()
    with monkeypatch.context() as patch:
        s3_named(patch, swift_url, "store:writer", "wrong")
        with pytest.raises(storage.StoreError, match="credentials may do this"):
            recorded(packaged, ledger, kept, in_swift)
    assert ledger.entries("digits") == []

    assert recorded(packaged, ledger, kept, in_swift) == 1
    assert len(kept.held) == 1


def test_an_address_that_cannot_be_is_refused_before_any_work(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is packaged, and the credentials in it are not repeated."""
    monkeypatch.setenv("PENSTOCK_PACKAGES", "s3://key:planted@bucket/x")
    with pytest.raises(ValueError, match="PENSTOCK_PACKAGES") as refused:
        home.register(evidence(tmp_path / "stages"))
    assert "planted" not in str(refused.value)
    assert not (home.path / "out").exists()


def test_a_store_that_is_down_loses_no_champion(
    moto: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its copy here serves on; where there is none, that is an outage and not a lost package."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "here"))
    recorded(standin.package(tmp_path / "p"), ledger, Kept(), moto)
    move(ledger, person(), *WAY)
    entries = ledger.entries("digits")
    assert lost(entries) == ""
    monkeypatch.setattr("penstock.storage.errors.ATTEMPTS", 1)
    monkeypatch.setattr("penstock.storage.backends.CLIENT_TRIES", 1)
    s3_named(monkeypatch, "http://127.0.0.1:1", "k", "s")
    assert registered.package_to_serve(entries, 1).digest
    assert lost(entries) == ""

    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(storage.Unreachable):
        lost(entries)


def test_a_champion_that_was_altered_in_the_store_is_lost_and_said_to_be(
    moto: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As one that was altered on a disk: the note says how, and nobody is blocked."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "here"))
    packaged, kept = standin.package(tmp_path / "p"), Kept()
    recorded(packaged, ledger, kept, moto)
    move(ledger, person(), *WAY)
    lay(Store.at(registered.uri(ledger.entries("digits"), 1)), "card.md", b"altered")

    assert "champion 1 is lost" in (said := lost(ledger.entries("digits")))
    assert "card.md" in said
    again = standin.package(tmp_path / "q", gate="judged again")
    assert recorded(again, ledger, kept, moto) == 2


def test_it_is_signed_where_it_was_published(
    published: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With the key of today or a newer one: whoever fetches it finds the signature that counts."""
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
    in_swift: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its package is fetched and kept in the archive; the published one stays, as a folder does."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "here"))
    packaged = make_package(tmp_path / "p")
    address = storage.publish(packaged, in_swift)
    enter(ledger, packaged, package=address)
    shutil.rmtree(packaged.path)

    given: dict[str, Any] = {"opened": Aliases, "ledger": ledger, "actor": person()}
    given |= {"archive": tmp_path / "archive", "now": NOW + timedelta(days=1)}
    entry = retire.retire(load("digits"), 1, reason="replaced", **given)

    assert retire.contents(Path(entry.body["archive"])) == packaged.digest
    assert stage_of(ledger.entries("digits"), 1) is Stage.ARCHIVED
    assert storage.fetch(address, tmp_path / "cache").digest == packaged.digest
