"""Packages small enough to register hundreds of, and processes that end at a point."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from penstock.bundle import Bundle, Recipe, Summary, read, write, write_json, write_text
from penstock.ledger import Ledger, Stage, stage_of
from penstock.register.mlflow import MlflowRegistry
from penstock.register.reconcile import follow
from penstock.register.record import record
from penstock.request import Contract, Feature
from tests.bundles import NOW
from tests.people import person

EVIDENCE = {"evidence": {"gate": "sha256:9"}, "keep_until": (NOW + timedelta(days=365)).isoformat()}
"""What the register step hands over besides the package."""

Kill = tuple[str, str, int]
"""Before or after which call of which effect a process ends."""

KILLED = 86
"""Exit code of a process that ended itself at its point."""

POINTS = (
    ("create_registered_model", 1),
    ("create_run", 1),  # the registration's own
    ("create_run", 2),  # the one of the pipeline above it
    ("set_terminated", 1),  # the pipeline's
    ("log_batch", 1),  # parameters
    ("create_logged_model", 1),
    ("log_model_artifacts", 1),  # the package
    ("log_model_artifacts", 2),  # MLmodel
    ("finalize_logged_model", 1),
    ("log_batch", 2),  # metrics
    ("set_terminated", 2),
    ("create_model_version", 1),
    ("append", 1),
)
"""Every effect of a registration, in order: what is called, and which of its calls."""


AFTERWARDS = (
    ("move", 1),  # into STAGING
    ("set_registered_model_alias", 1),
    ("append", 3),  # which versions the aliases name
)
"""Every effect of what follows a registration."""


def package(path: Path, *, workload: str = "digits", gate: str = "g", **over: Any) -> Bundle:
    """Write what registration reads of a package; ``model`` and ``rehearsal`` make another one."""
    model, rehearsal = over.get("model", "m"), over.get("rehearsal")

    def make(folder: Path) -> Summary:
        write_text(folder / "card.md", f"# {workload}: gate pass\n{over.get('card', '')}")
        write_json(folder / "lineage.json", lineage(model, rehearsal))
        write_json(folder / "serving.json", contract(workload).to_dict())
        (folder / "verdicts").mkdir()
        write_json(folder / "verdicts" / "gate.json", {"outcome": "pass", "checks": []})
        return Summary("pass", "made for a test")

    settings, inputs = {"rehearsal": rehearsal or ""}, {"gate": gate, "model": model}
    recipe = Recipe(kind="package", workload=workload, inputs=inputs, settings=settings)
    return write(path, recipe, make=make, now=NOW)


def contract(workload: str) -> Contract:
    """Return what requests hold: a list and a number that may be missing."""
    features = (
        Feature(name="pixels", dtype="list<element: float>", length=64),
        Feature(name="age", dtype="int64", nullable=True),
    )
    return Contract(workload=workload, classes=10, threshold=None, rows=64, features=features)


def lineage(model: str, rehearsal: str | None) -> dict[str, Any]:
    """Return what registration reads of a package's lineage."""
    return {
        "owner": "someone",
        "code": {"git": "0123abc", "sources": "sha256:1"},
        "data": "digits-snapshot",
        "data_digest": "sha256:2",
        "feature_definitions": "sha256:3",
        "hyperparameters": {"epochs": 2, "model": model},
        "seed": 7,
        "image": {"register": "sha256:4"},
        "metrics": {"accuracy": 0.5, "note": "not a number"},
        "budget": {"latency_p99_ms": 1.5, "peak_memory_mb": 80.0, "cores": 1},
        "rehearsal": rehearsal,
    }


def environment(uri: str, folder: Path) -> dict[str, str]:
    """Return what a process needs to know to register."""
    return {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PENSTOCK_STORE": str(folder / "store"),
        "PENSTOCK_RUN": "20260105-1",
    }


def register(
    packaged: Path,
    ledger_url: str,
    environ: Mapping[str, str],
    kill: Kill | None = None,
    gate: Any = None,
) -> None:
    """Register a package as a process of its own does.

    Args:
        kill: Where it ends itself.
        gate: Barrier at which it waits for the others.
    """
    os.environ.update(environ)
    if gate is not None:
        gate.wait(60)
    ledger = Ledger(ledger_url)
    with killed_at(kill):
        record(
            read(packaged),
            MlflowRegistry,
            ledger,
            actor=person("pipeline"),
            now=NOW,
            evidence=EVIDENCE,
        )
    ledger.close()


def stage(workload: str, ledger: Ledger) -> None:
    """Let version 1 in, and the aliases follow, as the end of the register step does."""
    if stage_of(ledger.entries(workload), 1) is Stage.NONE:
        actor = person("pipeline")
        ledger.move(
            workload=workload, version=1, to=Stage.STAGING, reason="t", actor=actor, now=NOW
        )
    follow(workload, MlflowRegistry, ledger, actor=person("pipeline"), now=NOW)


def register_and_stage(
    packaged: Path, ledger_url: str, environ: Mapping[str, str], kill: Kill
) -> None:
    """Register a package and stage it as a process of its own does, which ends itself."""
    with killed_at(kill):
        register(packaged, ledger_url, environ)
        ledger = Ledger(ledger_url)
        stage(read(packaged).manifest["workload"], ledger)


@contextmanager
def killed_at(kill: Kill | None) -> Iterator[None]:
    """End this process before or after one call of an effect; no clean-up is run."""
    if kill is None:
        yield
        return
    when, effect, nth = kill
    owner: Any = Ledger if effect in ("append", "move") else MlflowClient
    real, calls = getattr(owner, effect), itertools.count(1)

    def ending(*given: Any, **named: Any) -> Any:
        last = next(calls) == nth
        done = None if last and when == "before" else real(*given, **named)
        if last:
            os._exit(KILLED)
        return done

    setattr(owner, effect, ending)
    try:
        yield
    finally:
        setattr(owner, effect, real)


def picture(uri: str, workload: str, ledger: Ledger) -> dict[str, Any]:
    """Return all that matters of both books, without names that MLflow draws by chance."""
    client = MlflowClient(uri)
    versions = list(client.search_model_versions(f"name = '{workload}'"))
    experiment = client.get_experiment_by_name(workload)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    by_id = {run.info.run_id: run for run in runs}
    models = client.search_logged_models([experiment.experiment_id])
    return {
        "ledger": [(e.kind, e.version, _placeless(e.body)) for e in ledger.entries(workload)],
        "versions": [
            (int(v.version), v.description, dict(v.tags), by_id[v.run_id].data.params,
             by_id[v.run_id].data.metrics, by_id[v.run_id].info.status)
            for v in versions
        ],
        "runs": sorted(run.data.tags["penstock.kind"] for run in runs),
        "models": [
            (m.name, str(m.status), dict(m.params), [(x.key, x.value) for x in m.metrics or ()])
            for m in models
        ],
    }  # fmt: skip


def _placeless(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "package"}
