"""A digits network that answers well, and its graphs: what the stage starts from."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from penstock.quantize.simplify import simplify
from tests import bundles
from workloads.digits.model import build


def fitted() -> torch.nn.Module:
    """Return a network whose last layer is fit by least squares: a second instead of epochs."""
    torch.manual_seed(7)
    network = build(classes=10).eval()
    last, network.fc = network.fc, torch.nn.Identity()
    labels_n = torch.tensor(bundles.rows()["label"].to_numpy()[:600])
    with torch.no_grad():
        features = torch.cat([network(x) for x in torch.tensor(bundles.images(600)).split(100)])
        design = torch.cat([features, torch.ones(600, 1)], 1).double()
        wanted = 4 * torch.nn.functional.one_hot(labels_n, 10).double()
        ridge = design.T @ design + torch.eye(design.shape[1]).double()
        found = torch.linalg.solve(ridge, design.T @ wanted).float()
        last.weight.copy_(found[:-1].T)
        last.bias.copy_(found[-1])
    network.fc = last
    return network


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported graph of that network."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return bundles.export(fitted(), bundles.images(64), path)


@pytest.fixture(scope="session")
def simplified(exported: Path) -> onnx.ModelProto:
    """The same graph as it is quantized."""
    return simplify(exported, exported.with_name("model.simplified.onnx"))
