"""Small real versions: bundles of every stage of digits, and what a package says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.bundle import (
    MEASURED,
    Bundle,
    Recipe,
    Summary,
    code_revision,
    read,
    write,
    write_json,
)
from penstock.machine import environment
from penstock.register.lineage import lineage
from penstock.register.profile import profile
from penstock.register.weighed import Made
from penstock.workload import load, root, sources
from tests import bundles
from tests.bundles import NOW

PASSED = {
    "outcome": "pass",
    "checks": [
        {"name": "accuracy", "outcome": "pass", "reason": "high", "value": None, "limit": None}
    ],
}

TRAINING = {
    "classes": 10, "metric": "accuracy", "seed": 42, "epochs": 10, "batch_size": 64,
    "learning_rate": 0.004, "prefetch": 0,
}  # fmt: skip


def estimate(value: float, *, within: float = 0.01) -> dict[str, Any]:
    """Return a number with its interval, as the judge writes it."""
    return {"value": value, "low": value - within, "high": value + within, "n": 600}


def scores(accuracy: float, *, difference: float | None = None) -> dict[str, Any]:
    """Return the judge's numbers as far as versions are compared by them."""
    against = None if difference is None else estimate(difference, within=0.002)
    judged = {"challenger": estimate(accuracy), "champion": None, "difference": against}
    return {"n": 600, "metric": "accuracy", "metrics": {"accuracy": judged}}


def inputs(
    folder: Path,
    *,
    train: pa.Table | None = None,
    holdout: pa.Table | None = None,
    training: Mapping[str, Any] | None = None,
    libraries: Mapping[str, str] | None = None,
    weights: str = "w",
    graph: str = "g",
    calibrator: str = "entropy",
    accuracy: float = 0.97,
    difference: float | None = None,
) -> dict[str, Bundle]:
    """Write what every stage leaves, as far as a lineage reads it."""
    snapshot = bundles.snapshot(folder / "snapshot", train=train, holdout=holdout)
    bundles.verdict(folder / "data-verdict", "data-verdict")
    here = environment(root())
    here["libraries"] |= dict(libraries or {})

    def model(made: Path) -> None:
        write_json(made / "config.json", {**TRAINING, **(training or {})})
        (made / "model.safetensors").write_text(weights)
        (made / MEASURED).mkdir()
        write_json(made / MEASURED / "environment.json", here)

    def serving(made: Path) -> None:
        cpu = {"float_layers": []}
        document = {"calibrator": calibrator, "float_layers": [], "cpu": cpu}
        write_json(made / "quantize.json", document)
        (made / "model.int8-cpu.onnx").write_text(graph)

    def gate(made: Path) -> None:
        write_json(made / "verdict.json", PASSED)
        write_json(made / "scores.json", scores(accuracy, difference=difference))

    steps = [{"step": "int8", "slices": [{"agreement": 0.99}]}]
    costs = {"artifacts": {"int8-cpu": {"latency_p50_ms": 0.7}}}
    named = {"snapshot": read(snapshot).fingerprint}
    trained_by = code_revision(*sources("train", "digits"))
    recipe = Recipe(kind="model", workload="digits", inputs=named, code=trained_by)
    write(folder / "model", recipe, make=lambda f: _passed(model, f), now=NOW)
    bundles.bundle(folder / "serving", "int8", serving, onnx="digits-graph", **named)
    ladder = folder / "equivalence"
    bundles.bundle(ladder, "equivalence", lambda f: write_json(f / "ladder.json", {"steps": steps}))
    bundles.bundle(folder / "engine", "engine", lambda f: write_json(f / "budgets.json", costs))
    bundles.bundle(folder / "gate", "gate", gate, seed=weights)
    names = ("snapshot", "data-verdict", "model", "serving", "engine", "equivalence", "gate")
    return {name: read(folder / name) for name in names}


def _passed(make: Callable[[Path], None], folder: Path) -> Summary:
    make(folder)
    return Summary("pass", "made for a test")


def package(folder: Path, *, champion: Bundle | None = None, **asked: Any) -> Bundle:
    """Write a package of such bundles: its lineage, profile, scores and the gate's verdict."""
    given = inputs(folder / "stages", **asked)
    known = given if champion is None else {**given, "champion": champion}

    def make(made: Path) -> Summary:
        record = lineage(load("digits"), known, rehearsal="", trained_by="trainer")
        write_json(made / "lineage.json", record)
        write_json(made / "profile.json", profile(given))
        write_json(made / "scores.json", given["gate"].json("scores.json"))
        (made / "verdicts").mkdir()
        write_json(made / "verdicts" / "gate.json", PASSED)
        return Summary("pass", "made for a test")

    settings = {"asked": [asked.get("weights", "w"), asked.get("accuracy", 0.97)]}
    recipe = Recipe(kind="package", workload="digits", settings=settings)
    return write(folder / "package", recipe, make=make, now=NOW)


def version(folder: Path, name: str = "a version", **asked: Any) -> Made:
    """Return what is compared of such a package."""
    from penstock.register.differ import made  # noqa: PLC0415 - the subject of these tests

    return made(package(folder, **asked), name=name)
