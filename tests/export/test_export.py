"""Laws of export: the graph is the network, or there is no graph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from penstock.export import graph
from penstock.runtimes.onnxruntime import OnnxModel
from tests import bundles
from workloads.digits.model import build

IMAGES = bundles.images(40)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """An untrained network in evaluation mode."""
    torch.manual_seed(7)
    return build(classes=10).eval()


def wrong(network: torch.nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    """Export another network than the one asked for, as a faulty exporter would."""
    torch.manual_seed(8)
    graph._dynamo(build(classes=10).eval(), example, path, opset)


def broken(network: torch.nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    """Fail as an exporter does on an operation it does not know."""
    raise NotImplementedError("operator aten::foo is not known")


def test_the_graph_computes_what_the_network_computes(network: torch.nn.Module, tmp_path: Path):
    """On real inputs, at any batch size, the graph's logits are the network's."""
    made = graph.export(network, IMAGES, tmp_path / "m.onnx", opset=20, max_abs_error=1e-4)

    with torch.no_grad():
        wanted = network(torch.tensor(IMAGES)).numpy()
    runtime = OnnxModel(tmp_path / "m.onnx")
    for size in (1, 3, 40):
        np.testing.assert_allclose(runtime.run(IMAGES[:size]), wanted[:size], atol=1e-4)
    assert (made.exporter, made.fallback_reason, made.opset) == ("dynamo", None, 20)


@pytest.mark.parametrize(("first", "reason"), [(wrong, "differs by"), (broken, "aten::foo")])
def test_a_wrong_graph_falls_back_with_its_reason(
    network: torch.nn.Module, tmp_path: Path, first: object, reason: str
):
    """An exporter that is wrong or fails is replaced by the next, and the reason is kept."""
    made = graph.export(
        network,
        IMAGES,
        tmp_path / "m.onnx",
        opset=20,
        max_abs_error=1e-4,
        exporters={"first": first, "second": graph._dynamo},  # pyright: ignore[reportArgumentType]
    )

    assert made.exporter == "second"
    assert made.fallback_reason is not None
    assert reason in made.fallback_reason


def test_without_a_right_graph_there_is_none(network: torch.nn.Module, tmp_path: Path):
    """When every exporter is wrong, nothing is left that could be served."""
    with pytest.raises(graph.ExportError, match="no exporter"):
        graph.export(
            network,
            IMAGES,
            tmp_path / "m.onnx",
            opset=20,
            max_abs_error=1e-4,
            exporters={"only": wrong},
        )

    assert list(tmp_path.iterdir()) == []


def test_a_network_in_training_mode_is_refused(tmp_path: Path):
    """Exporting in training mode would silently export something else."""
    with pytest.raises(graph.ExportError, match="training mode"):
        graph.export(build(classes=10), IMAGES, tmp_path / "m.onnx", opset=20, max_abs_error=1e-4)


def test_the_older_exporter_is_right_too(network: torch.nn.Module, tmp_path: Path):
    """The fallback is a real way out, not only a name."""
    made = graph.export(
        network,
        IMAGES,
        tmp_path / "m.onnx",
        opset=20,
        max_abs_error=1e-4,
        exporters={"torchscript": graph._torchscript},
    )

    assert made.exporter == "torchscript"


def test_properties_travel_inside_the_graph(network: torch.nn.Module, tmp_path: Path):
    """A graph carries where it came from, and still runs."""
    path = tmp_path / "m.onnx"
    graph.export(network, IMAGES, path, opset=20, max_abs_error=1e-4)

    graph.describe(path, {"penstock.model": "digits-1", "penstock.input": json.dumps({"n": 1})})

    held: Iterator[onnx.StringStringEntryProto] = iter(onnx.load(path).metadata_props)
    assert {p.key: p.value for p in held}["penstock.model"] == "digits-1"
    assert OnnxModel(path).run(IMAGES[:1]).shape == (1, 10)
