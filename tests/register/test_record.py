"""Laws of recording: one version per package in both books, on every kind of registry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from penstock.bundle import Bundle
from penstock.ledger import Ledger, Stage, package_of, stage_of
from penstock.register.mlflow import MlflowRegistry
from penstock.register.record import record
from penstock.register.registry import ORPHAN
from tests.bundles import NOW
from tests.people import person
from tests.register import standin

ME = person("pipeline")


def enter(packaged: Bundle, registry: MlflowRegistry, ledger: Ledger) -> tuple[int, Stage]:
    """Record a package with what the register step hands over."""
    return record(packaged, lambda: registry, ledger, actor=ME, now=NOW, evidence=standin.EVIDENCE)


def move(ledger: Ledger, workload: str, version: int, *stages: Stage) -> None:
    """Carry a version through stages."""
    for to in stages:
        ledger.move(
            workload=workload, version=version, to=to, reason="t", actor=ME, now=NOW, override="t"
        )


def held(registry: MlflowRegistry, workload: str) -> list[int]:
    """Return the versions that MLflow holds."""
    return [v.version for v in registry.state(workload).versions]


def test_the_ledger_says_what_was_registered(
    registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path
):
    """One entry: digest, fingerprint, a folder that is whole, the evidence; and no move."""
    packaged = standin.package(tmp_path / "p", workload=workload, rehearsal="errors")

    assert enter(packaged, registry, ledger) == (1, Stage.NONE)

    entries = ledger.entries(workload)
    assert [(e.kind, e.version, e.actor) for e in entries] == [("registered", 1, "pipeline")]
    assert entries[0].body == {
        **standin.EVIDENCE,
        "fingerprint": packaged.fingerprint,
        "digest": packaged.digest,
        "package": str(registry.package(workload, 1).path),
        "rehearsal": "errors",
    }


def test_a_package_is_registered_once(
    registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path
):
    """Asked again it is found by the ledger alone, whichever open stage it has reached."""
    packaged = standin.package(tmp_path / "p", workload=workload)
    enter(packaged, registry, ledger)

    def never() -> Any:
        raise AssertionError("the registry was opened for a package that the ledger knows")

    for stage in (Stage.STAGING, Stage.SHADOW, Stage.CANARY):
        move(ledger, workload, 1, stage)
        again = record(packaged, never, ledger, actor=ME, now=NOW, evidence=standin.EVIDENCE)
        assert again == (1, stage)
    assert held(registry, workload) == [1]


def test_a_version_that_came_back_is_not_taken_out_again(
    registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path
):
    """The package of an archived version gets a new number: what was judged stays judged."""
    packaged = standin.package(tmp_path / "p", workload=workload)
    enter(packaged, registry, ledger)
    move(ledger, workload, 1, Stage.ARCHIVED)

    assert enter(packaged, registry, ledger) == (2, Stage.NONE)

    assert stage_of(ledger.entries(workload), 1) is Stage.ARCHIVED
    assert held(registry, workload) == [1, 2]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("over", "version"),
    [({"gate": "against another champion"}, 1), ({"model": "n"}, 2), ({"rehearsal": "errors"}, 2)],
    ids=["judged again", "another model", "broken on purpose"],
)
def test_what_serves_is_not_registered_again(
    registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path,
    over: dict[str, str], version: int,
):  # fmt: skip
    """Judged again, now against itself, the champion stays its version; anything else is new."""
    enter(standin.package(tmp_path / "p", workload=workload), registry, ledger)
    move(ledger, workload, 1, Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)

    again = enter(standin.package(tmp_path / "q", workload=workload, **over), registry, ledger)

    assert again == (version, Stage.PRODUCTION if version == 1 else Stage.NONE)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_lost_champion_blocks_nobody(
    registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path
):
    """Its package edited or gone, its own candidate and any other get new versions."""
    enter(standin.package(tmp_path / "p", workload=workload), registry, ledger)
    move(ledger, workload, 1, Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
    champion = Path(package_of(ledger.entries(workload), 1))
    (champion / "card.md").write_text("edited")

    same = standin.package(tmp_path / "q", workload=workload, gate="again")
    assert enter(same, registry, ledger) == (2, Stage.NONE)
    shutil.rmtree(champion)
    other = standin.package(tmp_path / "r", workload=workload, model="n")
    assert enter(other, registry, ledger) == (3, Stage.NONE)


def test_a_number_is_given_once(
    registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path
):
    """When MLflow has lost its versions and counts from one again, the ledger's are left out."""
    enter(standin.package(tmp_path / "p", workload=workload), registry, ledger)
    MlflowClient().delete_registered_model(workload)

    second = standin.package(tmp_path / "q", workload=workload, model="n")
    assert enter(second, registry, ledger) == (2, Stage.NONE)

    assert held(registry, workload) == [1, 2]
    assert registry.package(workload, 2).digest == second.digest
    marks = [v.tags.get(ORPHAN) for v in registry.state(workload).versions]
    assert marks == ["the ledger has another version of this number", None]
    assert package_of(ledger.entries(workload), 1) != package_of(ledger.entries(workload), 2)


def test_a_second_copy_is_never_the_one_that_counts(
    registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path
):
    """Of two versions of a package, the first gets the entry and the other a mark."""
    packaged = standin.package(tmp_path / "p", workload=workload)
    for _ in range(2):
        registry.add(workload, packaged, experiment="", tags={"penstock.digest": packaged.digest})

    assert enter(packaged, registry, ledger) == (1, Stage.NONE)

    one, two = registry.state(workload).versions
    assert (ORPHAN in one.tags, two.tags[ORPHAN]) == (False, "the same package as version 1")
    assert one.tags["penstock.owner"] == "someone"
