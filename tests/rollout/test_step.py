"""Laws of what is released: registered bytes, on their way, compared with who serves now."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.bundle import Bundle, BundleError, Recipe, Summary, write, write_json
from penstock.endpoint import Endpoint
from penstock.ledger import REGISTERED, Ledger, Stage
from penstock.release import EVERYWHERE
from penstock.rollout import step
from penstock.rollout.opening import Wish, refuse
from penstock.rollout.plane import Plane
from penstock.stage import Refused
from penstock.workload import load
from tests.bundles import NOW
from tests.packages import DIGITS, free_port, make_package, predictor
from tests.people import person

ALL_THE_WAY = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


def package(path: Path, *, champion: Bundle | None = None) -> Bundle:
    """Write a package that says with whom it was compared."""
    compared: Mapping[str, Mapping[str, str]] = {"artifacts": {}, "digests": {}}
    if champion is not None:
        named = {"artifacts": champion.fingerprint, "digests": champion.digest}
        compared = {name: {"champion": value} for name, value in named.items()}

    def fill(folder: Path) -> Summary:
        write_json(folder / "lineage.json", {**compared, "of": path.name})
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="package", workload="digits", settings={"of": path.name})
    return write(path, recipe, make=fill, now=NOW)


def version(ledger: Ledger, number: int, packaged: Bundle, *stages: Stage) -> None:
    """Register a package as a version and move it through stages."""
    body = {"package": str(packaged.path), "digest": packaged.digest}
    body["fingerprint"] = packaged.fingerprint
    named: dict[str, Any] = {"workload": "digits", "version": number, "actor": person()}
    ledger.append(**named, kind=REGISTERED, body=body, now=NOW)
    for stage in stages:
        ledger.move(**named, to=stage, reason="t", now=NOW)


def release(ledger: Ledger, number: int, home: Path) -> None:
    """Ask for the release of a version."""
    nothing = home / "nothing"
    step.run(
        workload="digits",
        version=number,
        traffic=step.Traffic(rows=nothing, label="label", contract=nothing),
        home=home,
        ledger=ledger,
        fault=None,
        actor=person(),
        port=free_port(),
        emit=lambda _: None,
    )


def test_only_what_is_on_its_way_is_released(ledger: Ledger, tmp_path: Path):
    """A standby and a version that the contract has not let in are refused; nothing is started."""
    first = package(tmp_path / "p1")
    version(ledger, 1, first, *ALL_THE_WAY)
    version(ledger, 2, package(tmp_path / "p2", champion=first), *ALL_THE_WAY)
    version(ledger, 3, package(tmp_path / "p3", champion=first))
    before = ledger.entries()

    for number, stage in ((1, Stage.PRODUCTION), (3, Stage.NONE)):
        with pytest.raises(Refused, match=f"version {number} is in {stage}"):
            release(ledger, number, tmp_path)

    assert ledger.entries() == before
    assert not Plane.running(tmp_path)


@pytest.mark.parametrize("stage", ALL_THE_WAY[:3])
def test_a_comparison_that_grew_old_releases_nothing(ledger: Ledger, tmp_path: Path, stage: Stage):
    """The champion changed since: whatever stage it has reached, the gate is asked again."""
    first = package(tmp_path / "p1")
    version(ledger, 1, first, *ALL_THE_WAY)
    way = ALL_THE_WAY[: ALL_THE_WAY.index(stage) + 1]
    version(ledger, 3, package(tmp_path / "p3", champion=first), *way)
    entries = ledger.entries("digits")
    refuse(entries, Wish(version=3, market=EVERYWHERE), load("digits").rollout)

    version(ledger, 2, package(tmp_path / "p2", champion=first), *ALL_THE_WAY)

    with pytest.raises(Refused, match=r"cannot be released: .*version 2.*run the gate again"):
        release(ledger, 3, tmp_path)
    assert not Plane.running(tmp_path)


def test_a_replaced_package_is_not_released(ledger: Ledger, tmp_path: Path):
    """A whole package of other bytes, where the registered one was, starts nothing."""
    first, other = package(tmp_path / "p1"), package(tmp_path / "other")
    version(ledger, 1, first, Stage.STAGING)
    shutil.rmtree(first.path)
    shutil.copytree(other.path, first.path)

    with pytest.raises(BundleError, match="registered as version 1 was"):
        release(ledger, 1, tmp_path)

    assert not Plane.running(tmp_path)


def test_the_edge_is_limited_by_what_the_package_promises(ledger: Ledger, tmp_path: Path):
    """Not by what the workload declares today; a package from before promised nothing."""
    promise = Endpoint(max_in_flight=7, max_body_bytes=99)
    contract = replace(DIGITS, endpoint=promise)
    version(ledger, 1, make_package(tmp_path / "p1", contract=contract), Stage.STAGING)
    assert step.promised(ledger.entries("digits"), 1) == promise

    def older(folder: Path) -> Summary:
        held = contract.to_dict()
        del held["endpoint"]
        write_json(folder / "serving.json", held)
        return Summary("pass", "made for a test")

    recipe = Recipe(kind="package", workload="digits", settings={})
    version(ledger, 2, write(tmp_path / "p2", recipe, make=older, now=NOW), Stage.STAGING)
    assert step.promised(ledger.entries("digits"), 2) is None


def test_the_server_serves_the_digest_it_is_told_and_no_other(tmp_path: Path):
    """Told another digest it ends with one sentence; told its own it is ready."""
    made = make_package(tmp_path / "package")

    with predictor(made.path, tmp_path / "log", "--digest", "sha256:" + "0" * 64) as (process, _):
        assert process.wait(20) == 1
    said = (tmp_path / "log" / "server.log").read_text().strip().splitlines()[-1]
    assert said.startswith("not serving version 3: ")
    assert "registered was 000000000000" in said

    with predictor(made.path, tmp_path / "right", "--digest", made.digest) as (process, _):
        assert (tmp_path / "right" / "ready.json").exists()
