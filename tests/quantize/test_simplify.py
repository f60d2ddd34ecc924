"""Laws of simplifying: less graph, the same answers, the same story."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from penstock.quantize.running import logits
from penstock.quantize.simplify import CannotSimplify, simplify
from tests.quantize import graphs

NODES = [
    helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
    helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["b"], "norm"),
    helper.make_node("Add", ["one", "one"], ["two"], "constant"),
    helper.make_node("Mul", ["c", "one"], ["unused"], "dead"),
    helper.make_node("Add", ["b", "two"], ["s"]),
    helper.make_node("Relu", ["s"], ["r"]),
    helper.make_node("Neg", ["r"], ["y"], "Relu_r"),
]
CONSTANTS = {
    "w": graphs.normal(1, 4, 3, 3, 3),
    "scale": graphs.normal(2, 4),
    "shift": graphs.normal(3, 4),
    "mean": graphs.normal(4, 4),
    "var": np.abs(graphs.normal(5, 4)) + 0.1,
    "one": graphs.normal(6, 4, 1, 1),
}


def written(folder: Path) -> Path:
    """Write a graph with a normalization, a constant sum and a dead node in it."""
    made = graphs.model(NODES, CONSTANTS, given=["n", 3, 8, 8], made=["n", 4, 8, 8])
    helper.set_model_props(made, {"penstock.model": "m-1", "penstock.workload": "w", "a": "b"})
    onnx.save(made, folder / "model.onnx")
    return folder / "model.onnx"


def test_normalization_is_fused_constants_are_folded_and_the_dead_are_gone(tmp_path: Path):
    """What is left computes the same."""
    source = written(tmp_path)
    found = simplify(source, tmp_path / "simple.onnx")

    kinds = [node.op_type for node in found.graph.node]
    assert "BatchNormalization" not in kinds
    assert "Mul" not in kinds
    assert kinds.count("Add") <= 1
    x = graphs.normal(9, 5, 3, 8, 8, scale=1.0)
    before = logits(onnx.load(source), x)
    np.testing.assert_allclose(logits(found, x), before, atol=1e-5)


def test_the_story_of_the_graph_is_kept(tmp_path: Path):
    """Metadata, format versions, names of input and output; no domain that nothing uses."""
    source = written(tmp_path)
    before, found = onnx.load(source), simplify(source, tmp_path / "simple.onnx")

    assert found == onnx.load(tmp_path / "simple.onnx")
    assert found.metadata_props == before.metadata_props
    assert found.ir_version == before.ir_version
    assert found.opset_import == before.opset_import
    assert found.graph.input[0].name == "x"
    assert found.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert found.graph.output[0].name == "y"


def test_every_node_has_a_name_of_its_own(tmp_path: Path):
    """Reports speak of layers by name; a made-up one is not another node's."""
    found = simplify(written(tmp_path), tmp_path / "simple.onnx")

    names = [node.name for node in found.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_simplifying_twice_gives_the_same_bytes(tmp_path: Path):
    source = written(tmp_path)
    simplify(source, tmp_path / "one.onnx")
    simplify(source, tmp_path / "two.onnx")

    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_graph_that_the_runtime_does_not_take_is_refused(tmp_path: Path):
    """It is not quantized as it was, with a line in a log."""
    made = graphs.model(NODES, CONSTANTS, given=["n", 3, 8, 8], made=["n", 4, 8, 8])
    made.graph.node[0].name = made.graph.node[1].name
    onnx.save(made, tmp_path / "model.onnx")

    with pytest.raises(CannotSimplify, match="two nodes with same node name"):
        simplify(tmp_path / "model.onnx", tmp_path / "simple.onnx")
