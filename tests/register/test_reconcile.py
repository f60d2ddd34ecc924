"""Laws of reconciling: the ledger is right; what can be mended is, what was edited is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from mlflow import MlflowClient

from penstock.cli.register import reconcile as command
from penstock.ledger import Actor, Ledger, Stage
from penstock.register.mlflow import MlflowRegistry
from penstock.register.reconcile import ALIASES, Remedy, follow, reconcile, repair
from penstock.register.registry import ORPHAN, described
from tests.bundles import NOW
from tests.people import person
from tests.register import standin
from tests.register.test_record import enter, move

ME = person("pipeline")
SERVE = (Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


@pytest.fixture
def three(registry: MlflowRegistry, workload: str, ledger: Ledger, tmp_path: Path) -> str:
    """Return a workload with a standby (1), a champion (2) and a challenger (3); aliases follow."""
    for version, stages in ((1, SERVE), (2, SERVE), (3, SERVE[:2])):
        folder = tmp_path / f"p{version}"
        enter(standin.package(folder, workload=workload, model=str(version)), registry, ledger)
        move(ledger, workload, version, *stages)
    follow(workload, lambda: registry, ledger, actor=ME, now=NOW)
    return workload


def mend(registry: MlflowRegistry, ledger: Ledger, workload: str) -> list[str]:
    """Repair once and return what is still different."""
    found = reconcile(registry, workload, ledger.entries(workload))
    repair(registry, ledger, workload, found, actor=ME, now=NOW)
    return [d.text for d in reconcile(registry, workload, ledger.entries(workload))]


def texts(registry: MlflowRegistry, ledger: Ledger, workload: str) -> list[tuple[str, Remedy]]:
    """Return what is different and what it asks for."""
    found = reconcile(registry, workload, ledger.entries(workload))
    return [(d.text, d.remedy) for d in found]


def test_aliases_that_follow_are_no_difference(
    registry: MlflowRegistry, three: str, ledger: Ledger
):
    """Right after following, both books agree, and following again asks the registry nothing."""
    assert registry.state(three).aliases == {"champion": 2, "standby": 1, "challenger": 3}
    assert texts(registry, ledger, three) == []

    def never() -> MlflowRegistry:
        raise AssertionError("the registry was opened though nothing had changed")

    length = len(ledger.entries(three))
    follow(three, never, ledger, actor=ME, now=NOW)
    assert len(ledger.entries(three)) == length


class Overtaken:
    """A registry during whose alias change another process moves a version and follows it."""

    def __init__(self, real: MlflowRegistry, happens: Callable[[], None]) -> None:
        self._real, self._happens = real, happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def point(self, workload: str, aliases: Any) -> None:
        happens, self._happens = self._happens, lambda: None
        happens()
        self._real.point(workload, aliases)


def test_whoever_is_overtaken_puts_the_aliases_right(
    registry: MlflowRegistry, three: str, ledger: Ledger
):
    """Of two that follow, the slow one points at what it read first: it looks again when done."""

    def meanwhile() -> None:
        move(ledger, three, 3, *SERVE[2:])
        follow(three, lambda: registry, ledger, actor=ME, now=NOW)

    move(ledger, three, 1, Stage.ARCHIVED)
    slow: Any = Overtaken(registry, meanwhile)
    follow(three, lambda: slow, ledger, actor=ME, now=NOW)

    assert registry.state(three).aliases == {"champion": 3, "standby": 2}
    assert texts(registry, ledger, three) == []


def test_a_repair_that_is_overtaken_is_noticed_by_whoever_follows(
    registry: MlflowRegistry, three: str, ledger: Ledger
):
    """It writes which versions the aliases name, not which the ledger wants by then."""
    MlflowClient().set_registered_model_alias(three, "challenger", "1")
    found = reconcile(registry, three, ledger.entries(three))
    slow: Any = Overtaken(registry, lambda: move(ledger, three, 3, *SERVE[2:]))

    repair(slow, ledger, three, found, actor=ME, now=NOW)
    follow(three, lambda: registry, ledger, actor=ME, now=NOW)

    assert texts(registry, ledger, three) == []


def test_where_nothing_was_registered_nobody_is_asked(ledger: Ledger):
    """A home that is new has no aliases to move."""

    def never() -> MlflowRegistry:
        raise AssertionError("the registry was opened for a workload without versions")

    follow("digits", never, ledger, actor=ME, now=NOW)

    assert ledger.entries() == []


def test_an_alias_moved_by_hand_goes_back_where_the_ledger_has_it(
    registry: MlflowRegistry, three: str, ledger: Ledger
):
    """Moved, removed or left on an archived version: found, said, put right, written down."""
    move(ledger, three, 1, Stage.ARCHIVED)
    client = MlflowClient()
    client.set_registered_model_alias(three, "champion", "3")
    client.delete_registered_model_alias(three, "challenger")

    assert texts(registry, ledger, three) == [
        ("alias champion names version 3; the ledger says version 2", Remedy.REPAIR),
        ("alias standby names version 1, archived; the ledger says nothing", Remedy.REPAIR),
        ("alias challenger names nothing; the ledger says version 3", Remedy.REPAIR),
    ]
    assert mend(registry, ledger, three) == []

    assert registry.state(three).aliases == {"champion": 2, "challenger": 3}
    last = ledger.entries(three)[-1]
    assert (last.kind, last.version, len(last.body["repaired"])) == (ALIASES, 2, 3)


def test_an_alias_of_somebody_elses_is_left_alone(
    registry: MlflowRegistry, three: str, ledger: Ledger
):
    """Only challenger, champion and standby are ours."""
    MlflowClient().set_registered_model_alias(three, "paper", "1")

    assert texts(registry, ledger, three) == []


def test_a_version_that_the_ledger_does_not_know_is_marked(
    registry: MlflowRegistry, three: str, ledger: Ledger, tmp_path: Path
):
    """It is reported and tagged, not deleted; the same package takes it over later."""
    packaged = standin.package(tmp_path / "lost", workload=three, model="lost")
    tags = described(packaged, standin.EVIDENCE)
    assert registry.add(three, packaged, experiment="", tags=tags) == 4

    says = "version 4: the ledger does not know it; a registration was interrupted"
    assert texts(registry, ledger, three) == [(says, Remedy.REPAIR)]
    assert mend(registry, ledger, three) == [says]
    assert texts(registry, ledger, three) == [(says, Remedy.NOTHING)]
    assert ledger.entries(three)[-1].body.get("repaired") is None

    assert enter(packaged, registry, ledger) == (4, Stage.NONE)
    assert texts(registry, ledger, three) == []


def test_a_mark_on_a_known_version_goes_away(registry: MlflowRegistry, three: str, ledger: Ledger):
    """Somebody who looked while a registration was under way left it."""
    registry.tag(three, 3, {ORPHAN: "the ledger does not know it"})

    assert [remedy for _, remedy in texts(registry, ledger, three)] == [Remedy.REPAIR]
    assert mend(registry, ledger, three) == []


def test_a_lost_version_needs_a_person(registry: MlflowRegistry, three: str, ledger: Ledger):
    """Neither it nor the alias on it can be made up again."""
    MlflowClient().delete_model_version(three, "2")

    expected = [
        "version 2: the registry has lost it; restore its database",
        "alias champion names nothing; the ledger says version 2",
    ]
    found = texts(registry, ledger, three)
    assert [text for text, remedy in found if remedy is Remedy.PERSON] == expected
    assert mend(registry, ledger, three) == [text for text, _ in found]


@pytest.mark.parametrize("name", ["digest", "owner", "keep_until", "gate", "invented"])
def test_an_edited_tag_needs_a_person(
    registry: MlflowRegistry, three: str, ledger: Ledger, name: str
):
    """Every tag of ours can be told from the package and the ledger; no other value passes."""
    registry.tag(three, 2, {f"penstock.{name}": "better"})

    found = texts(registry, ledger, three)
    assert {remedy for _, remedy in found} == {Remedy.PERSON}
    assert any(f"tag penstock.{name} says better, it was registered" in text for text, _ in found)


def test_a_removed_tag_needs_a_person(registry: MlflowRegistry, three: str, ledger: Ledger):
    """What is not said any more was edited too."""
    registry.tag(three, 2, {"penstock.owner": None})

    assert texts(registry, ledger, three) == [
        ("version 2: tag penstock.owner says nothing, it was registered with someone",
         Remedy.PERSON),
    ]  # fmt: skip


def test_a_note_of_somebody_elses_is_left_alone(
    registry: MlflowRegistry, three: str, ledger: Ledger
):
    """Tags under other names are theirs who made them."""
    registry.tag(three, 2, {"reviewed in": "March"})

    assert texts(registry, ledger, three) == []


def test_altered_bytes_need_a_person(
    registry: MlflowRegistry, three: str, ledger: Ledger, artifacts: Path
):
    """The packages that may serve are read, every byte; those of archived versions are not."""
    move(ledger, three, 1, Stage.ARCHIVED)
    follow(three, lambda: registry, ledger, actor=ME, now=NOW)
    for card in artifacts.rglob("card.md"):
        if three in card.read_text():
            card.write_text(f"# {three}: pass, really\n")

    found = texts(registry, ledger, three)
    assert [(text.split(":")[0], remedy) for text, remedy in found] == [
        ("version 2", Remedy.PERSON),
        ("version 3", Remedy.PERSON),
    ]
    assert all("card.md was altered" in text for text, _ in found)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_command_says_what_it_found_and_whether_a_person_is_needed(
    registry: MlflowRegistry, three: str, ledger: Ledger, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    """--check changes nothing and fails on any drift; without it only what was edited fails."""
    operator = Actor.create(tmp_path / "key.pem", name="operator")
    key = operator.public_key
    ledger.enrol(name="operator", public_key=key, roles=["operator"], actor=ME, now=NOW)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_KEY", str(tmp_path / "key.pem"))
    MlflowClient().delete_registered_model_alias(three, "champion")

    def said(*, check: bool) -> tuple[int, str]:
        code = 0
        try:
            command(three, check=check)
        except typer.Exit as e:
            code = e.exit_code
        return code, capsys.readouterr().out

    drift = f"{three}: alias champion names nothing; the ledger says version 2: "
    assert said(check=True) == (1, drift + "can be repaired, leave out --check\n")
    assert said(check=False) == (0, drift + "repaired\n")
    assert said(check=True) == (0, f"{three}: registry and ledger agree\n")
    assert ledger.entries(three)[-1].actor == "operator"

    registry.tag(three, 1, {"penstock.owner": "nobody"})
    edited = f"{three}: version 1: tag penstock.owner says nobody, it was registered with someone"
    assert said(check=False) == (1, f"{edited}: needs a person\n")
