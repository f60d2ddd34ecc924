"""Small evidence of every stage, from which the documents of a package are made in tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, write_json
from penstock.workload import (
    About,
    Approval,
    AtLeast,
    AtMost,
    Costs,
    Invariance,
    LeastCost,
    NoWorse,
    Sensitive,
    Slice,
    Workload,
    load,
)
from tests import bundles

COSTS = Costs(false_positive=1, false_negative=4)

ABOUT = About(
    purpose="Say how probable it is that a client will not pay.",
    methodology="A small network on a client's last months.",
    assumptions=("Clients behave next month as they did.",),
    limitations=("It knows nothing of a client's other banks.",),
    out_of_scope=("Setting prices.",),
    ethical="Who is refused wrongly gets no credit; a person looks at every refusal.",
)


def credit() -> Workload:
    """Return a regulated workload of two classes, with everything a card can tell of."""
    return replace(
        load("digits"),
        title="Credit default",
        classes=2,
        metric="auc",
        threshold=COSTS.threshold,
        costs=COSTS,
        slices=(Slice(name="low limit", column="ink_mean", high=5),),
        sensitive=(
            Sensitive(
                name="sex",
                groups=(
                    Slice(name="women", column="sex", among=(2,)),
                    Slice(name="men", column="sex", among=(1,)),
                ),
            ),
        ),
        behaviours=(Invariance(name="order of months", change="shuffled"),),
        gate=(
            AtLeast(metric="auc", value=0.7),
            AtLeast(metric="adverse_impact_ratio", value=0.8),
            AtMost(metric="latency_p99_ms", value=50.0),
            NoWorse(metric="auc", margin=0.01),
            LeastCost(max_regret=0.02),
        ),
        approval=Approval.PERSON,
        retention=timedelta(days=2557),
        about=ABOUT,
    )


def estimate(value: float, *, within: float = 0.011, n: int = 613) -> dict[str, Any]:
    """Return a number with its interval, as the judge writes it."""
    return {"value": value, "low": value - within, "high": value + within, "n": n}


def metric(challenger: float, champion: float | None) -> dict[str, Any]:
    """Return one metric of both models and their difference."""
    if champion is None:
        return {"challenger": estimate(challenger), "champion": None, "difference": None}
    return {
        "challenger": estimate(challenger),
        "champion": estimate(champion),
        "difference": estimate(challenger - champion, within=0.004),
    }


def scores(*, champion: float | None = None, auc: float = 0.7731) -> dict[str, Any]:
    """Return the judge's numbers of a model of two classes."""
    part = {"name": "low limit", "n": 217, "metric": "auc", "margin": 0.03, "outcome": "pass"}
    groups = [
        {"name": "women", "n": 371, "favoured": 0.6171, "deserving": 293, "opportunity": 0.6973},
        {"name": "men", "n": 242, "favoured": 0.5837, "deserving": 181, "opportunity": None},
    ]
    return {
        "n": 613,
        "metric": "auc",
        "threshold": 0.2,
        "metrics": {"auc": metric(auc, champion), "brier": metric(0.1362, None)},
        "slices": [{**part, **metric(0.7319, champion)}],
        "fairness": [
            {
                "attribute": "sex",
                "groups": groups,
                "adverse_impact_ratio": estimate(0.9459, within=0.051),
                "equal_opportunity_difference": None,
            }
        ],
        "costs": {
            "false_positive": 1.0,
            "false_negative": 4.0,
            "threshold": 0.2,
            "best_threshold": 0.2137,
            "regret": estimate(0.0043, within=0.003),
            "curve": [[0.1, 0.61], [0.2, 0.57], [0.3, 0.63]],
        },
        "roc": {"challenger": [[0, 0], [0.3, 0.7], [1, 1]], "champion": None},
        "reliability": [
            {"n": 306, "predicted": 0.1171, "happened": 0.1273},
            {"n": 307, "predicted": 0.4133, "happened": 0.3941},
        ],
        "confusion": [[401, 73], [58, 81]],
        "by_class": [],
    }


BEHAVIOURS = [
    {
        "name": "order of months",
        "kind": "invariance",
        "n": 601,
        "share": 0.9817,
        "low": 0.9673,
        "high": 0.9899,
        "asked": 0.95,
        "outcome": "pass",
        "reason": "590 of 601 rows",
        "examples": [],
    }
]

CHECKS = (
    {"name": "auc", "outcome": "pass", "reason": "0.7731 [0.762, 0.784], at least 0.7",
     "value": 0.7731, "limit": 0.7},
    {"name": "latency_p99_ms", "outcome": "pass", "reason": "3.417, at most 50",
     "value": 3.417, "limit": 50.0},
    {"name": "data_age_days", "outcome": "pass", "reason": "2.5 days, at most 30",
     "value": 2.5, "limit": 30.0},
)  # fmt: skip
"""What the gate found."""


def verdict(*checks: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict of these checks, or of one that passed."""
    found = checks or ({"name": "seen", "outcome": "pass", "reason": "so", "value": None,
                        "limit": None},)  # fmt: skip
    order = ("pass", "inconclusive", "error", "fail")
    worst = max((c["outcome"] for c in found), key=order.index)
    return {"outcome": worst, "checks": list(found)}


def step(name: str, against: str, **over: Any) -> dict[str, Any]:
    """Return one step of the equivalence ladder."""
    part = {"slice": "all", "n": 613, "agreement": 0.9967, "snr_db": 37.31, "metric_drop": 0.0007,
            "finite": True, "max_probability_change": 0.0213}  # fmt: skip
    return {"step": name, "against": against, "outcome": "pass", "slices": [{**part, **over}],
            "beyond": [], "empty": ["class nobody"], "goes_wrong_at": None}  # fmt: skip


def weights(*shapes: tuple[int, ...]) -> bytes:
    """Return a safetensors file of zeros: tensors named by their place."""
    header, at = {}, 0
    for place, shape in enumerate(shapes):
        size = 4
        for side in shape:
            size *= side
        header[f"layer{place}"] = {"dtype": "F32", "shape": list(shape),
                                   "data_offsets": [at, at + size]}  # fmt: skip
        at += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


BUDGET = {"latency_p50_ms": 1.273, "latency_p99_ms": 3.417, "throughput_per_s": 7213.0,
          "peak_memory_mb": 93.7, "cold_start_s": 0.313}  # fmt: skip

DOCUMENTS: dict[str, dict[str, Any]] = {
    "snapshot": {
        "proof.json": {
            **bundles.PROOF,
            "rows": {"train": 1193, "holdout": 613, "labels": 1806, "joined": 1806},
            "as_of": "2026-01-06T17:59:30+00:00",
            "newest": {"capture_ink": "2026-01-05T22:58:00+00:00"},
            "unused_features": [],
            "online_compared": 64,
            "feature_definitions": "sha256:feed",
        },
        "online.json": {
            "project": "penstock", "service": "digits_v1", "definitions": "sha256:feed",
            "views": [
                {"name": "capture_ink", "features": ["pixels", "ink_mean"], "fields": ["01", "02"],
                 "keys": [{"name": "capture_id", "asked": "capture_id", "kind": "INT64"}],
                 "ttl_s": None}
            ],
            "freshness": [],
        },
    },
    "data-verdict": {
        "verdict.json": verdict(
            {"name": "train: no unknown columns", "outcome": "pass", "reason": "none",
             "value": None, "limit": None}
        ),
    },
    "model": {
        "config.json": {"seed": 42, "epochs": 17, "classes": 2, "metric": "auc"},
        "certificate.json": {"holds": True, "steps": 12, "device": "cpu", "first": "sha256:1",
                             "second": "sha256:1"},
        "calibration.json": {"of": "defaulted", "rows": 119, "error": 0.0073, "by_chance": 0.0098,
                             "bins": [{"n": 119, "predicted": 0.3, "happened": 0.31}]},
    },
    "serving": {
        "quantize.json": {"int8": 13, "weighted": 14, "calibrator": "entropy", "examples": 320,
                          "float_layers": ["node_linear"]},
    },
    "engine": {
        "budgets.json": {
            "artifacts": {
                "int8-cpu": {
                    **BUDGET,
                    "batches": [{"batch": 8, "latency_p50_ms": 1.273, "latency_p99_ms": 3.417,
                                 "throughput_per_s": 6307.0}],
                }
            },
            "cpu": {"name": "a processor", "vnni": True},
        },
        "engine.json": {
            "backends": [
                {"name": "onnxruntime", "state": "run", "reason": None},
                {"name": "tensorrt", "state": "not built", "reason": "there is no GPU"},
            ]
        },
    },
    "equivalence": {
        "ladder.json": {"steps": [step("onnx", "torch"), step("int8", "onnx")]},
        "verdict.json": verdict(),
    },
    "gate": {
        "scores.json": scores(),
        "behaviours.json": BEHAVIOURS,
        "verdict.json": verdict(*CHECKS),
    },
}  # fmt: skip
"""Kind of each input, and its JSON files."""


def inputs(
    folder: Path,
    *,
    shapes: tuple[tuple[int, ...], ...] = ((3, 8), (8,)),
    **over: Mapping[str, Any],
) -> dict[str, Bundle]:
    """Write the bundles a package is made from.

    Args:
        shapes: Of the network's tensors.
        over: For a kind (``data_verdict`` for ``data-verdict``), files that replace or join its
            own; None takes one away.
    """
    made: dict[str, Bundle] = {}
    for kind, own in DOCUMENTS.items():
        files = {**own, **over.get(kind.replace("-", "_"), {})}

        def fill(to: Path, kind: str = kind, files: Mapping[str, Any] = files) -> None:
            for name, document in files.items():
                if document is not None:
                    write_json(to / name, document)
            if kind == "model":
                (to / "model.safetensors").write_bytes(weights(*shapes))

        made[kind] = bundles.bundle(folder / kind, "int8" if kind == "serving" else kind, fill)
    return made


def lineage(**over: Any) -> dict[str, Any]:
    """Return what ``lineage.json`` holds of a version."""
    sources = ("model.py", "transform.py", "data.py")
    plain = {
        "workload": "digits",
        "model": "sha256:" + "ab" * 32,
        "trained_by": "ada",
        "code": {"git": "0123abc", "sources": "sha256:5"},
        "data": "digits-data",
        "feature_definitions": "sha256:feed",
        "features": {"pixels": "sha256:71", "ink_mean": "sha256:72"},
        "files": {f"workloads/digits/{n}": f"sha256:{n}" for n in sources},
        "hyperparameters": {"epochs": 17, "learning_rate": 0.004},
        "seed": 42,
        "image": None,
        "environment": {"python": "3.11.7", "lock": "10cc", "libraries": {"torch": "2.13.0"}},
        "budget": dict(BUDGET),
        "rehearsal": None,
    }
    return {**plain, **over}


def package(
    path: Path,
    declared: Workload,
    held: Mapping[str, Bundle],
    record: Mapping[str, Any],
    *,
    before: Bundle | None = None,
) -> Bundle:
    """Write a package that holds its documents, its lineage and its verdicts."""
    from penstock.register import documents  # noqa: PLC0415 - plots take a second to import

    def fill(folder: Path) -> None:
        write_json(folder / "lineage.json", record)
        (folder / "verdicts").mkdir()
        for kind in ("data-verdict", "equivalence", "gate"):
            write_json(folder / "verdicts" / f"{kind}.json", held[kind].json("verdict.json"))
        write_json(folder / "scores.json", held["gate"].json("scores.json"))
        write_json(folder / "behaviours.json", held["gate"].json("behaviours.json"))
        documents.write(folder, declared, held, lineage=record, before=before)

    return bundles.bundle(path, "package", fill)
