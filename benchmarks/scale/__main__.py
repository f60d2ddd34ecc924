"""Measure what one controller, one log and one ledger can take, each beside its floor.

    .venv/bin/python -m benchmarks.scale --quick
    PENSTOCK_CREDIT_DATA=clients.csv .venv/bin/python -m benchmarks.scale --out measured

Everything is simulated but the code that is measured: people, servers and their tables are not
there. The second takes about ten minutes and 3 GB of disk for a while.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.scale import appends, evidence, pages, rounds, storage
from benchmarks.serving.tables import Part
from penstock.engine.budgets import cpu

Figures = dict[str, Any]

SIZES = ((1, 10), (10, 1), (10, 10), (10, 52), (10, 260), (100, 10), (1000, 10))
"""Active releases, each of a workload of its own, and the past ones of each workload."""

ON_POSTGRESQL = ((10, 10), (10, 52), (100, 10))
PROFILED = (10, 52)
LOGS = (
    ("journal", 10_000), ("journal", 100_000), ("journal", 1_000_000),
    ("parquet", 10_000), ("parquet", 100_000), ("parquet", 1_000_000), ("parquet", 10_000_000),
)  # fmt: skip
ENTRIES = 2_000


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"one of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for scale.json, scale.md and the plot")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked."""
    asked, console, begun = arguments(argv), Console(width=170), time.perf_counter()
    parts: list[Part] = []
    figures: Figures = {"cpu": cpu()}
    for name, measure in PARTS.items():
        if asked.only in ("", name):
            with tempfile.TemporaryDirectory(prefix="penstock-scale-") as folder:
                figures[name], made = measure(Path(folder), asked.quick)
            parts += made
            for part in made:
                console.print(part.shown())
    console.print(f"{time.perf_counter() - begun:.0f} s")
    if asked.out:
        _leave(asked.out, figures, parts)
    return 0


def _leave(out: Path, figures: Figures, parts: Sequence[Part]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "scale.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    text = "\n".join(part.markdown() for part in parts)
    (out / "scale.md").write_text(text, encoding="utf-8")
    if "controller" in figures:
        pages.plot(out / "scale.svg", figures["controller"]["rounds"])


Measured = tuple[Any, list[Part]]


def _controller(folder: Path, quick: bool) -> Measured:
    found: list[Figures] = []
    for n, (releases, past) in enumerate(((2, 10), (10, 10)) if quick else SIZES):
        home = folder / str(n)
        home.mkdir()
        url = f"sqlite:///{home / 'ledger.db'}"
        figures = rounds.measured(home, url, releases=releases, past=past)
        found.append({"database": "SQLite", **figures})
    for releases, past in () if quick else ON_POSTGRESQL:
        home = folder / f"postgresql-{releases}-{past}"
        home.mkdir()
        try:
            with appends.postgresql(home) as url:
                figures = rounds.measured(home, url, releases=releases, past=past)
        except pytest.skip.Exception:
            break
        found.append({"database": "PostgreSQL", **figures})
    releases, past = (2, 1) if quick else PROFILED
    (folder / "profiled").mkdir()
    url = f"sqlite:///{folder / 'profiled' / 'ledger.db'}"
    spent = rounds.costliest(folder / "profiled", url, releases=releases, past=past)
    parts = [pages.controller(found), pages.costliest(spent)]
    return {"rounds": found, "costliest": spent}, parts


def _evidence(folder: Path, quick: bool) -> Measured:
    found = [
        evidence.measured(folder / f"{form}-{rows}", rows=rows, form=form)
        for form, rows in ((("journal", 2_000), ("parquet", 2_000)) if quick else LOGS)
    ]
    return found, [pages.evidence(found)]


def _storage(folder: Path, quick: bool) -> Measured:
    found: list[Figures] = []
    for workload, each in storage.ASKED:
        home = folder / f"{workload}-{each}"
        home.mkdir()
        found.append(storage.measured(home, workload=workload, each=each, real=not quick))
    most = max(f["parquet_mb"] for f in found)
    return found, [pages.storage(found), pages.costs(most)]


def _ledger(_folder: Path, quick: bool) -> Measured:
    found = appends.measured(entries=50 if quick else ENTRIES)
    return found, [pages.ledger(found)]


PARTS: Mapping[str, Callable[[Path, bool], Measured]] = {
    "controller": _controller,
    "evidence": _evidence,
    "storage": _storage,
    "ledger": _ledger,
}

if __name__ == "__main__":
    sys.exit(main())
