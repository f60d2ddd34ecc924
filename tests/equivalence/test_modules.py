"""Laws of finding a network's modules in a graph: by what they compute, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from penstock.runtimes import modules
from tests import bundles

INPUTS = np.random.default_rng(3).normal(size=(16, 3, 6, 6)).astype(np.float32)
LEAST_DB = 80.0


class Residual(nn.Module):
    """A block whose rectifier works in place, as torchvision's do, with a branch beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.beside = nn.Conv2d(3, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [n, 4]."""
        found = self.relu(self.bn1(self.conv1(images)))
        found = self.relu(self.bn2(self.conv2(found)) + self.beside(images))
        return self.head(found.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network whose normalization has seen something."""
    torch.manual_seed(2)
    made = Residual().train()
    with torch.no_grad():
        made(torch.tensor(INPUTS) * 2 + 1)
    return made.eval()


def exported(network: nn.Module, path: Path) -> Path:
    """Write the graph, and leave the network in float64."""
    bundles.export(network, INPUTS, path)
    network.double()
    return path


def swapped(path: Path, number: int) -> None:
    """Swap two output channels of one convolution of a graph, weights and bias."""
    model = onnx.load(path)
    node = [n for n in model.graph.node if n.op_type == "Conv"][number]
    # Where several convolutions share a bias, the exporter names one for all.
    same = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Identity"}
    for held in model.graph.initializer:
        if held.name in {same.get(name, name) for name in node.input[1:]}:
            values = numpy_helper.to_array(held)
            rolled = values[[1, 0, *range(2, len(values))]]
            held.CopyFrom(numpy_helper.from_array(rolled, held.name))
    onnx.save(model, path)


def test_every_module_of_a_right_graph_is_found_or_absorbed(network: nn.Module, tmp_path: Path):
    """Normalization folded into a convolution leaves no output of the convolution, and no fault."""
    found = modules.compare(
        network, exported(network, tmp_path / "m.onnx"), INPUTS, least_db=LEAST_DB
    )

    assert [m.name for m in found if m.absorbed] == ["conv1", "conv2"]
    assert [m.name for m in found] == [
        "conv1", "bn1", "relu", "conv2", "bn2", "beside", "relu", "head", "the network itself",
    ]  # fmt: skip
    assert modules.first_wrong(found, least_db=LEAST_DB) is None


@pytest.mark.parametrize(("number", "name"), [(0, "conv1"), (1, "conv2"), (2, "beside")])
def test_swapped_channels_are_found_in_their_module(
    network: nn.Module, tmp_path: Path, number: int, name: str
):
    """On the branch where they are, though what joins it is wrong as well."""
    path = exported(network, tmp_path / "m.onnx")
    swapped(path, number)

    wrong = modules.first_wrong(
        modules.compare(network, path, INPUTS, least_db=LEAST_DB), least_db=LEAST_DB
    )

    assert wrong is not None
    assert (wrong.name, wrong.operation, wrong.fed_right) == (name, "Conv2d", True)


def test_a_wrong_rectifier_is_told_from_what_it_overwrites(network: nn.Module, tmp_path: Path):
    """A module that works in place takes the output of the one before away with it."""
    path = exported(network, tmp_path / "m.onnx")
    model = onnx.load(path)
    next(n for n in model.graph.node if n.op_type == "Relu").op_type = "Abs"
    onnx.save(model, path)

    wrong = modules.first_wrong(
        modules.compare(network, path, INPUTS, least_db=LEAST_DB), least_db=LEAST_DB
    )

    assert wrong is not None
    assert (wrong.name, wrong.fed_right) == ("relu", True)


def test_a_graph_of_other_inputs_is_wrong_before_its_first_module(
    network: nn.Module, tmp_path: Path
):
    """Nothing that goes into any module is there."""
    path = exported(network, tmp_path / "m.onnx")
    model = onnx.load(path)
    index = numpy_helper.from_array(np.array([1, 2, 0]), "one_off")
    model.graph.initializer.append(index)
    for node in model.graph.node:
        node.input[:] = ["rolled" if n == "inputs" else n for n in node.input]
    rolled = onnx.helper.make_node("Gather", ["inputs", "one_off"], ["rolled"], axis=1)
    model.graph.node.insert(0, rolled)
    onnx.save(model, path)

    wrong = modules.first_wrong(
        modules.compare(network, path, INPUTS, least_db=LEAST_DB), least_db=LEAST_DB
    )

    assert wrong is not None
    assert wrong.name == "conv1"


def test_looking_leaves_the_network_as_it_was(network: nn.Module, tmp_path: Path):
    """No hook stays behind."""
    modules.compare(network, exported(network, tmp_path / "m.onnx"), INPUTS, least_db=LEAST_DB)

    hooks = [m._forward_hooks or m._forward_pre_hooks for m in network.modules()]
    assert not any(hooks)
