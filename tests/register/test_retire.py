"""Laws of retirement: never what serves or must stay, whole or not at all, for good."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from penstock.bundle import MANIFEST, Bundle, BundleError, hash_file
from penstock.cli import retire as command
from penstock.cli.home import Home
from penstock.ledger import Entry, Ledger, LedgerError, Stage, stage_of
from penstock.register import retire
from penstock.register.reconcile import wanted_aliases
from penstock.stage import Refused
from penstock.workload import load
from tests.bundles import NOW
from tests.people import person
from tests.register.admitted import documents, package, registered

DIGITS = load("digits")
WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


class Aliases:
    """A registry of which only aliases are asked."""

    def __init__(self) -> None:
        self.said: dict[str, int | None] = {}

    def point(self, workload: str, aliases: dict[str, int | None]) -> None:
        self.said.update(aliases)


def move(ledger: Ledger, version: int, *stages: Stage) -> None:
    for stage in stages:
        ledger.move(
            workload="digits", version=version, to=stage, reason="t", actor=person(), now=NOW
        )


def version(ledger: Ledger, folder: Path, number: int, *stages: Stage) -> Bundle:
    """Register a version and move it along."""
    held = documents(DIGITS)
    held["lineage.json"]["seed"] = number
    packaged = package(folder / f"p{number}", held)
    registered(ledger, packaged, version=number)
    move(ledger, number, *stages)
    return packaged


def end(ledger: Ledger, folder: Path, number: int, **over: Any) -> Entry:
    """Retire a version."""
    given: dict[str, Any] = {"reason": "replaced", "opened": Aliases, "now": NOW, **over}
    return retire.retire(
        DIGITS, number, archive=folder / "archive", ledger=ledger, actor=person(), **given
    )


def test_of_five_production_versions_only_the_oldest_two_may_go(tmp_path: Path, ledger: Ledger):
    """The champion and the two before it stay, whoever asks; what is older may be retired."""
    for number in range(1, 6):
        version(ledger, tmp_path, number, *WAY)

    for number in (5, 4, 3):
        with pytest.raises(Refused, match="champion" if number == 5 else "must stay deployable"):
            end(ledger, tmp_path, number)
    for number in (2, 1):
        end(ledger, tmp_path, number)

    entries = ledger.entries("digits")
    stages = [stage_of(entries, n) for n in range(1, 6)]
    assert stages == [Stage.ARCHIVED] * 2 + [Stage.PRODUCTION] * 3


@pytest.mark.parametrize("stages", [WAY[:n] for n in range(4)], ids=lambda s: f"after {len(s)}")
def test_what_never_served_may_go_from_anywhere(
    tmp_path: Path, ledger: Ledger, stages: tuple[Stage, ...]
):
    """Whatever stage it reached, it is archived, its alias is dropped and the record stays."""
    packaged, aliases = version(ledger, tmp_path, 1, *stages), Aliases()

    entry = end(ledger, tmp_path, 1, opened=lambda: aliases)

    assert stage_of(ledger.entries("digits"), 1) is Stage.ARCHIVED
    assert aliases.said == {"champion": None, "standby": None, "challenger": None}
    assert entry.body["package"] == packaged.digest
    assert entry.body["archive_digest"] == hash_file(Path(entry.body["archive"]))
    kept = datetime.fromisoformat(entry.body["keep_until"])
    assert kept == NOW + DIGITS.retention
    assert ledger.verify() == len(ledger.entries())


def test_it_is_not_reversible(tmp_path: Path, ledger: Ledger):
    """A retired version moves nowhere any more; the same model comes back as a new version."""
    version(ledger, tmp_path, 1, Stage.STAGING)
    end(ledger, tmp_path, 1)

    for stage in (Stage.STAGING, Stage.PRODUCTION, Stage.ARCHIVED):
        with pytest.raises(LedgerError, match="ARCHIVED"):
            move(ledger, 1, stage)


def test_the_archive_holds_every_byte(tmp_path: Path, ledger: Ledger):
    """What comes out of the archive is the package, file by file."""
    packaged = version(ledger, tmp_path, 1)

    entry = end(ledger, tmp_path, 1)

    with tarfile.open(entry.body["archive"]) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    for source in packaged.path.rglob("*.json"):
        copy = tmp_path / "out" / source.relative_to(packaged.path)
        assert copy.read_bytes() == source.read_bytes()
    assert retire.contents(Path(entry.body["archive"])) == packaged.digest


def test_the_same_package_gives_the_same_archive(tmp_path: Path):
    """Nothing of the machine or the moment goes in: two archives of one package agree."""
    packaged = package(tmp_path / "p", documents(DIGITS))
    for path in packaged.path.rglob("*"):
        os.utime(path, (1, 1))
    retire.store(packaged, tmp_path / "one.tar")
    for path in packaged.path.rglob("*"):
        os.utime(path, (2e9, 2e9))

    retire.store(packaged, tmp_path / "two.tar")

    assert hash_file(tmp_path / "one.tar") == hash_file(tmp_path / "two.tar")


CUTS = {"a byte of a file": b"digits-snapshot", "a byte of the manifest": b"2026-01-05T"}


@pytest.mark.parametrize("cut", [*CUTS, "half of it"])
def test_an_altered_archive_is_noticed_and_made_again(tmp_path: Path, cut: str):
    """An archive that is there but not whole is not taken for one."""
    packaged, path = package(tmp_path / "p", documents(DIGITS)), tmp_path / "a.tar"
    retire.store(packaged, path)
    whole = path.read_bytes()
    at = whole.index(CUTS.get(cut, b"digits"))
    turned = whole[:at] + b"#" + whole[at + 1 :]
    path.write_bytes(turned if cut in CUTS else whole[: len(whole) // 2])

    with pytest.raises(BundleError):
        retire.contents(path)
    retire.store(packaged, path)

    assert path.read_bytes() == whole


@pytest.mark.parametrize("said", ["{}", "[]", "null", '{"files": {"a": 1}}', '{"files": [1]}', "{"])
def test_an_archive_without_a_manifest_of_files_is_refused(tmp_path: Path, said: str):
    """Whatever stands where the manifest should, it is said to be no archive of a package."""
    (tmp_path / MANIFEST).write_text(said)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / MANIFEST, MANIFEST)

    with pytest.raises(BundleError, match="not an archive of a package"):
        retire.contents(tmp_path / "a.tar")


def test_what_reads_back_otherwise_leaves_no_archive(tmp_path: Path):
    """A file that changes while it is archived is noticed by reading back; nothing is left."""
    packaged = package(tmp_path / "p", documents(DIGITS))
    packaged.file("lineage.json").write_text("{}")

    with pytest.raises(BundleError, match="reads back otherwise"):
        retire.store(packaged, tmp_path / "archive" / "a.tar")

    assert list((tmp_path / "archive").iterdir()) == []


def test_an_altered_package_is_not_archived(tmp_path: Path, ledger: Ledger):
    """A package that is not the one registered leaves no archive, no entry and no move."""
    packaged = version(ledger, tmp_path, 1, Stage.STAGING)
    packaged.file("lineage.json").write_text("{}")

    with pytest.raises(BundleError):
        end(ledger, tmp_path, 1)

    assert not (tmp_path / "archive").exists()
    assert stage_of(ledger.entries("digits"), 1) is Stage.STAGING


class Crash(Exception):
    """The process ended here."""


class Ending:
    """A ledger that ends the process just after the n-th write."""

    def __init__(self, real: Ledger, left: int) -> None:
        self._real, self._left = real, left

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)
        if name not in ("append", "move"):
            return method

        def carried(**named: Any) -> Any:
            done = method(**named)
            self._left -= 1
            if not self._left:
                raise Crash
            return done

        return carried


@pytest.mark.parametrize("effect", [1, 2, 3], ids=["moved", "aliases", "retired"])
def test_interrupted_after_any_write_it_is_finished_and_not_doubled(
    tmp_path: Path, ledger: Ledger, effect: int
):
    """After a crash behind any write, asking again ends with one move and one retirement."""
    version(ledger, tmp_path, 1, Stage.STAGING)
    broken: Any = Ending(ledger, effect)
    with pytest.raises(Crash):
        end(broken, tmp_path, 1)

    end(ledger, tmp_path, 1)
    end(ledger, tmp_path, 1, now=NOW + timedelta(days=3))

    entries = ledger.entries("digits")
    assert [e.kind for e in entries] == ["registered", "moved", "moved", "aliases", "retired"]
    assert wanted_aliases(entries)["challenger"] is None


@pytest.mark.parametrize("stored", [False, True], ids=["no archive", "an archive"])
def test_saying_that_it_is_retired_retires_nothing(tmp_path: Path, ledger: Ledger, stored: bool):
    """An entry by anyone, even beside an archive, ends nothing: asked for, the version is moved."""
    packaged, path = version(ledger, tmp_path, 1, Stage.STAGING), tmp_path / "said.tar"
    if stored:
        retire.store(packaged, path)
    said = {"archive": str(path), "keep_until": NOW.isoformat()}
    named = {"workload": "digits", "version": 1, "kind": retire.RETIRED}
    ledger.append(**named, body=said, actor=person(), now=NOW)

    entry = end(ledger, tmp_path, 1)

    assert stage_of(ledger.entries("digits"), 1) is Stage.ARCHIVED
    assert retire.contents(Path(entry.body["archive"])) == packaged.digest


def test_an_archive_that_was_lost_is_made_again(tmp_path: Path, ledger: Ledger):
    """Retired means that the archive is there; from the package it is made anew, and entered."""
    version(ledger, tmp_path, 1, Stage.STAGING)
    first = end(ledger, tmp_path, 1)
    Path(first.body["archive"]).unlink()

    again = end(ledger, tmp_path, 1)

    assert again.sequence > first.sequence
    assert again.body["archive_digest"] == first.body["archive_digest"]
    assert end(ledger, tmp_path, 1) == again


def test_a_retirement_says_why(tmp_path: Path, ledger: Ledger):
    """Without a reason nothing happens; of a version that was never registered neither."""
    version(ledger, tmp_path, 1)

    with pytest.raises(Refused, match="needs a reason"):
        end(ledger, tmp_path, 1, reason=" ")
    with pytest.raises(LookupError, match="version 9"):
        end(ledger, tmp_path, 9)


def test_the_command_refuses_what_serves(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """The command takes workload, version and reason, and asks the same of them."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    for variable in ("PENSTOCK_KEY", "PENSTOCK_LEDGER", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    # What the command puts into the environment is taken out again.
    for variable, value in Home(tmp_path).environment().items():
        monkeypatch.setenv(variable, value)
    version(ledger, tmp_path, 1, *WAY)
    app = typer.Typer()
    app.command()(command.retire)

    result = CliRunner().invoke(app, ["digits", "1", "--reason", "old"])

    assert isinstance(result.exception, Refused)
    assert "version 1 is the champion" in str(result.exception)
    assert not (tmp_path / "archive").exists()
