"""Documents: the model card, generated from evidence; no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.bundle import Bundle
from penstock.stage import verdict_of
from penstock.workload import Workload

VERDICTS = ("data-verdict", "equivalence", "gate")


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
