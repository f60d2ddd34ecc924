"""Replay: users for a release on one machine, sent by a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.rollout.plane import Plane


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The replay of real rows as many users."""

    rows: Path
    """Parquet with rows of a snapshot and their labels."""

    label: str
    """The column that holds the label."""

    contract: Path
    """``serving.json`` of the package that is released."""

    users: int = 6000
    rate: float = 250.0
    """Requests per second."""

    seed: int = 1
    markets: str = ""
    """Share of users in each market, ``us=0.6,eu=0.4``; empty shares them alike."""


@contextmanager
def replayed(plane: Plane, traffic: Traffic, workload: str, folder: Path) -> Iterator[None]:
    """Send requests of many users while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jsonl"):
        old.unlink()
    command = [sys.executable, "-m", "penstock.rollout.traffic", "--url", "http://penstock"]
    command += ["--socket", str(plane.inside)]
    command += ["--model", workload, "--contract", str(traffic.contract), "--out", str(folder)]
    command += ["--rows", str(traffic.rows), "--label", traffic.label]
    command += ["--users", str(traffic.users), "--rate", str(traffic.rate)]
    command += ["--seed", str(traffic.seed)]
    command += ["--markets", traffic.markets] if traffic.markets else []
    with (folder / "traffic.log").open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
