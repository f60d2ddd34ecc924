"""Laws of locating: a fault planted in one layer is found in that layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.runtimes import layers
from tests import bundles

WIDTH, DEPTH = 16, 4
INPUTS = np.random.default_rng(3).normal(0, 1, (64, WIDTH)).astype(np.float32)


def network(path: Path) -> Path:
    """Write four layers of weights, biases and rectifiers."""
    rng = np.random.default_rng(1)
    nodes: list[onnx.NodeProto] = []
    held: list[onnx.TensorProto] = []
    last = "input"
    for i in range(DEPTH):
        weights = rng.normal(0, 0.35, (WIDTH, WIDTH)).astype(np.float32)
        held.append(numpy_helper.from_array(weights, f"w{i}"))
        held.append(numpy_helper.from_array(rng.normal(0, 0.1, WIDTH).astype(np.float32), f"b{i}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"layer{i}"], f"gemm{i}"))
        last = f"layer{i}"
        if i < DEPTH - 1:
            nodes.append(helper.make_node("Relu", [last], [f"relu{i}"], f"relu_{i}"))
            last = f"relu{i}"
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", WIDTH]) for n in ("input", last)
    ]
    made = helper.make_graph(nodes, "layers", ends[:1], ends[1:], held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The network and its int8 graph."""
    whole = network(tmp_path / "model.onnx")
    bundles.quantize(whole, tmp_path, INPUTS)
    return whole, tmp_path / "model.int8.onnx"


def changed(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite one constant of a graph."""
    model = onnx.load(path)
    (held,) = [i for i in model.graph.initializer if i.name == name]
    held.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(held)), name))
    onnx.save(model, path)


def constants(path: Path, layer: int, kind: str) -> str:
    """Return the name of a layer's quantized weights or of their scale."""
    names = [i.name for i in onnx.load(path).graph.initializer]
    (name,) = [n for n in names if n.startswith(f"w{layer}") and n.endswith(kind)]
    return name


def test_a_good_int8_graph_has_a_little_noise_everywhere(pair: tuple[Path, Path]):
    """Every layer is compared, in order, and none goes wrong."""
    found = layers.compare(*pair, INPUTS)

    assert [layer.name for layer in found] == [
        "layer0", "relu0", "layer1", "relu1", "layer2", "relu2", "layer3",
    ]  # fmt: skip
    assert all(20 < layer.snr_db < 60 for layer in found)
    assert layers.first_wrong(found, least_db=20) is None


@pytest.mark.parametrize("layer", range(DEPTH))
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("_scale", lambda v: v * 4),
        ("_quantized", lambda v: v[:, ::-1].copy()),
        ("_quantized", lambda v: np.roll(v, 1, axis=0)),
    ],
    ids=["a wrong scale", "swapped channels", "inputs one off"],
)
def test_a_fault_in_one_layer_is_found_there(
    pair: tuple[Path, Path], layer: int, kind: str, change: Callable[[np.ndarray], np.ndarray]
):
    """Whatever the noise of the layers after it."""
    changed(pair[1], constants(pair[1], layer, kind), change)

    wrong = layers.first_wrong(layers.compare(*pair, INPUTS), least_db=20)

    assert wrong is not None
    assert (wrong.name, wrong.operation) == (f"layer{layer}", "Gemm")


def test_the_first_layer_below_the_limit_is_the_one():
    """At the limit a layer is good; below it the first counts, not the worst."""
    found = [
        layers.Layer(name=str(db), operation="Gemm", snr_db=db) for db in (20.0, 19.9, 3.0, 30.0)
    ]

    assert layers.first_wrong(found, least_db=20.0) == found[1]
    assert layers.first_wrong(found[:1], least_db=20.0) is None


def test_layers_of_many_inputs_are_those_of_their_batches(pair: tuple[Path, Path]):
    """However many inputs, the tensors of one batch are in memory, and no number changes."""
    assert len(INPUTS) > 2 * layers.BATCH
    whole = layers.compare(*pair, INPUTS)
    moved = layers.compare(*pair, INPUTS[::-1].copy())

    assert [layer.snr_db for layer in whole] == pytest.approx([layer.snr_db for layer in moved])


def test_graphs_without_a_tensor_of_one_name_have_no_layers(
    pair: tuple[Path, Path], tmp_path: Path
):
    """Then nothing is said of any."""
    model = onnx.load(pair[1])
    made = {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        node.input[:] = [f"{n}_" if n in made else n for n in node.input]
        node.output[:] = [f"{n}_" for n in node.output]
    model.graph.output[0].name += "_"
    onnx.save(model, tmp_path / "renamed.onnx")

    assert layers.compare(pair[0], tmp_path / "renamed.onnx", INPUTS) == []
