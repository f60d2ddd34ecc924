"""Laws of registration: one version per package in both books, whatever was interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from penstock.bundle import Bundle, BundleError, Recipe, Summary, write, write_json, write_text
from penstock.ledger import Ledger, Stage, package_of, stage_of
from penstock.register.mlflow import MlflowRegistry
from penstock.register.step import record
from tests.bundles import NOW


class Crash(Exception):
    """The process ended here."""


class Crashing:
    """Passes every call on, and ends just after the n-th one that changes something."""

    EFFECTS = ("add", "append", "move")

    def __init__(self, real: Any, left: list[int]) -> None:
        self._real, self._left = real, left

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._real, name)
        if name not in self.EFFECTS:
            return method

        def carried(*given: Any, **named: Any) -> Any:
            done = method(*given, **named)
            self._left[0] -= 1
            if self._left[0] == 0:
                raise Crash
            return done

        return carried


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: its migrations take longer than a test."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path


@pytest.fixture
def registry(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MlflowRegistry:
    """A real MLflow registry in a file."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return MlflowRegistry()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


def package(
    path: Path, *, rehearsal: str | None = None, gate: str = "g", model: str = "m"
) -> Bundle:
    """Write what registration reads of a package."""

    def make(folder: Path) -> Summary:
        write_text(folder / "card.md", "# Digits: gate pass\n")
        lineage = {"owner": "someone", "data": "digits-snapshot", "seed": 7, "metrics": {"a": 0.5}}
        document = {**lineage, "hyperparameters": {"epochs": 2}, "rehearsal": rehearsal}
        write_json(folder / "lineage.json", document)
        (folder / "verdicts").mkdir()
        write_json(folder / "verdicts" / "gate.json", {"outcome": "pass", "checks": []})
        return Summary("pass", "made for a test")

    settings, inputs = {"rehearsal": rehearsal or ""}, {"gate": gate, "model": model}
    recipe = Recipe(kind="package", workload="digits", inputs=inputs, settings=settings)
    return write(path, recipe, make=make, now=NOW)


def held(registry: MlflowRegistry) -> list[int]:
    """Return the versions MLflow holds."""
    found = registry._client.search_model_versions("name = 'digits'")
    return sorted(int(v.version) for v in found)


def test_a_package_becomes_a_version_with_its_lineage(
    tmp_path: Path, registry: MlflowRegistry, ledger: Ledger
):
    """MLflow holds the card, the parameters and every byte; the ledger names the folder."""
    packaged = package(tmp_path / "p", rehearsal="errors")

    version, before = record(packaged, lambda: registry, ledger, actor="someone", now=NOW)

    assert (version, before) == (1, Stage.NONE)
    kept = MlflowClient().get_model_version("digits", "1")
    assert kept.description.startswith("# Digits: gate pass")
    assert kept.tags["penstock.digest"] == packaged.digest
    assert kept.tags["penstock.rehearsal"] == "errors"
    run = MlflowClient().get_run(kept.run_id)
    assert run.data.params == {"epochs": "2", "seed": "7", "data": "digits-snapshot"}
    assert run.data.metrics == {"a": 0.5}
    folder = registry.package("digits", 1)
    assert str(folder) == package_of(ledger.entries("digits"), 1)
    assert (folder / "card.md").read_bytes() == packaged.file("card.md").read_bytes()


@pytest.mark.parametrize("effect", [1, 2, 3])
def test_interrupted_after_any_effect_it_is_finished_and_not_doubled(
    tmp_path: Path, registry: MlflowRegistry, ledger: Ledger, effect: int
):
    """After a crash behind any write, asking again ends with one version, once in each book."""
    packaged, left = package(tmp_path / "p"), [effect]
    crashing: Any = (Crashing(registry, left), Crashing(ledger, left))
    with pytest.raises(Crash):
        record(packaged, lambda: crashing[0], crashing[1], actor="someone", now=NOW)

    version, _ = record(packaged, lambda: registry, ledger, actor="someone", now=NOW)
    again, stage = record(packaged, lambda: registry, ledger, actor="someone", now=NOW)

    assert (version, again, stage) == (1, 1, Stage.STAGING)
    assert held(registry) == [1]
    assert [e.kind for e in ledger.entries("digits")] == ["registered", "moved"]


def test_a_version_that_came_back_is_not_taken_out_again(
    tmp_path: Path, registry: MlflowRegistry, ledger: Ledger
):
    """The package of an archived version gets a new number: what was judged stays judged."""
    packaged = package(tmp_path / "p")
    record(packaged, lambda: registry, ledger, actor="someone", now=NOW)
    ledger.move(
        workload="digits", version=1, to=Stage.ARCHIVED, reason="harm", actor="someone", now=NOW
    )

    version, _ = record(packaged, lambda: registry, ledger, actor="someone", now=NOW)

    assert version == 2
    assert stage_of(ledger.entries("digits"), 1) is Stage.ARCHIVED
    assert held(registry) == [1, 2]


@pytest.mark.parametrize(
    ("over", "version"),
    [({"gate": "against another champion"}, 1), ({"model": "n"}, 2), ({"rehearsal": "errors"}, 2)],
    ids=["judged again", "another model", "broken on purpose"],
)
def test_what_serves_is_not_registered_again(
    tmp_path: Path, registry: MlflowRegistry, ledger: Ledger, over: dict[str, str], version: int
):
    """Judged again, now against itself, the champion stays its version; anything else is new."""
    record(package(tmp_path / "p"), lambda: registry, ledger, actor="someone", now=NOW)
    for stage in (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION):
        ledger.move(workload="digits", version=1, to=stage, reason="t", actor="t", now=NOW)

    again = record(
        package(tmp_path / "q", **over), lambda: registry, ledger, actor="someone", now=NOW
    )

    assert again == (version, Stage.PRODUCTION if version == 1 else Stage.NONE)


def test_an_altered_package_is_not_handed_out(
    tmp_path: Path, registry: MlflowRegistry, ledger: Ledger
):
    """A byte changed in the registry's own folder is noticed before anything is served."""
    record(package(tmp_path / "p"), lambda: registry, ledger, actor="someone", now=NOW)
    card = registry.package("digits", 1) / "card.md"
    card.write_text("# Digits: gate pass, really\n")

    with pytest.raises(BundleError, match=r"card\.md"):
        registry.package("digits", 1)


def test_aliases_follow_and_leave(tmp_path: Path, registry: MlflowRegistry, ledger: Ledger):
    """An alias names its version, and is taken away when it names nothing."""
    record(package(tmp_path / "p"), lambda: registry, ledger, actor="someone", now=NOW)

    registry.point("digits", {"champion": 1, "standby": None})
    first = dict(MlflowClient().get_registered_model("digits").aliases)
    registry.point("digits", {"champion": None})

    assert {name: int(v) for name, v in first.items()} == {"champion": 1}
    assert MlflowClient().get_registered_model("digits").aliases == {}


def test_mlflow_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch):
    """MLflow would make a folder wherever the command was run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI is not set"):
        MlflowRegistry()
