"""Three kinds of MLflow for the tests of registration: SQLite, PostgreSQL, and a server."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from penstock.ledger import Ledger
from penstock.register.mlflow import MlflowRegistry
from tests.packages import free_port
from tests.postgres import postgres_server
from tests.register import standin

PRELOADED = [
    "tests.register.standin",
    # MLflow imports these when it first needs them; over HTTP, plugins of other libraries too.
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.artifact.mlflow_artifacts_repo",
    "mlflow.tracking.request_header.registry",
]

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=["sqlite", "postgres", "server"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of an MLflow of each kind; it is started once."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_uri")
    if request.param == "server":
        return request.getfixturevalue("server_uri")
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    # Its tables take longer to make than a test to run.
    MlflowClient(uri).search_registered_models()
    return uri


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """Return the address of an MLflow database in a PostgreSQL server of the tests' own."""
    pytest.importorskip("psycopg", reason="needs psycopg; type: make stores")
    with postgres_server() as server:
        uri = f"postgresql+psycopg://penstock@127.0.0.1:{server.port}/postgres"
        MlflowClient(uri).search_registered_models()
        yield uri


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the tracking server keeps everything."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def server_uri(server_folder: Path) -> Iterator[str]:
    """Return the address of a tracking server on loopback that hands artifacts through."""
    folder, port = server_folder, free_port()
    command = [
        str(Path(sys.executable).parent / "mlflow"), "server",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts",
    ]  # fmt: skip
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PENSTOCK_"))}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**keep, **quiet}, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while True:
        assert process.poll() is None, log.read_text(encoding="utf-8")[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert time.monotonic() < end, f"{url} does not answer"
            time.sleep(0.2)


@pytest.fixture
def workload(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a workload that nobody used, in an MLflow that the environment names."""
    name = f"digits{next(_numbers)}"
    for variable, value in standin.environment(backend, tmp_path).items():
        monkeypatch.setenv(variable, value)
    if not backend.startswith("http"):
        # Without a server MLflow would put artifacts where the tests were started.
        MlflowClient(backend).create_experiment(name, (tmp_path / "artifacts").as_uri())
    return name


@pytest.fixture
def artifacts(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder that holds the artifacts, which a person could edit."""
    if backend.startswith("http"):
        return request.getfixturevalue("server_folder") / "artifacts"
    return tmp_path / "artifacts"


@pytest.fixture
def registry(workload: str) -> MlflowRegistry:
    """Return a real registry of each kind."""
    return MlflowRegistry()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in a file."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield held
    held.close()


@pytest.fixture(scope="session")
def processes() -> multiprocessing.context.ForkServerContext:
    """Return what starts processes quickly: each is forked off one that has imported MLflow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
