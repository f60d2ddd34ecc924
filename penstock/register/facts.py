"""Facts: what the evidence bundles say, gathered for the documents. What is not there is None."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock import workload as workloads
from penstock.bundle import MEASURED, Bundle
from penstock.stage import verdict_of
from penstock.verdict import Verdict
from penstock.workload import Workload

Inputs = Mapping[str, Bundle]
Record = Mapping[str, Any]

VERDICTS = ("data-verdict", "equivalence", "gate")
"""Kinds of input whose verdict a package keeps."""

QUESTIONS = {
    "snapshot": "Was every feature known in time, and does serving look it up alike?",
    "data-verdict": "Are these data fit to train on?",
    "model": "Can the same bits be made again?",
    "serving": "Is the graph that serves the model that was trained?",
    "engine": "What does it cost, and which engines can load it?",
    "equivalence": "Does each step still compute the same thing, for every slice?",
    "gate": "Is it no worse, everywhere it matters?",
}
"""What each input of a package answers, in the order in which it was asked."""

HEADER_BYTES = 8
"""Of a safetensors file: the length of the JSON header that follows, little-endian."""


def held(inputs: Inputs, kind: str, name: str) -> Any:
    """Return a JSON file of an input, or None where there is no such input or file."""
    bundle = inputs.get(kind)
    if bundle is None or name not in bundle.manifest["files"]:
        return None
    return bundle.json(name)


def verdict(inputs: Inputs, kind: str) -> Verdict:
    """Return an input's verdict; without one, the empty verdict, which is an error."""
    if held(inputs, kind, "verdict.json") is None:
        return Verdict(())
    return verdict_of(inputs[kind])


def scores(inputs: Inputs) -> dict[str, Any]:
    """Return the judge's numbers; without them, a document in which every part is missing."""
    parts = ("n", "metric", "threshold", "costs", "roc", "confusion")
    lists = ("slices", "fairness", "reliability", "by_class")
    empty: dict[str, Any] = {**dict.fromkeys(parts), **{n: [] for n in lists}, "metrics": {}}
    found: Record = held(inputs, "gate", "scores.json") or {}
    return {name: found.get(name) or nothing for name, nothing in empty.items()}


def data(declared: Workload, inputs: Inputs, lineage: Record) -> dict[str, Any]:
    """Return which rows and features made the version, and how they were proved."""
    proof: Record = held(inputs, "snapshot", "proof.json") or {}
    online: Record = held(inputs, "snapshot", "online.json") or {}
    views: list[Record] | None = online.get("views")
    snapshot = inputs.get("snapshot")
    return {
        "snapshot": None if snapshot is None else snapshot.fingerprint,
        "digest": None if snapshot is None else snapshot.digest,
        "rows": proof.get("rows"),
        "as_of": proof.get("as_of"),
        "newest": proof.get("newest"),
        "service": declared.feature_service,
        "definitions": lineage.get("feature_definitions"),
        "features": lineage.get("features"),
        "views": None if views is None else {v["name"]: v["features"] for v in views},
        "unused_features": proof.get("unused_features"),
        "planted": proof.get("planted"),
        "online_compared": proof.get("online_compared"),
        "label": declared.label,
        "label_delay_days": declared.label_delay.total_seconds() / 86_400,
        "recorded": declared.recorded,
    }


def resources(declared: Workload, inputs: Inputs, lineage: Record) -> dict[str, Any]:
    """Return what the graph that serves costs: each number with its unit in its name."""
    costs: Record = held(inputs, "engine", "budgets.json") or {}
    served: Record = costs.get("artifacts", {}).get(workloads.served_artifact(declared), {})
    keys = ("batch", "latency_p50_ms", "latency_p99_ms", "throughput_per_s")
    engines: Record = held(inputs, "engine", "engine.json") or {}
    return {
        "graph": declared.serve,
        "budget": dict(lineage.get("budget") or {}),
        "batches": [{k: b[k] for k in keys if k in b} for b in served.get("batches", [])],
        "processor": costs.get("cpu", {}).get("name"),
        "engines": [
            {k: e[k] for k in ("name", "state", "reason")} for e in engines.get("backends", [])
        ],
    }


def equivalence(inputs: Inputs) -> list[dict[str, Any]]:
    """Return each step of the ladder: how near it stays to the one before, on all rows."""
    ladder: Record = held(inputs, "equivalence", "ladder.json") or {}
    keys = ("agreement", "snr_db", "metric_drop", "n", "max_probability_change", "finite")
    return [
        {
            "step": step["step"],
            "against": step["against"],
            "outcome": step.get("outcome"),
            **{k: step["slices"][0].get(k) for k in keys},
            "every_slice_finite": all(
                p.get("finite", False) for p in (*step["slices"], *step.get("beyond", ()))
            ),
        }
        for step in ladder.get("steps", [])
        if step["slices"]
    ]


def training(inputs: Inputs) -> dict[str, Any]:
    """Return how the network was trained: settings, search, and the proof that bits repeat."""
    trials: list[Record] | None = held(inputs, "model", "search.json")
    return {
        "settings": held(inputs, "model", "config.json"),
        "trials": None if trials is None else len(trials),
        "certificate": held(inputs, "model", "certificate.json"),
        "machine": held(inputs, "model", f"{MEASURED}/environment.json"),
        "calibration": held(inputs, "model", "calibration.json"),
    }


def architecture(model: Bundle | None, *, file: str = "model.safetensors") -> dict[str, Any] | None:
    """Return a network's shape: its tensors' names, types and sizes, hashed, and their counts.

    Read from the header of the weights file, so that no library is needed. Format: safetensors,
    https://huggingface.co/docs/safetensors. None when there is no such file or no such header.
    """
    if model is None or file not in model.manifest["files"]:
        return None
    try:
        header = _header(model.file(file))
        tensors = {n: [t["dtype"], t["shape"]] for n, t in header.items() if n != "__metadata__"}
        values = sum(math.prod(shape) for _, shape in tensors.values())
    except (ValueError, TypeError, KeyError):
        return None
    text = json.dumps(tensors, sort_keys=True)
    shapes = "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return {"shapes": shapes, "tensors": len(tensors), "values": values}


def _header(path: Path) -> Record:
    with path.open("rb") as f:
        length = int.from_bytes(f.read(HEADER_BYTES), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} has no safetensors header.")
        return json.loads(f.read(length))


def digests(inputs: Inputs) -> list[dict[str, str]]:
    """Return name, recipe and content of every input, in the order of the stages."""
    order = [*QUESTIONS, *sorted(inputs.keys() - QUESTIONS.keys())]
    return [
        {"kind": k, "fingerprint": inputs[k].fingerprint, "digest": inputs[k].digest}
        for k in order
        if k in inputs
    ]
