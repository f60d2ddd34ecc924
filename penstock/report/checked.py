"""Pages of what one step found, for people who follow a run: the data, and the graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.report.documents import Block, Page, Part, Says, Table, number
from penstock.stats.distance import EQUAL_DB
from penstock.verdict import Outcome, Verdict

Document = Mapping[str, Any]

PARTS = {"train": "train on", "holdout": "judge by"}
"""Of a snapshot, and what each is for."""


def headline(word: str, verdict: Verdict) -> str:
    """Return a page's first line: the outcome, and what decided it.

    >>> headline("Data", Verdict(()))
    'Data: error: nothing was checked'
    """
    return " ".join(f"{word}: {verdict.outcome}: {verdict.reason}".split())


def data_page(title: str, verdict: Verdict, profile: Document) -> Page:
    """Return what the data checks found of a snapshot.

    Args:
        title: Of the workload, for people.
        profile: What ``profile.json`` holds.
    """
    rows = " and ".join(f"{profile[part]['rows']:,} rows to {to}" for part, to in PARTS.items())
    return Page(
        kicker=f"Data of {title}",
        title=headline("Data", verdict),
        outcome=str(verdict.outcome),
        reason=f"{rows}.",
        parts=[
            Part(title="What was asked", blocks=[checks(verdict)]),
            Part(title="Labels", blocks=[_labels(profile)]),
        ],
    )


def _labels(profile: Document) -> Block:
    counted = {part: profile[part].get("labels", {}) for part in PARTS}
    names = sorted({name for found in counted.values() for name in found})
    rows = [[name, *(f"{found.get(name, 0):,}" for found in counted.values())] for name in names]
    return Table(["label", *counted], rows, folded=f"rows of {len(names)} labels")


def checks(verdict: Verdict) -> Table:
    """Return every check; those that did not pass come first."""
    order = sorted(verdict.checks, key=lambda check: check.outcome is Outcome.PASS)
    return Table(["outcome", "check", "found"], [[c.outcome, c.name, c.reason] for c in order])


def ladder_page(title: str, verdict: Verdict, ladder: Document) -> Page:
    """Return how near each graph stays to the one before it.

    Args:
        title: Of the workload, for people.
        ladder: What ``ladder.json`` holds.
    """
    return Page(
        kicker=f"Graphs of {title}",
        title=headline("Graphs", verdict),
        outcome=str(verdict.outcome),
        reason="Each graph against the one before, on the holdout; engines on its golden rows.",
        parts=[
            Part(title="All rows", blocks=list(_steps(ladder["steps"]))),
            Part(title="What was asked", blocks=[checks(verdict)]),
            Part(title="Engines", blocks=[_engines(ladder["engines"])]),
        ],
    )


def _steps(steps: Sequence[Document]) -> Iterator[Block]:
    rows = [
        [
            step["outcome"],
            f"{step['against']} → {step['step']}",
            f"{whole['agreement']:.2%}" if whole["finite"] else "not finite",
            "equal bits" if whole["snr_db"] >= EQUAL_DB else number(whole["snr_db"], unit="dB"),
            number(whole["metric_drop"], sign=True),
            f"{whole['n']:,}",
        ]
        for step in steps
        for whole in step["slices"][:1]
    ]
    head = ["outcome", "step", "decisions that stay", "signal to noise", "metric drop", "rows"]
    yield Table(head, rows)
    for step in steps:
        if step["goes_wrong_at"]:
            yield Says(f"{step['step']} goes wrong at {step['goes_wrong_at']}.")


def _engines(engines: Sequence[Document]) -> Block:
    rows = [[e["name"], e["state"], e["reason"] or "–"] for e in engines]
    return Table(["engine", "state", "why"], rows)
