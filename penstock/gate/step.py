"""Run the gate: score challenger and champion on one holdout, judge, write the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import Bundle, Summary, read, write_json
from penstock.gate.judge import ALPHA, Scores, judge
from penstock.stage import carry_out, verdict_of
from penstock.stats.intervals import wilson
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import Workload, task_of

SEED = 20260101
"""Of the bootstrap: the same scores always give the same verdict."""

AT_ONCE = 1024
"""Holdout rows of one call, whose intermediate results are in memory together."""

PROMOTE, REJECT = "promote", "reject"


def run(
    *,
    workload: str,
    snapshot: Path,
    data_verdict: Path,
    model: Path,
    serving: Path,
    engine: Path,
    equivalence: Path,
    champion: str,
    out: Path,
    now: datetime,
) -> str:
    """Write the gate's verdict as a bundle and return ``promote`` or ``reject``.

    Args:
        serving: The bundle whose graph will serve (``onnx`` or ``int8``); it is the one scored.
        champion: Folder of the champion's package, or empty when no version serves yet.

    Raises:
        BundleError: An input is not whole. A bad model does not raise; it is rejected.
    """
    declared = workloads.load(workload)
    inputs = {
        "snapshot": read(snapshot, kind="snapshot"),
        "data-verdict": read(data_verdict, kind="data-verdict"),
        "model": read(model, kind="model"),
        "serving": read(serving, kind=declared.serve),
        "engine": read(engine, kind="engine"),
        "equivalence": read(equivalence, kind="equivalence"),
    }
    if champion:
        inputs["champion"] = read(Path(champion), kind="package")
    rules = [{"rule": type(rule).__name__, **vars(rule)} for rule in declared.gate]
    bundle = carry_out(
        "gate",
        kind="gate",
        workload=workload,
        inputs=inputs,
        settings={"rules": rules, "seed": SEED, "task": task_of(declared)},
        make=lambda folder: _make(folder, declared, inputs),
        out=out,
        now=now,
    )
    return PROMOTE if verdict_of(bundle).outcome is Outcome.PASS else REJECT


def _make(folder: Path, declared: Workload, inputs: Mapping[str, Bundle]) -> Summary:
    rows = pq.read_table(inputs["snapshot"].file("holdout.parquet"))
    inputs_n = workloads.part(declared.name, "transform").training_input(rows)
    labels_n = rows[declared.label].to_numpy()
    graph = inputs["serving"].file(workloads.served_graph(declared))
    challenger = _score(graph, inputs_n, labels_n, declared)
    champion = None
    if "champion" in inputs:
        champion = _score(inputs["champion"].file("model.onnx"), inputs_n, labels_n, declared)
    budgets = inputs["engine"].json("budgets.json")["artifacts"]
    judged = judge(
        declared.gate,
        challenger,
        champion,
        budget=budgets[workloads.served_artifact(declared)],
        classes=declared.classes,
        rng=np.random.default_rng(SEED),
    )
    verdict = Verdict((*_earlier(inputs), *judged.checks))
    write_json(folder / "verdict.json", verdict.to_dict())
    scores = {"challenger": challenger, "champion": champion}
    write_json(
        folder / "scores.json",
        {n: _summed(s, declared.classes) if s else None for n, s in scores.items()},
    )
    against = "the champion" if champion else "no champion yet"
    accuracy = float(challenger.right_n.mean())
    line = f"accuracy {accuracy:.4f} on {len(labels_n)} holdout rows against {against}"
    return Summary(verdict.outcome, f"{line}; {verdict.reason}")


def _earlier(inputs: Mapping[str, Bundle]) -> list[Check]:
    """Return one check for each earlier stage's evidence; what is not a pass stays what it is."""
    checks = [
        Check(name=kind, outcome=verdict_of(b).outcome, reason=verdict_of(b).reason)
        for kind, b in inputs.items()
        if kind in ("data-verdict", "equivalence")
    ]
    certificate = inputs["model"].json("certificate.json")
    return [
        *checks,
        Check(
            name="determinism",
            outcome=Outcome.PASS if certificate["holds"] else Outcome.FAIL,
            reason=f"first {certificate['steps']} steps trained twice on {certificate['device']}",
        ),
    ]


def _score(
    graph: Path, inputs_n: NDArray[np.float32], labels_n: NDArray[np.int64], declared: Workload
) -> Scores:
    from penstock.runtimes.onnxruntime import OnnxModel  # noqa: PLC0415 - only when there is work
    from penstock.stats import metrics  # noqa: PLC0415 - the same

    model = OnnxModel(graph)
    parts = np.array_split(inputs_n, max(1, -(-len(inputs_n) // AT_ONCE)))
    logits_nk = np.concatenate([model.run(part) for part in parts])
    decided_n = metrics.decisions(logits_nk, threshold=declared.threshold)
    return Scores(labels_n=labels_n, decided_n=decided_n)


def _summed(scores: Scores, classes: int) -> dict[str, Any]:
    """Return what the report draws: accuracy by class with intervals, and the confusion matrix."""
    confusion = np.zeros((classes, classes), int)
    known = scores.decided_n >= 0
    np.add.at(confusion, (scores.labels_n[known], scores.decided_n[known]), 1)
    by_class: list[dict[str, Any]] = []
    for label in range(classes):
        right_n = scores.right_n[scores.labels_n == label]
        low, high = wilson(int(right_n.sum()), len(right_n), alpha=ALPHA)
        share = float(right_n.mean()) if len(right_n) else None
        by_class.append(
            {"class": label, "n": len(right_n), "accuracy": share, "low": low, "high": high}
        )
    return {
        "accuracy": float(scores.right_n.mean()),
        "n": len(scores.labels_n),
        "by_class": by_class,
        "confusion": confusion.tolist(),
    }
