"""One real server for the tests that judge it from outside: it takes seconds to start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.packages import make_package, predictor

ROWS = np.random.default_rng(3).integers(0, 17, (2, 64)).astype(np.float32)
"""Two images, [2, 64]."""

INFER = "/v2/models/digits/infer"
PREDICT = "/v1/models/digits:predict"


@dataclass
class Running:
    """A predictor process, and what a test needs of it."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    package: Path
    client: httpx.Client

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def memory_mib(self) -> float:
        """Return what the process holds in memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The real server of a small package."""
    folder = tmp_path_factory.mktemp("running")
    made = make_package(folder / "package")
    with predictor(made.path, folder / "log") as (process, port):
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        yield Running(process, port, folder / "log", made.path, client)
        client.close()
