"""Law of crashes: a registration killed anywhere and run again ends as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from penstock.bundle import Bundle
from penstock.ledger import Ledger, Stage
from penstock.register.mlflow import MlflowRegistry
from penstock.register.reconcile import reconcile
from penstock.register.registry import described
from tests.register import standin
from tests.register.test_record import enter


def killed(
    processes: ForkServerContext, target: Callable[..., None], packaged: Bundle, folder: Path,
    backend: str, kill: standin.Kill,
) -> None:  # fmt: skip
    """Do something in a process of its own, which is killed on the way."""
    environment = standin.environment(backend, folder)
    arguments = (packaged.path, ledger_url(folder), environment, kill)
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join(60)

    assert process.exitcode == standin.KILLED


KILLS = [("before", *standin.POINTS[0]), *(("after", *point) for point in standin.POINTS)]


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: "-".join(map(str, kill)))
def test_killed_anywhere_it_is_finished_and_not_doubled(
    registry: MlflowRegistry, workload: str, ledger: Ledger, backend: str,
    processes: ForkServerContext, tmp_path: Path, kill: standin.Kill,
):  # fmt: skip
    """One version, one entry, one run, one copy; tags, numbers and parameters as without a kill."""
    packaged = standin.package(tmp_path / "p", workload=workload)
    killed(processes, standin.register, packaged, tmp_path, backend, kill)

    again = enter(packaged, registry, ledger)

    assert again == (1, Stage.NONE)
    assert reconcile(registry, workload, ledger.entries(workload)) == []
    assert standin.picture(backend, workload, ledger) == whole(packaged, workload)


AFTERWARDS = [(when, *point) for point in standin.AFTERWARDS for when in ("before", "after")]


@pytest.mark.parametrize("kill", AFTERWARDS, ids=lambda kill: "-".join(map(str, kill)))
def test_killed_on_the_way_to_staging_both_books_agree_in_the_end(
    registry: MlflowRegistry, workload: str, ledger: Ledger, backend: str,
    processes: ForkServerContext, tmp_path: Path, kill: standin.Kill,
):  # fmt: skip
    """Around the move, the alias and its entry: asked again, one of each, and no difference."""
    packaged = standin.package(tmp_path / "p", workload=workload)
    killed(processes, standin.register_and_stage, packaged, tmp_path, backend, kill)

    enter(packaged, registry, ledger)
    standin.stage(workload, ledger)

    entries = ledger.entries(workload)
    assert [e.kind for e in entries] == ["registered", "moved", "aliases"]
    assert reconcile(registry, workload, entries) == []
    assert registry.state(workload).aliases == {"challenger": 1}


def whole(packaged: Bundle, workload: str) -> dict[str, object]:
    """Return what a registration leaves that nobody interrupted."""
    params = {"epochs": "2", "model": "m", "seed": "7", "data": "digits-snapshot"}
    tags = described(packaged, standin.EVIDENCE)
    body = {"fingerprint": packaged.fingerprint, "digest": packaged.digest, "rehearsal": None}
    metrics = {"accuracy": 0.5}
    return {
        "ledger": [("registered", 1, {**standin.EVIDENCE, **body})],
        "versions": [(1, f"# {workload}: gate pass\n", tags, params, metrics, "FINISHED")],
        "runs": ["package", "pipeline"],
        "models": [(packaged.fingerprint, "READY", params, list(metrics.items()))],
    }


def test_what_nobody_registers_again_is_named(
    registry: MlflowRegistry, workload: str, ledger: Ledger, backend: str,
    processes: ForkServerContext, tmp_path: Path,
):  # fmt: skip
    """A run without a version and a version without an entry are both found, and neither serves."""
    environment, url = standin.environment(backend, tmp_path), ledger_url(tmp_path)
    for model, effect in (("m", "create_logged_model"), ("n", "create_model_version")):
        packaged = standin.package(tmp_path / model, workload=workload, model=model)
        arguments = (packaged.path, url, environment, ("after", effect, 1))
        process = processes.Process(target=standin.register, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode == standin.KILLED

    found = [d.text for d in reconcile(registry, workload, ledger.entries(workload))]

    assert len(found) == 2
    assert found[0].startswith("version 1: the ledger does not know it")
    assert "no version names its package" in found[1]


def ledger_url(folder: Path) -> str:
    """Return the address of the ledger that the fixture opens."""
    return f"sqlite:///{folder / 'ledger.db'}"
