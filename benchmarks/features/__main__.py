"""Measure point-in-time joins and online look-ups, each beside its floor, in one run.

    make stores && .venv/bin/python -m benchmarks.features
    .venv/bin/python -m benchmarks.features --plot docs/measurements/features-growth.svg

Every join runs in a process of its own, the ways in turns; the best of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.features import data, online
from benchmarks.features.worker import WAYS

MILLION = 1_000_000
GROWTH = (0.1, 0.3, 1, 3, 10, 20)
"""Millions of feature rows."""


def once(way: str, folder: Path) -> dict[str, Any]:
    """Return what one join cost."""
    command = [sys.executable, "-m", "benchmarks.features.worker", way, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compared(folder: Path, *, features: int, labels: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the best round of each way on the same files.

    Raises:
        RuntimeError: Two ways gave different features.
    """
    data.write(folder, features=features, labels=labels)
    taken: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    turns = [(r, way) for r in range(rounds) for way in WAYS]
    for _, way in track(turns, description="joins"):
        taken[way].append(once(way, folder))
    results = {said["result"] for held in taken.values() for said in held}
    if len(results) != 1:
        raise RuntimeError(f"the ways gave different features: {taken}")
    return {way: min(held, key=lambda s: s["cpu_s"]) for way, held in taken.items()}


def grown(folder: Path, *, labels: int, millions: tuple[float, ...]) -> list[dict[str, Any]]:
    """Return what our join cost as feature rows grow."""
    found: list[dict[str, Any]] = []
    for size in track(millions, description="growth"):
        data.write(folder, features=round(size * MILLION), labels=labels)
        best = min((once("ours", folder) for _ in range(2)), key=lambda s: s["cpu_s"])
        found.append({"features": round(size * MILLION), **best})
    return found


def drawn(growth: list[dict[str, Any]], path: Path) -> None:
    """Draw CPU seconds and memory over feature rows, beside n log n."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    rows = [g["features"] for g in growth]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.loglog(rows, [g["cpu_s"] for g in growth], "o-", label="our join")
    last = growth[-1]
    scale = last["cpu_s"] / (last["features"] * math.log(last["features"]))
    left.loglog(rows, [scale * n * math.log(n) for n in rows], "--", label="n log n")
    left.set(xlabel="feature rows", ylabel="CPU seconds", title="Time")
    left.legend()
    right.semilogx(rows, [g["peak_mb"] for g in growth], "o-")
    right.axhline(1000, linestyle="--")
    right.set(xlabel="feature rows", ylabel="MB", ylim=(0, None), title="Peak memory; line: 1 GB")
    part = path.with_name(f".part-{path.name}")
    figure.savefig(part, format="svg", metadata={"Date": None})
    part.replace(path)


def _joins(held: dict[str, dict[str, Any]]) -> Table:
    table = Table("way", "CPU s", "wall s", "peak MB", "CPU to ours", "memory to ours")
    own = held["ours"]
    for way, said in held.items():
        table.add_row(
            way,
            f"{said['cpu_s']:.2f}",
            f"{said['wall_s']:.2f}",
            f"{said['peak_mb']:.0f}",
            f"{said['cpu_s'] / own['cpu_s']:.1f}",
            f"{said['peak_mb'] / own['peak_mb']:.1f}",
        )
    return table


def main() -> None:
    """Measure, and print tables with ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=MILLION)
    parser.add_argument("--features", type=int, default=5 * MILLION)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=float, default=GROWTH[-1], help="millions of rows")
    parser.add_argument("--plot", type=Path, help="where to draw the growth, as SVG")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    asked = parser.parse_args()
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        joins = compared(folder, features=asked.features, labels=asked.labels, rounds=asked.rounds)
        sizes = tuple(m for m in GROWTH if m <= asked.largest)
        growth = grown(folder, labels=asked.labels, millions=sizes)
    finally:
        shutil.rmtree(folder)
    looked_up = online.measured()
    console.print(f"{asked.labels:,} label rows x {asked.features:,} feature rows in three views")
    console.print(_joins(joins))
    table = Table("feature rows", "CPU s", "CPU s to n log n", "peak MB")
    for said in growth:
        n = said["features"]
        table.add_row(
            f"{n:,}",
            f"{said['cpu_s']:.2f}",
            f"{said['cpu_s'] / (n * math.log(n)) * 1e8:.2f}e-8",
            f"{said['peak_mb']:.0f}",
        )
    console.print(table)
    console.print(f"one entity, three views, {online.NUMBER_OF_FEATURES} features, median")
    table = Table("store", "client", "ms", "to ours")
    for store, clients in looked_up.items():
        for client, ms in clients.items():
            table.add_row(store, client, f"{ms:.3f}", f"{ms / clients['ours']:.2f}")
    console.print(table)
    if asked.plot:
        drawn(growth, asked.plot)
    if asked.json:
        held = {"joins": joins, "growth": growth, "online": looked_up}
        asked.json.write_text(json.dumps(held, indent=2))


if __name__ == "__main__":
    main()
