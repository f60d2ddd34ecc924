"""Laws of the int8 graph: explicit Q/DQ in TensorRT's form, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from penstock.quantize import graph, lint, ranges, simplify
from penstock.quantize.running import logits
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.stats.distance import snr_db
from penstock.workload import Calibrator
from tests import bundles
from tests.quantize import graphs

IMAGES = bundles.images(64)


def quantized(model: onnx.ModelProto, inputs_n=IMAGES, **kept) -> onnx.ModelProto:
    """Return the int8 graph with the ranges of these inputs."""
    seen = ranges.observe(model, graph.tensors(graph.layers(model)), inputs_n)
    limits = {n: ranges.threshold(o, Calibrator.ENTROPY, percentile=99.9) for n, o in seen.items()}
    return graph.quantize(model, limits, **kept)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """Return a node by its name."""
    (found,) = [n for n in model.graph.node if n.name == name]
    return found


def maker(model: onnx.ModelProto, tensor: str) -> str:
    """Return the operation that makes a tensor, or what else it is."""
    return next((n.op_type for n in model.graph.node if tensor in n.output), "given")


def test_every_weighted_operation_is_int8(simplified: onnx.ModelProto):
    """Both inputs of every convolution and product are quantized, and no form is wrong."""
    found = lint.lint(quantized(simplified))

    assert found.problems == ()
    assert len(found.int8) == found.weighted == 13


def test_the_int8_graph_answers_as_the_float_graph_does(simplified: onnx.ModelProto):
    """On images that set no range."""
    fresh = bundles.images(300, start=1197)
    before, after = logits(simplified, fresh), logits(quantized(simplified), fresh)

    assert snr_db(before, after) > 20
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.97


def test_the_same_rows_give_the_same_bytes(
    simplified: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Run twice, with the rows shuffled, and in batches of another size."""
    simplify.save(quantized(simplified), tmp_path / "once.onnx")
    simplify.save(quantized(simplified), tmp_path / "twice.onnx")
    shuffled = np.random.default_rng(4).permutation(IMAGES)
    simplify.save(quantized(simplified, shuffled), tmp_path / "shuffled.onnx")
    monkeypatch.setattr("penstock.quantize.running.BATCH", 5)
    simplify.save(quantized(simplified), tmp_path / "batches.onnx")

    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_runtime_computes_what_the_nodes_say(simplified: onnx.ModelProto, tmp_path: Path):
    """Optimized and unoptimized, the int8 graph answers alike.

    A sum in another order may tip a rounding, so they need not be equal to the last bit.
    """
    simplify.save(quantized(simplified), tmp_path / "int8.onnx")

    served = OnnxModel(tmp_path / "int8.onnx").run(IMAGES)
    spec = OnnxModel(tmp_path / "int8.onnx", reference=True).run(IMAGES)

    assert snr_db(spec.astype(np.float64), served.astype(np.float64)) > 45


@pytest.mark.parametrize("size", [1, 7, 64])
def test_any_batch_size_is_answered_the_same(simplified: onnx.ModelProto, size: int):
    """The first axis stays open, and one row's answer does not depend on the others."""
    made = quantized(simplified)
    onnx.checker.check_model(made, full_check=True)

    parts = [logits(made, IMAGES[i : i + size]) for i in range(0, len(IMAGES), size)]

    # A product may be added up in another order, and then a value may round the other way.
    assert snr_db(logits(made, IMAGES), np.concatenate(parts)) > 35


def test_of_a_residual_sum_only_the_skip_branch_is_quantized(simplified: onnx.ModelProto):
    """The other one is the output of the layer that the sum is fused with."""
    made = quantized(simplified)

    sums = [n for n in made.graph.node if n.op_type == "Add"]
    assert [sorted(maker(made, name) for name in n.input) for n in sums] == [
        ["Conv", "DequantizeLinear"]
    ] * 4


def residual(*, read_twice: bool = False) -> onnx.ModelProto:
    """Return the sum of two layers' outputs; the second may be read by something else too."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], "short"),
        helper.make_node("Gemm", ["x", "w2"], ["b"], "long"),
        helper.make_node("Add", ["b", "a"], ["s"], "sum"),
        helper.make_node("Mul", ["s", "b" if read_twice else "s"], ["y"], "after"),
    ]
    held = {"w1": graphs.normal(1, 5, 5), "w2": graphs.normal(2, 5, 5)}
    return graphs.model(nodes, held, given=["n", 5], made=["n", 5])


@pytest.mark.parametrize(("read_twice", "rounded"), [(False, "a"), (True, "b")])
def test_a_sum_is_fused_with_the_layer_computed_last(read_twice: bool, rounded: str):
    """Unless its output is read elsewhere, so that it must exist by itself."""
    model = residual(read_twice=read_twice)

    made = quantized(model, graphs.normal(3, 40, 5))

    assert {n.input[0] for n in made.graph.node if n.op_type == "QuantizeLinear"} == {"x", rounded}


def test_a_layer_in_float_takes_its_skip_branch_with_it(simplified: onnx.ModelProto):
    """With its layer in float nothing would be fused with the sum."""
    layer = next(la for la in graph.layers(simplified) if la.skip)

    made = quantized(simplified, keep_float=[layer.name])

    assert node(made, layer.name) == node(simplified, layer.name)
    assert node(made, layer.skip.node) == node(simplified, layer.skip.node)
    assert lint.lint(made, keep_float=[layer.name]).kept_float == (layer.name,)


def test_all_layers_in_float_are_the_graph_itself(simplified: onnx.ModelProto):
    names = [layer.name for layer in graph.layers(simplified)]

    assert quantized(simplified, keep_float=names) == simplified


def product(kind: str) -> onnx.ModelProto:
    """Return one product of either operation, with its weights either way round."""
    w = graphs.normal(3, 5, 7) * np.linspace(0.1, 9, 7, dtype=np.float32)
    nodes = {
        "gemm": helper.make_node("Gemm", ["x", "w", "b"], ["y"], "p"),
        "gemm transposed": helper.make_node("Gemm", ["x", "w", "b"], ["y"], "p", transB=1),
        "matmul": helper.make_node("MatMul", ["x", "w"], ["y"], "p"),
    }
    held = {"w": w.T.copy() if kind == "gemm transposed" else w}
    if kind != "matmul":
        held["b"] = graphs.normal(4, 7)
    return graphs.model([nodes[kind]], held, given=["n", 5], made=["n", 7])


@pytest.mark.parametrize(
    ("kind", "axis"), [("gemm", 1), ("gemm transposed", 0), ("matmul", 1)], ids=str
)
def test_weights_have_one_scale_for_each_output_column(kind: str, axis: int):
    """Whichever axis that is; columns of very different size keep their precision."""
    model, x = product(kind), graphs.normal(5, 200, 5, scale=1.0)
    made = quantized(model, x)

    held = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    assert held[f"w_axis{axis}_scale"].shape == (7,)
    assert held[f"w_axis{axis}_quantized"].dtype == np.int8
    assert "w" not in held
    assert ("b" in held) == (kind != "matmul")
    before, after = logits(model, x), logits(made, x)
    assert all(snr_db(before[:, i], after[:, i]) > 30 for i in range(7))
    assert lint.lint(made).problems == ()


def test_what_is_no_layer_is_left_alone():
    """Embeddings, and products of two activations, stay as they are."""
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], "cast", to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "i"], ["e"], "embedding"),
        helper.make_node("MatMul", ["e", "w"], ["q"], "query"),
        helper.make_node("Transpose", ["e"], ["t"], "keys", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["y"], "attention"),
    ]
    held = {"table": graphs.normal(1, 9, 16), "w": graphs.normal(2, 16, 16)}
    model = graphs.model(nodes, held, given=["n", 4], made=["n", 4, 4])
    inputs = np.random.default_rng(1).integers(0, 9, (50, 4)).astype(np.float32)

    made = quantized(model, inputs)

    assert [layer.name for layer in graph.layers(model)] == ["query"]
    assert node(made, "attention") == node(model, "attention")
    assert node(made, "embedding") == node(model, "embedding")
    assert lint.lint(made).problems == ()


def test_a_sum_with_a_bias_is_no_residual_sum():
    """Nothing but the layer's two inputs is quantized."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], "p"),
        helper.make_node("Add", ["m", "b"], ["y"], "bias"),
    ]
    held = {"w": graphs.normal(1, 5, 5), "b": graphs.normal(2, 5)}
    model = graphs.model(nodes, held, given=["n", 5], made=["n", 5])

    made = quantized(model, graphs.normal(3, 20, 5))

    assert node(made, "bias") == node(model, "bias")


@given(
    values=st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    axis=st.integers(0, 1),
)
def test_weights_are_off_by_half_a_step_at_most(values: list[list[float]], axis: int):
    """Channels that are 0 everywhere come back as 0."""
    weights = np.array(values, np.float32)

    rounded, scale_c = graph.round_weights(weights, axis=axis)

    step = scale_c.reshape([-1 if i == axis else 1 for i in range(2)]).astype(np.float64)
    assert (scale_c > 0).all()
    assert (np.abs(rounded * step - weights) <= step * 0.5001).all()
    assert np.abs(rounded.astype(int)).max() <= 127


def test_the_parser_of_tensorrt_rtx_takes_the_graph(simplified: onnx.ModelProto, tmp_path: Path):
    """NVIDIA's own parser has nothing against it: no error and no warning."""
    trt = pytest.importorskip(
        "tensorrt_rtx_bindings", reason="needs TensorRT-RTX: install its two wheels and run again"
    )
    simplify.save(quantized(simplified), tmp_path / "int8.onnx")

    class Said(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.complaints: list[str] = []

        def log(self, severity, msg) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.WARNING, trt.ILogger.INTERNAL_ERROR):
                self.complaints.append(msg)

    said = Said()
    network = trt.Builder(said).create_network(0)
    parser = trt.OnnxParser(network, said)

    assert parser.parse_from_file(str(tmp_path / "int8.onnx")), parser.get_error(0).desc()
    assert said.complaints == []
