"""What a step shows on Kubeflow's page of a run: metrics, curves, and reports led by a verdict.

Kubeflow is not imported: an artifact is whatever has a path and metadata. A value that is missing
or not finite would fail the step that publishes it, so none goes in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from penstock import workload as workloads
from penstock.bundle import MANIFEST, Bundle, read, write_text
from penstock.policy import BUDGETS
from penstock.report.checked import data_page, ladder_page
from penstock.report.documents import html
from penstock.stage import verdict_of

DIGITS = 4
"""Of a metric's value: runs are compared by eye, and values are printed as they are."""


class Artifact(Protocol):
    """What a step leaves for others: a file or folder, and what is known of it."""

    path: str
    metadata: dict[str, Any]


class Curves(Artifact, Protocol):
    """One whose page is a ROC curve, a confusion matrix, or both."""

    def log_roc_curve(self, fpr: list[float], tpr: list[float], threshold: list[float]) -> None:
        """Take the points of a curve."""
        ...

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Take how often each label, by row, was decided to be each class."""
        ...


def describe(artifact: Artifact, name: str, **known: object) -> None:
    """Name an artifact that is a bundle, and say what made it and how it ended.

    Args:
        name: Its title for people.
        known: What else is worth a line; None is left out.
    """
    manifest = json.loads((Path(artifact.path) / MANIFEST).read_text(encoding="utf-8"))
    said = {
        "display_name": name,
        "fingerprint": manifest["fingerprint"],
        "outcome": manifest["summary"]["outcome"],
        "said": manifest["summary"]["line"],
        **known,
    }
    artifact.metadata.update(shown(said))


def shown(values: Mapping[str, object]) -> dict[str, Any]:
    """Return what Kubeflow can publish: nothing missing, nothing that is no number.

    >>> shown({"rows": 3, "champion": None, "auc": float("nan"), "loss": 0.123456})
    {'rows': 3, 'loss': 0.1235}
    """
    return {
        name: rounded(value) if isinstance(value, float) else value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def rounded(value: float) -> float:
    """Return a number with as many digits as people compare.

    >>> rounded(0.05249999999999999), rounded(12220.4)
    (0.0525, 12220.0)
    """
    return float(f"{value:.{DIGITS}g}") if abs(value) < 10**DIGITS else float(round(value))


def show_data(verdict: Artifact, report: Artifact, *, workload: str) -> None:
    """Fill the page of the data checks."""
    bundle = _described(verdict, "data verdict")
    page = data_page(
        workloads.load_data(workload).title, verdict_of(bundle), bundle.json("profile.json")
    )
    _write(report, "data report", page.title, html(page))


def show_ladder(ladder: Artifact, report: Artifact, *, workload: str) -> None:
    """Fill the page of the graphs."""
    bundle = _described(ladder, "ladder")
    page = ladder_page(
        workloads.load_data(workload).title, verdict_of(bundle), bundle.json("ladder.json")
    )
    _write(report, "graphs report", page.title, html(page))


def show_gate(verdict: Artifact, report: Artifact, metrics: Artifact, curves: Curves) -> None:
    """Fill what the gate found: its report, the run's metrics, the curves of its decisions."""
    from penstock.report.gate import headline  # noqa: PLC0415 - plots; only the gate has them

    bundle = _described(verdict, "verdict")
    numbers, page = bundle.json("scores.json"), bundle.file("report.html")
    line = headline(verdict_of(bundle))
    _write(report, "gate report", line, page.read_text(encoding="utf-8"))
    _show_metrics(metrics, {**measured(numbers), **_budgets(bundle)})
    _show_curves(curves, numbers)


def show_card(package: Artifact, card: Artifact, *, version: str) -> None:
    """Fill the page of a registered version: its model card."""
    bundle = _described(package, f"version {version}", version=version)
    page = bundle.file("card.html").read_text(encoding="utf-8")
    _write(card, "model card", f"Version {version}: {bundle.summary.line}", page)


def show_watch(watched: Artifact, report: Artifact, metrics: Artifact) -> None:
    """Fill what a look at the version that serves found: its report, the number of each check."""
    bundle = _described(watched, "verdict on the champion")
    page = bundle.file("report.html").read_text(encoding="utf-8")
    _write(report, "watch report", bundle.summary.line, page)
    _show_metrics(metrics, {check.name: check.value for check in verdict_of(bundle).checks})


def measured(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's metrics by names that do not hang on the run.

    Args:
        numbers: What a gate's ``scores.json`` holds.
    """
    found: dict[str, Any] = {"holdout_rows": numbers["n"]}
    for name, metric in numbers["metrics"].items():
        for side, suffix in (("challenger", ""), ("difference", "_against_champion")):
            found[f"{name}{suffix}"] = metric[side] and metric[side]["value"]
    return found


def _budgets(bundle: Bundle) -> dict[str, float | None]:
    return {c.name: c.value for c in verdict_of(bundle).checks if c.name in BUDGETS}


def _described(artifact: Artifact, name: str, **known: object) -> Bundle:
    describe(artifact, name, **known)
    return read(Path(artifact.path))


def _write(report: Artifact, name: str, line: str, page: str) -> None:
    """Write a page whose first line, which a preview shows, is what it comes to."""
    said = " ".join(line.split()).replace("--", "- -")
    write_text(Path(report.path), f"<!-- {said} -->\n{page}")
    report.metadata["display_name"] = name


def _show_metrics(metrics: Artifact, values: Mapping[str, object]) -> None:
    held = shown(values)
    metrics.metadata.update({"display_name": "metrics", **held})
    # Kubeflow reads the metadata alone; a local cache takes a step without its file as not done.
    write_text(Path(metrics.path), json.dumps(held, indent=1, sort_keys=True) + "\n")


def _show_curves(curves: Curves, numbers: Mapping[str, Any]) -> None:
    curves.metadata["display_name"] = "decisions"
    matrix: Sequence[Sequence[int]] = numbers["confusion"]
    if matrix:
        classes = [str(label) for label in range(len(matrix))]
        curves.log_confusion_matrix(classes, [list(row) for row in matrix])
    drawn: Mapping[str, Any] = numbers["roc"] or {}
    points: Sequence[Sequence[float]] = drawn.get("challenger") or []
    if points:
        thresholds: Sequence[float] = numbers["roc_thresholds"]
        false, true = ([rounded(point[side]) for point in points] for side in (0, 1))
        curves.log_roc_curve(false, true, [rounded(threshold) for threshold in thresholds])
    held = {"confusion": matrix, "roc": points}
    write_text(Path(curves.path), json.dumps(held) + "\n")
