"""Laws of the int8 graph: explicit Q/DQ in TensorRT's form, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from penstock.export import graph as exporter
from penstock.quantize import graph
from penstock.runtimes.onnxruntime import OnnxModel
from tests import bundles
from workloads.digits.model import build

IMAGES = bundles.images(64)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported graph of an untrained network."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.manual_seed(7)
    exporter.export(build(classes=10).eval(), IMAGES, path, opset=20, max_abs_error=1e-3)
    return path


def test_every_weighted_operation_is_int8(source: Path, tmp_path: Path):
    """Both inputs of every convolution and product are quantized, and no form is wrong."""
    made = graph.quantize(source, tmp_path / "int8.onnx", IMAGES)

    assert made.problems == ()
    assert made.int8 == made.weighted == 13


def test_the_same_inputs_give_the_same_bytes(source: Path, tmp_path: Path):
    """Quantizing is a function of the graph and the ranges."""
    graph.quantize(source, tmp_path / "one.onnx", IMAGES)
    graph.quantize(source, tmp_path / "two.onnx", IMAGES)

    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_the_runtime_computes_what_the_nodes_say(source: Path, tmp_path: Path):
    """Optimized and unoptimized, the int8 graph gives the same answers."""
    graph.quantize(source, tmp_path / "int8.onnx", IMAGES)

    served = OnnxModel(tmp_path / "int8.onnx").run(IMAGES)
    spec = OnnxModel(tmp_path / "int8.onnx", reference=True).run(IMAGES)

    np.testing.assert_allclose(served, spec, atol=1e-5)


def one_gemm(*, zero: np.ndarray, quantized: bool = True) -> onnx.ModelProto:
    """Return a graph of one matrix product with, or without, Q/DQ on its first input."""
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    zero_point = numpy_helper.from_array(zero, "z")
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("Gemm", ["d" if quantized else "x", "w"], ["y"], name="gemm"),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    made = helper.make_graph(nodes, "g", value[:1], value[1:], [scale, zero_point, weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (one_gemm(zero=np.array(3, np.int8)), "not symmetric"),
        (one_gemm(zero=np.array(0, np.uint8)), "not symmetric"),
        (one_gemm(zero=np.array(0, np.int8)), "runs in float"),
        (one_gemm(zero=np.array(0, np.int8), quantized=False), "runs in float"),
    ],
    ids=["zero point", "unsigned", "weight in float", "nothing quantized"],
)
def test_forms_that_tensorrt_refuses_are_named(model: onnx.ModelProto, said: str):
    """A graph that TensorRT would refuse, or run in float, is found before it gets there."""
    assert any(said in problem for problem in graph.inspect(model).problems)
