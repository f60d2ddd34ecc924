"""Package: everything a serving pod needs, and everything a reader of the record needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, code_revision, write_json, write_text
from penstock.machine import environment, git_revision
from penstock.stage import verdict_of
from penstock.verdict import Outcome
from penstock.workload import Workload, settings_of

GOLDEN = 8
"""Holdout rows whose answers are recorded; a server must repeat them before it is ready."""

GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a golden logit: another processor may round the last bits otherwise."""

NOT_SEARCHED = ("seed", "classes", "metric")
"""What a model's settings hold besides hyper-parameters."""

VERDICTS = ("data-verdict", "equivalence", "gate")


def make(
    folder: Path, declared: Workload, inputs: Mapping[str, Bundle], *, rehearsal: str
) -> Summary:
    """Fill a package: graph, contract, golden answers, baseline, lineage, verdicts, card."""
    graph = inputs["serving"].file(workloads.served_graph(declared))
    shutil.copy(graph, folder / "model.onnx")
    contract = {"workload": declared.name, "classes": declared.classes, **_input_contract(declared)}
    write_json(folder / "serving.json", contract)
    write_json(folder / "golden.json", _golden(folder / "model.onnx", declared, inputs["snapshot"]))
    scores = inputs["gate"].json("scores.json")["challenger"]
    write_json(folder / "baseline.json", {"accuracy": scores["accuracy"], "n": scores["n"]})
    record = lineage(declared, inputs, rehearsal=rehearsal)
    write_json(folder / "lineage.json", record)
    (folder / "verdicts").mkdir()
    for kind in VERDICTS:
        write_json(folder / "verdicts" / f"{kind}.json", verdict_of(inputs[kind]).to_dict())
    write_text(folder / "card.md", card(declared, record, inputs))
    return Summary(
        Outcome.PASS, f"packaged the {declared.serve} graph with {GOLDEN} golden requests"
    )


def _input_contract(declared: Workload) -> dict[str, Any]:
    column = next(c for c in declared.data.columns if c.length is not None)
    return {
        "features": [column.name],
        "width": column.length,
        "low": column.low,
        "high": column.high,
    }


def _golden(graph: Path, declared: Workload, snapshot: Bundle) -> dict[str, Any]:
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only when there is work

    name = str(_input_contract(declared)["features"][0])
    rows = pq.read_table(snapshot.file("holdout.parquet")).slice(0, GOLDEN)
    raw_nd = np.array(rows[name].to_pylist(), np.float32)
    transform = workloads.part(declared.name, "transform")
    logits_nk = OnnxModel(graph).run(transform.request_input(raw_nd))
    return {
        "tolerance": GOLDEN_TOLERANCE,
        "requests": [
            {name: raw.tolist(), "logits": [float(v) for v in logits]}
            for raw, logits in zip(raw_nd, logits_nk, strict=True)
        ],
    }


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


def card(declared: Workload, record: Mapping[str, Any], inputs: Mapping[str, Bundle]) -> str:
    """Return the model card in Markdown: the verdict first, then what it is and what made it."""
    gate = verdict_of(inputs["gate"])
    rows = [
        ("Owner", declared.owner),
        ("Serves", f"{declared.serve} graph, {declared.classes} classes"),
        ("Accuracy on the holdout", f"{record['metrics']['accuracy']:.4f}"),
        ("Seed", record["seed"]),
        ("Latency when measured", _latency(record["budget"])),
        ("Engines", inputs["engine"].summary.line),
        ("Data", record["data"]),
        ("Code", record["code"]["git"] or record["code"]["sources"]),
        ("Trained on", inputs["model"].json("certificate.json")["device"]),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    verdicts = "\n\n".join(
        f"### {kind}\n\n```\n{verdict_of(inputs[kind])}\n```" for kind in VERDICTS
    )
    rehearsal = record["rehearsal"]
    warning = f"\n**Rehearsal: deliberately broken ({rehearsal}).**\n" if rehearsal else ""
    return (
        f"# {declared.title}: gate {gate.outcome}\n{warning}\n| | |\n|---|---|\n{table}\n\n"
        f"## Verdicts\n\n{verdicts}\n"
    )


def _latency(budget: Mapping[str, float]) -> str:
    if "latency_p99_ms" not in budget:
        return "not measured"
    return (
        f"p50 {budget['latency_p50_ms']:.2f} ms, p99 {budget['latency_p99_ms']:.2f} ms at the "
        f"usual batch; {budget['peak_memory_mb']:.0f} MB"
    )
