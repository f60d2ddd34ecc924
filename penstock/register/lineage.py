"""Lineage: what made a version: code, data, settings, seed, environment, image, metrics."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock import workload as workloads
from penstock.bundle import MEASURED, Bundle, code_revision, hash_file
from penstock.machine import environment, git_revision
from penstock.workload import Workload, settings_of

NOT_SEARCHED = ("seed", "classes", "metric")
"""What a model's settings hold besides hyper-parameters."""

FOLDERS = ("penstock", "components", "pipelines", "serving", "feature_repo")
"""Whose sources are hashed one by one, with those of the workload."""

ENVIRONMENT = f"{MEASURED}/environment.json"


def lineage(
    declared: Workload,
    inputs: Mapping[str, Bundle],
    *,
    rehearsal: str,
    trained_by: str | None = None,
) -> dict[str, Any]:
    """Return what made this version: code, data, settings, seed, environment, verdicts.

    Args:
        inputs: The stages' bundles: snapshot, data-verdict, model, serving, engine, equivalence,
            gate, and champion where one served.
        trained_by: Name of the actor who asked for the training.
    """
    root, training = workloads.root(), inputs["model"].json("config.json")
    serving, snapshot = inputs["serving"], inputs["snapshot"]
    return {
        "workload": declared.name,
        "owner": declared.owner,
        "trained_by": trained_by,
        "code": {"git": git_revision(root), "sources": code_revision(root / "penstock")},
        "training_code": {
            "recorded": inputs["model"].manifest["code"],
            "here": code_revision(*workloads.sources("train", declared.name)),
        },
        "files": files(root, declared.name),
        "data": snapshot.fingerprint,
        "data_digest": snapshot.digest,
        "data_source": snapshot.manifest["settings"].get("data"),
        "feature_service": declared.feature_service,
        "feature_definitions": code_revision(*workloads.definitions(declared.name)),
        "features": features(declared.name),
        "hyperparameters": {k: v for k, v in training.items() if k not in NOT_SEARCHED},
        "seed": training["seed"],
        "image": os.environ.get("PENSTOCK_IMAGE") or None,
        "environment": _environment(inputs["model"], root),
        "metrics": {**_metrics(inputs["gate"]), **_agreements(inputs["equivalence"])},
        "budget": budget(declared, inputs["engine"]),
        "artifacts": {kind: bundle.fingerprint for kind, bundle in inputs.items()},
        "digests": {kind: bundle.digest for kind, bundle in inputs.items()},
        "stages": {kind: _stage(bundle) for kind, bundle in inputs.items() if kind != "champion"},
        "model": hash_file(serving.file(workloads.served_graph(declared))),
        "choices": _choices(declared, serving),
        "policy": {
            "rollout": settings_of(declared.rollout),
            "gate": inputs["gate"].manifest["settings"],
        },
        "rehearsal": rehearsal or None,
    }


def incomplete(lineage: Mapping[str, Any]) -> list[str]:
    """Return which of code, data, config and environment are not known, each with what is missing.

    An output is a function of all four; a version that lacks one cannot be made again. Commit and
    ``files`` are those of the checkout that registers: they say how to make the model again only
    where its own manifest names the same sources.

    >>> same = {"recorded": "sha256:2", "here": "sha256:2"}
    >>> made = {"code": {"git": "4c1d"}, "training_code": same}
    >>> incomplete({**made, "data": "digits-1", "data_digest": "sha256:1"})[0]
    'config: no hyperparameters or no seed'
    """
    here: Mapping[str, Any] = lineage.get("environment", {})
    in_image = bool(lineage.get("image"))
    trained: Mapping[str, Any] = lineage.get("training_code") or {}
    commit = lineage.get("code", {}).get("git") or (in_image and lineage.get("files"))
    needed: dict[str, tuple[object, ...]] = {
        "code: no git commit, and no image that holds the sources": (commit,),
        "code: the model was not trained with the sources listed here; see stages.model.code": (
            trained.get("recorded"),
            trained.get("recorded") == trained.get("here"),
        ),
        "data: no fingerprint or no digest of the snapshot": (
            lineage.get("data"),
            lineage.get("data_digest"),
        ),
        "config: no hyperparameters or no seed": (
            lineage.get("hyperparameters"),
            lineage.get("seed") is not None,
        ),
        "environment: no Python, no libraries, or neither lock nor image": (
            here.get("python"),
            here.get("libraries"),
            here.get("lock") or in_image,
        ),
    }
    return [missing for missing, held in needed.items() if not all(held)]


def features(name: str) -> dict[str, str]:
    """Return a hash of each feature definition of a workload: views, sources, services, entities.

    Layout and comments do not enter it. Entities that the workload does not use are left out.
    """
    found: dict[str, str] = {}
    used = _names(workloads.root() / "feature_repo" / f"{name}.py")
    for path in workloads.definitions(name):
        if path.suffix != ".py":
            found[path.name] = hash_file(path)
            continue
        own = path.stem == name
        found |= {f"{path.stem}.{n}": h for n, h in _defined(path) if own or n in used}
    return found


def _names(path: Path) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Name)}


def _defined(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the hash of everything a module of definitions sets."""
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.Assign):
            targets = [n for target in statement.targets for n in ast.walk(target)]
            names = [n.id for n in targets if isinstance(n, ast.Name)]
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names = [statement.name]
        else:
            continue
        said = hashlib.sha256(ast.unparse(statement).encode()).hexdigest()
        yield from ((name, f"sha256:{said}") for name in names)


def files(root: Path, name: str) -> dict[str, str]:
    """Return the hash of every source of the library and of a workload, by path below the root."""
    found = [
        path
        for folder in (*FOLDERS, f"workloads/{name}")
        for kind in ("*.py", "*.yaml")
        for path in (root / folder).rglob(kind)
    ]
    return {p.relative_to(root).as_posix(): hash_file(p) for p in sorted(found)}


def _stage(bundle: Bundle) -> dict[str, Any]:
    """Return of one stage's bundle what names it and what it was made from."""
    said = bundle.manifest
    kept = ("kind", "fingerprint", "inputs", "settings", "code", "environment", "created_at")
    made = {n: f["sha256"] for n, f in said["files"].items() if not n.startswith(f"{MEASURED}/")}
    return {**{n: said[n] for n in kept}, "digest": bundle.digest, "files": made}


def _environment(model: Bundle, root: Path) -> dict[str, Any]:
    """Return where the model was trained; this machine where the model does not say."""
    if ENVIRONMENT in model.manifest["files"]:
        return {**model.json(ENVIRONMENT), "seen_at": "training"}
    return {**environment(root), "seen_at": "registration"}


def _metrics(gate: Bundle) -> dict[str, float]:
    judged: Mapping[str, Any] = gate.json("scores.json")["metrics"]
    return {name: float(m["challenger"]["value"]) for name, m in judged.items() if m["challenger"]}


def _agreements(equivalence: Bundle) -> dict[str, float]:
    steps = equivalence.json("ladder.json")["steps"]
    return {f"agreement_{s['step']}": s["slices"][0]["agreement"] for s in steps}


def _choices(declared: Workload, serving: Bundle) -> dict[str, Any]:
    """Return what was chosen on the way from the model to the graph that serves."""
    own = {"serve": declared.serve, "threshold": declared.threshold}
    if "quantize.json" not in serving.manifest["files"]:
        return own
    said = serving.json("quantize.json")
    on_cpu = said["cpu"]["float_layers"]
    return {
        **own,
        "calibrator": said["calibrator"],
        "float_layers": said["float_layers"],
        "float_layers_on_cpu": on_cpu,
    }


def budget(declared: Workload, engine: Bundle) -> dict[str, float]:
    """Return what the serving graph cost when it was measured: latency, throughput, memory."""
    artifacts = engine.json("budgets.json")["artifacts"]
    found: dict[str, Any] = artifacts[workloads.served_artifact(declared)]
    return {n: float(v) for n, v in found.items() if isinstance(v, int | float)}
