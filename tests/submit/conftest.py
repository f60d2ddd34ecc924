"""A server, a compiled pipeline and a patience that does not wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.submission import connection
from pipelines.submission.service import Patience, Service
from pipelines.submission.tokens import Tokens
from tests.submit.kubeflow import Kubeflow
from tests.submit.web import Server, serving

IR = """\
components:
  comp-features:
    executorLabel: exec-features
    inputDefinitions:
      parameters:
        data_version: {parameterType: STRING}
deploymentSpec:
  executors:
    exec-features:
      container: {image: "registry.example.com/penstock-python-data@sha256:SHA"}
pipelineInfo: {name: train-digits}
root:
  dag:
    tasks:
      features:
        cachingOptions: {enableCache: true}
        componentRef: {name: comp-features}
        inputs:
          parameters:
            data_version: {componentInputParameter: data_version}
        taskInfo: {name: features}
  inputDefinitions:
    parameters:
      data_version: {defaultValue: "", isOptional: true, parameterType: STRING}
      seed: {defaultValue: 0.0, isOptional: true, parameterType: NUMBER_INTEGER}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
""".replace("SHA", "0" * 64)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing of the machine's own settings reaches a test."""
    for name in ("PENSTOCK_KFP_TOKEN", "PENSTOCK_KFP_HOST", "PENSTOCK_LEDGER", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "getproxies", dict)
    monkeypatch.setattr("pipelines.submission.tokens.PROJECTED", tmp_path / "no-token")


@pytest.fixture
def kubeflow() -> Kubeflow:
    return Kubeflow()


@pytest.fixture
def server(kubeflow: Kubeflow) -> Iterator[Server]:
    with serving(kubeflow) as running:
        yield running


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


def service_of(server: Server, told: list[Any], **more: Any) -> Service:
    """Return a service that asks five times and waits for nobody."""
    waited: list[float] = []
    patience = Patience(sleep=waited.append)
    tokens = more.pop("tokens", None) or Tokens(None, {})
    return Service(server.url, tokens, tell=told.append, patience=patience, **more)


@pytest.fixture
def service(server: Server, told: list[Any]) -> Service:
    return service_of(server, told)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "train-digits.yaml").write_text(IR)
    return tmp_path / "train-digits.yaml"
