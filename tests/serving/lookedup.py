"""A package whose features are looked up, its store, and the processes that serve it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from penstock.bundle import Bundle, write_json
from penstock.endpoint import Endpoint, Instead
from penstock.features import feast as feasting
from penstock.online import Layout
from penstock.workload import root
from tests.packages import DIGITS, free_port, listens, make_package, wait_for
from workloads.digits import data

RULES = '''"""Rules that say zero."""

import numpy as np


def rules(columns):
    n = len(next(iter(columns.values())))
    return np.tile([0.91] + [0.01] * 9, (n, 1))
'''

PIXELS = data.features()["pixels"].to_pylist()
"""Of each capture, by its id."""


def materialized(folder: Path, redis_port: int) -> Layout:
    """Fill a Redis with the captures, by Feast itself, and return where they lie."""
    folder.mkdir()
    data.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_REDIS", f"127.0.0.1:{redis_port},db=0")
        settings = root() / "feature_repo" / "cluster.yaml"
        with feasting.opened(folder, module="digits", scratch=folder, settings=settings) as store:
            end = data.as_of()
            feasting.fill(store, start=end - timedelta(days=30), end=end)
            return feasting.layout(store, service="digits_v1", definitions="sha256:0")


def looking_up(path: Path, layout: Layout, **declared: object) -> Bundle:
    """Write a package that looks its pixels up, with rules."""

    def more(folder: Path) -> None:
        write_json(folder / "online.json", layout.to_dict())
        (folder / "rules.py").write_text(RULES)

    ways = {"lookup": (Instead.CACHED, Instead.RULES), "failed": (Instead.RULES,)}
    endpoint = Endpoint(**{**ways, **declared})
    return make_package(path, contract=replace(DIGITS, endpoint=endpoint), more=more)


def raw(*captures: int) -> np.ndarray:
    """Return the pixels of captures, [n, 64]."""
    return np.array([PIXELS[capture] for capture in captures], np.float32)


@contextmanager
def process(
    command: list[str], port: int, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server and yield it when it listens."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=output,
            env=os.environ | environment,
        )
    try:
        wait_for(lambda: listens(port) or running.poll() is not None, 60)
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGCONT)
            running.send_signal(signal.SIGTERM)
            running.wait(20)


@contextmanager
def transformer(
    package: Path, predictor_port: int, store: str, log: Path, *more: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the real transformer and yield it with its port."""
    port = free_port()
    command = ["-m", "serving.transformer", "--bundle", str(package), "--model_name", "digits"]
    command += ["--predictor_host", f"127.0.0.1:{predictor_port}", "--http_port", str(port), *more]
    with process(command, port, log, PENSTOCK_ONLINE=store) as running:
        yield running, port
