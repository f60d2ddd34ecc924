"""Time the bare model in a process of its own: what no server can be quicker than.

python -m benchmarks.serving.floor GRAPH SHAPE   # such as 3,32,32
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.model import Made
from benchmarks.serving.rivals.network import Network

SECONDS = 1.5
TURN = 20
"""Calls that are timed together."""


def floor(made: Made, *, core: int) -> dict[str, float]:
    """Return what one call of one row takes on a core: its median, its CPU, and calls a second.

    Raises:
        RuntimeError: It failed; the text is its own.
    """
    shape = ",".join(map(str, made.input_shape))
    command = [sys.executable, "-m", "benchmarks.serving.floor", str(made.graph), shape]
    done = subprocess.run(
        ["taskset", "-c", str(core), *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the bare model could not be timed: {done.stderr}")
    return json.loads(done.stdout)


def timed(path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what a call takes here."""
    network = Network(str(path))
    row = np.random.default_rng(1).normal(0, 1, (1, *shape)).astype(np.float32)
    taken: list[float] = []
    calls, spent, begun = 0, time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) - begun < SECONDS:
        for _ in range(TURN):
            network.logits(row)
        taken.append((time.perf_counter() - now) / TURN)
        calls += TURN
    spent = time.process_time() - spent
    steady = taken[len(taken) // 10 :]
    return {
        "us": float(np.median(steady)) * 1e6,
        "per_s": 1 / float(np.mean(steady)),
        "cpu_us": spent * 1e6 / calls,
    }


if __name__ == "__main__":
    print(json.dumps(timed(Path(sys.argv[1]), tuple(map(int, sys.argv[2].split(","))))))
