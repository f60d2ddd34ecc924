"""Laws of two pipelines that register at once: one after the other, and no number twice."""

from __future__ import annotations

from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from mlflow import MlflowClient

from penstock.ledger import REGISTERED, Ledger
from penstock.register.mlflow import MlflowRegistry
from penstock.register.reconcile import Remedy, reconcile
from tests.register import standin

AT_ONCE = 2


def register_at_once(
    processes: ForkServerContext, packages: list[Path], ledger_url: str, environment: dict[str, str]
) -> None:
    """Register every package in a process of its own, all let go at the same moment."""
    gate = processes.Barrier(len(packages))
    running = [
        processes.Process(
            target=standin.register, args=(path, ledger_url, environment), kwargs={"gate": gate}
        )
        for path in packages
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0] * len(packages)


def agreed(registry: MlflowRegistry, ledger: Ledger, workload: str) -> dict[int, str]:
    """Return the digest of each registered version, after holding both books together."""
    entries = [e for e in ledger.entries(workload) if e.kind == REGISTERED]
    versions = [e.version for e in entries]
    assert len(versions) == len(set(versions))
    ledger.verify()
    found = reconcile(registry, workload, ledger.entries(workload))
    assert not [d.text for d in found if d.remedy is Remedy.PERSON]
    for entry in entries:
        assert entry.version is not None
        assert registry.package(workload, entry.version).digest == entry.body["digest"]
    return {e.version or 0: e.body["digest"] for e in entries}


@pytest.mark.parametrize("same", [True, False], ids=["the same package", "different packages"])
def test_both_are_registered(
    registry: MlflowRegistry, workload: str, ledger: Ledger, backend: str,
    processes: ForkServerContext, tmp_path: Path, same: bool,
):  # fmt: skip
    """The same package becomes one version, different ones become two; both books agree."""
    made = [
        standin.package(tmp_path / str(n), workload=workload, model="m" if same else str(n))
        for n in range(AT_ONCE)
    ]
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    environment = standin.environment(backend, tmp_path)

    register_at_once(processes, [p.path for p in made], url, environment)

    held = agreed(registry, ledger, workload)
    assert sorted(held.values()) == sorted({p.digest for p in made})
    assert min(held) == 1


@pytest.mark.parametrize("same", [True, False], ids=["the same package", "different packages"])
def test_the_database_may_be_new(
    processes: ForkServerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
):
    """Neither MLflow's tables nor the ledger's are there when both begin."""
    made = [
        standin.package(tmp_path / str(n), model="m" if same else str(n)) for n in range(AT_ONCE)
    ]
    uri, url = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}", f"sqlite:///{tmp_path / 'l.db'}"
    environment = standin.environment(uri, tmp_path)

    register_at_once(processes, [p.path for p in made], url, environment)

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ledger = Ledger(url)
    held = agreed(MlflowRegistry(), ledger, "digits")
    ledger.close()
    assert sorted(held) == list(range(1, 2 if same else 3))
    assert len(MlflowClient(uri).search_model_versions("name = 'digits'")) == len(held)
