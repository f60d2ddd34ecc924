"""Lineage: what made a version: code, data, settings, seed, environment, image, metrics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from penstock import workload as workloads
from penstock.bundle import Bundle, code_revision
from penstock.machine import environment, git_revision
from penstock.workload import Workload, settings_of

NOT_SEARCHED = ("seed", "classes", "metric")
"""What a model's settings hold besides hyper-parameters."""


def lineage(declared: Workload, inputs: Mapping[str, Bundle], *, rehearsal: str) -> dict[str, Any]:
    """Return what made this version: code, data, settings, seed, environment, verdicts."""
    training: dict[str, Any] = inputs["model"].json("config.json")
    scores = inputs["gate"].json("scores.json")["challenger"]
    steps = inputs["equivalence"].json("ladder.json")["steps"]
    agreed = {f"agreement_{s['step']}": s["slices"][0]["agreement"] for s in steps}
    return {
        "workload": declared.name,
        "owner": declared.owner,
        "code": {
            "git": git_revision(workloads.root()),
            "sources": code_revision(workloads.root() / "penstock"),
        },
        "data": inputs["snapshot"].fingerprint,
        "data_digest": inputs["snapshot"].digest,
        "feature_definitions": code_revision(*workloads.definitions(declared.name)),
        "hyperparameters": {k: v for k, v in training.items() if k not in NOT_SEARCHED},
        "seed": training["seed"],
        "image": os.environ.get("PENSTOCK_IMAGE") or None,
        "environment": environment(workloads.root()),
        "metrics": {
            "accuracy": scores["accuracy"],
            **agreed,
        },
        "budget": budget(declared, inputs["engine"]),
        "artifacts": {kind: bundle.fingerprint for kind, bundle in inputs.items()},
        "policy": {"rollout": settings_of(declared.rollout)},
        "rehearsal": rehearsal or None,
    }


def budget(declared: Workload, engine: Bundle) -> dict[str, float]:
    """Return what the serving graph cost when it was measured: latency, throughput, memory."""
    artifacts = engine.json("budgets.json")["artifacts"]
    found: dict[str, Any] = artifacts[workloads.served_artifact(declared)]
    return {n: float(v) for n, v in found.items() if isinstance(v, int | float)}
