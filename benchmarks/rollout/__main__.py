"""Simulate releases: how often harm passes, how often the harmless is stopped, how soon, what cost.

    .venv/bin/python -m benchmarks.rollout --times 0.1
    .venv/bin/python -m benchmarks.rollout --out measured

Every number comes from a seed, so two runs give the same tables, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.rollout import costs, pages, studies
from penstock.engine.budgets import cpu

HARMLESS, OTHERS, CANARIES, FEW = 400, 80, 150, 30
"""Releases of the harmless version and of each other, canaries, and canaries of many users."""


def arguments() -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=float, default=1.0, help="as many releases as usual")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="whole, planted or costs; all by default")
    parser.add_argument("--out", type=Path, help="folder for rollout.json, rollout.md and the plot")
    return parser.parse_args()


def main() -> int:
    """Run the studies and print their tables."""
    asked, console, begun = arguments(), Console(width=170), time.perf_counter()
    parts: list[Any] = []
    figures: dict[str, Any] = {"cpu": cpu()}
    if asked.only in ("", "whole"):
        found = _whole(console, asked.processes, asked.times)
        figures["whole"] = pages.plain(found)
        parts.append(pages.whole(found))
    if asked.only in ("", "planted"):
        caught = _planted(console, asked.processes, asked.times)
        figures["planted"] = pages.plain(caught)
        parts += [pages.harmless(caught["harmless"]), *pages.planted(caught)]
        if asked.out:
            asked.out.mkdir(parents=True, exist_ok=True)
            pages.plot(asked.out / "rollout.svg", caught["harmless"], caught)
    if asked.only in ("", "costs"):
        taken = costs.judging()
        figures["costs"] = pages.plain(taken)
        parts.append(pages.costs(taken))
    for part in parts:
        console.print(part.shown())
    console.print(f"{time.perf_counter() - begun:.0f} s")
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "rollout.json").write_text(json.dumps(figures, indent=2) + "\n")
        (asked.out / "rollout.md").write_text("\n".join(part.markdown() for part in parts))
    return 0


def _whole(console: Console, processes: int, times: float) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in studies.WHOLE:
        n = round(times * (HARMLESS if name == "harmless" else OTHERS))
        found[name] = studies.whole(name, n, processes=processes)
        console.print(f"{name}: promoted {found[name]['promoted']}")
    return found


def _planted(console: Console, processes: int, times: float) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, (_, world) in studies.PLANTED.items():
        n = round(times * (CANARIES if world == studies.WORLD else FEW))
        found[name] = studies.planted(name, n, processes=processes)
        console.print(f"{name}: {found[name][studies.OURS]['stopped']} stopped by the judge")
    return found


if __name__ == "__main__":
    sys.exit(main())
