"""Measure a run of digits in an empty home: seconds per stage, where they go, peak memory.

    make bench
    make bench ARGS="--json run.json"

The probe that looks into each process (benchmarks/probe) costs a few per cent; a second run, on
what the first left, is measured without it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import track
from rich.table import Table

HERE = Path(__file__).resolve().parent
COLUMNS = ("own code", "libraries", "imports", "kfp", "start")
"""Own code; libraries that it called; importing either; KFP with its imports; all before that."""

FLAG = "--function_to_execute"
"""Names the stage in the command of a KFP executor."""


class Memory:
    """Watches the memory of every process of one home: private pages, and each shared one once."""

    def __init__(self, home: Path) -> None:
        """Watch processes whose environment names the home."""
        self._mark = f"PENSTOCK_HOME={home}\0".encode()
        self._stop = threading.Event()
        self.peak, self.processes = 0, 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            sizes = [size for p in Path("/proc").glob("[0-9]*") if (size := self._size(p))]
            if sum(sizes) > self.peak:
                self.peak, self.processes = sum(sizes), len(sizes)

    def _size(self, process: Path) -> int:
        try:
            if self._mark not in (process / "environ").read_bytes() + b"\0":
                return 0
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        return 0


def free_port() -> int:
    """Return a loopback port nobody uses now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def penstock(home: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a home."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "penstock"), *arguments],
        env={**os.environ, "PENSTOCK_HOME": str(home), **extra},
        capture_output=True,
        text=True,
        check=False,
    )


def run(home: Path, port: int, probe: Path | None) -> dict[str, Any]:
    """Carry digits through; return its record with wall seconds and peak memory."""
    extra: dict[str, str] = {}
    if probe is not None:
        extra = {"PENSTOCK_PROBE": str(probe), "PYTHONPATH": str(HERE / "probe")}
    begun = time.perf_counter()
    with Memory(home) as memory:
        done = penstock(home, "run", "digits", "--port", str(port), **extra)
    if done.returncode:
        raise SystemExit(f"the run ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    record = json.loads(max(home.glob("runs/*/run.json")).read_text())
    return {
        "wall_s": time.perf_counter() - begun,
        "stages": record["stages"],
        "release_s": (record["release"] or {}).get("seconds"),
        "peak_bytes": memory.peak,
        "peak_processes": memory.processes,
    }


def places(spent: Mapping[str, float]) -> dict[str, float]:
    """Return sampled seconds summed into the columns."""
    summed: dict[str, float] = defaultdict(float)
    for place, seconds in spent.items():
        kind, _, name = place.partition(" ")
        if place in ("own code", "kfp"):
            summed[place] += seconds
        elif kind == "call":
            summed["libraries"] += seconds
        elif kind == "import":
            summed["kfp" if name.startswith("kfp") else "imports"] += seconds
    return summed


def split(probe: Path, stages: list[dict[str, Any]], wall_s: float) -> list[dict[str, Any]]:
    """Return each stage with its seconds by place, then what is around the stages.

    What no sample saw of a stage is the start of its process. All that KFP's runner does between
    stages is KFP's; the rest of the run is the command's: release, registry aliases, report.
    """
    left = [json.loads(path.read_text()) for path in probe.glob("*.json")]
    seen = {
        process["argv"][process["argv"].index(FLAG) + 1]: places(process["spent"])
        for process in left
        if FLAG in process["argv"]
    }
    found: list[dict[str, Any]] = []
    for stage in stages:
        parts = {c: seen[stage["stage"]].get(c, 0.0) for c in COLUMNS}
        parts["start"] = max(0.0, stage["seconds"] - sum(parts.values()))
        found.append({"stage": stage["stage"], "seconds": stage["seconds"], **parts})
    nothing = dict.fromkeys(COLUMNS, 0.0)
    runner_s = next(p["seconds"] for p in left if "pipelines.local" in p["argv"])
    between_s = runner_s - sum(stage["seconds"] for stage in stages)
    rest_s = wall_s - runner_s
    return [
        *found,
        {**nothing, "stage": "compile, between stages", "seconds": between_s, "kfp": between_s},
        {**nothing, "stage": "release, report", "seconds": rest_s, "own code": rest_s},
    ]


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Print one screen."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage")
    for name in ("seconds", *COLUMNS):
        table.add_column(name, justify="right")
    total = {c: sum(s[c] for s in result["stages"]) for c in ("seconds", *COLUMNS)}
    for stage in (*result["stages"], {"stage": "whole run", **total}):
        table.add_row(stage["stage"], *(f"{stage[c]:.1f}" for c in ("seconds", *COLUMNS)))
    shares = [f"{total[c] / total['seconds']:.0%}" for c in COLUMNS]
    table.add_row("share", "", *shares, style="bold")
    console.print(table)
    for name in ("first", "again"):
        took = result[name]
        console.print(
            f"{name}: {took['wall_s']:.1f} s in all, release {took['release_s']:.1f} s, peak "
            f"{took['peak_bytes'] / 1e9:.2f} GB in {took['peak_processes']} processes"
        )


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write every figure here")
    given = parser.parse_args()
    console, port = Console(), free_port()
    with tempfile.TemporaryDirectory() as scratch:
        home, probe = Path(scratch) / "home", Path(scratch) / "probe"
        probe.mkdir()
        try:
            taken: dict[str, Any] = {}
            for name in track(("first", "again"), "running digits twice", console=console):
                taken[name] = run(home, port, probe if name == "first" else None)
        finally:
            penstock(home, "down")
        taken["stages"] = split(probe, taken["first"].pop("stages"), taken["first"]["wall_s"])
    show(console, taken)
    if given.json:
        given.json.write_text(json.dumps(taken, indent=1) + "\n")


if __name__ == "__main__":
    main()
