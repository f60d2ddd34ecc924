"""Model card: what a version is for, how good it is and for whom, and where it ends; as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.bundle import hash_file
from penstock.register import facts
from penstock.register.facts import Inputs, Record
from penstock.workload import Approval, AtMost, Workload, settings_of

FORMAT = 1

BUDGETS = ("latency_p50_ms", "latency_p99_ms", "peak_memory_mb", "cold_start_s")


def compose(folder: Path, declared: Workload, inputs: Inputs, *, lineage: Record) -> dict[str, Any]:
    """Return the card of a version as plain values; ``card.schema.json`` says their form.

    The sections are those of Mitchell et al. (2019), *Model Cards for Model Reporting*, FAccT. What
    has no evidence is None or empty, never left out.
    """
    gate, scored = facts.verdict(inputs, "gate"), facts.scores(inputs)
    behaviours: list[Record] = facts.held(inputs, "gate", "behaviours.json") or []
    document: dict[str, Any] = {
        "format": FORMAT,
        "workload": declared.name,
        "title": declared.title,
        "owner": declared.owner,
        "approval": str(declared.approval),
        "retention_days": declared.retention.days,
        "rehearsal": lineage.get("rehearsal"),
        "verdict": {"outcome": str(gate.outcome), "reason": gate.reason},
        "version": _version(folder, inputs, lineage),
        "about": settings_of(declared.about),
        "decides": _decides(declared),
        "data": facts.data(declared, inputs, lineage),
        "scores": scored,
        "sensitive": [s.name for s in declared.sensitive],
        "behaviours": list(behaviours),
        "training": facts.training(inputs),
        "quantization": facts.held(inputs, "serving", "quantize.json"),
        "equivalence": facts.equivalence(inputs),
        "resources": facts.resources(declared, inputs, lineage),
        "verdicts": {k: facts.verdict(inputs, k).to_dict() for k in facts.VERDICTS},
        "policy": _policy(declared),
        "constraints": _constraints(folder, declared, lineage),
        "evidence": facts.digests(inputs),
    }
    return {**document, "model_risk": model_risk(declared, document)}


def _version(folder: Path, inputs: Inputs, lineage: Record) -> dict[str, Any]:
    graph = folder / "model.onnx"
    return {
        "model": hash_file(graph) if graph.exists() else lineage.get("model"),
        "architecture": facts.architecture(inputs.get("model")),
        "seed": lineage.get("seed"),
        "code": lineage.get("code"),
        "image": lineage.get("image"),
        "environment": lineage.get("environment"),
        "trained_by": lineage.get("trained_by"),
    }


def _decides(declared: Workload) -> dict[str, Any]:
    costs = declared.costs
    return {
        "label": declared.label,
        "classes": declared.classes,
        "metric": declared.metric,
        "threshold": declared.threshold,
        "favourable": declared.favourable if declared.sensitive else None,
        "costs": None if costs is None else settings_of(costs),
    }


def _policy(declared: Workload) -> dict[str, Any]:
    return {
        "gate": [{"rule": type(rule).__name__, **vars(rule)} for rule in declared.gate],
        "rollout": settings_of(declared.rollout),
        "min_support": declared.min_support,
    }


def _constraints(folder: Path, declared: Workload, lineage: Record) -> dict[str, Any]:
    """Return what whoever serves or calls the version must keep to, for machines to read."""
    budget: Record = lineage.get("budget") or {}
    limits = {
        r.metric: r.value
        for r in declared.gate
        if isinstance(r, AtMost) and r.metric in BUDGETS and not r.slices
    }
    return {
        "input": _input(folder),
        "columns": [settings_of(column) for column in declared.data.columns],
        "freshness": [settings_of(f) for f in declared.data.freshness],
        "output": {"logits": declared.classes, "threshold": declared.threshold},
        "resources": {
            name: {"measured": budget.get(name), "limit": limits.get(name)} for name in BUDGETS
        },
        "out_of_scope": list(declared.about.out_of_scope),
    }


def _input(folder: Path) -> Any:
    """Return the input contract that was packaged before the card, if it was."""
    path = folder / "serving.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def model_risk(declared: Workload, card: Record) -> list[dict[str, Any]] | None:
    """Return the headings a model-risk reader looks for, each with its evidence or None.

    None for a workload that no person approves. A heading names the parts of the card that are its
    evidence; what happens after release, or in another person's review, has none yet.
    """
    if declared.approval is not Approval.PERSON:
        return None
    evidence: dict[str, list[str]] = {
        "Model inventory": ["version.model", "owner"],
        "Tier": ["approval"],
        "Intended use": ["about.purpose", "about.out_of_scope"],
        "Conceptual soundness": ["about.methodology", "about.assumptions", "behaviours"],
        "Outcomes analysis": ["scores.metrics", "scores.slices"],
        "Adverse impact ratio": ["scores.fairness"],
        "Effective challenge": [],
        "Ongoing monitoring": [],
        "Reason codes": [],
    }
    return [
        {"heading": heading, "evidence": [name for name in names if _at(card, name)]}
        for heading, names in evidence.items()
    ]


def _at(document: Any, name: str) -> Any:
    """Return what a dotted name leads to, or None.

    >>> _at({"a": {"b": 1}}, "a.b"), _at({"a": {}}, "a.b")
    (1, None)
    """
    for part in name.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document
