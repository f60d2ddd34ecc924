"""Laws of the int8 graph for CPUs: integers where it says so, float where it must, same bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from penstock.quantize import cpu, graph
from penstock.quantize.running import logits
from penstock.quantize.simplify import save
from penstock.runtimes import onnxruntime
from penstock.runtimes.layers import with_outputs
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.stats.distance import snr_db
from tests import bundles
from tests.quantize import graphs

CALIBRATION, HELD_OUT = bundles.images(320), bundles.images(300, start=1197)


def made(model: onnx.ModelProto, **given: Any) -> onnx.ModelProto:
    """Return a digits graph's form for CPUs, by the ranges of training rows."""
    return cpu.quantize(model, cpu.observe(model, CALIBRATION), {}, **given)


def fused(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Return how often each operation is in the graph that ONNX Runtime makes of this one."""
    options: Any = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)


def operations(model: onnx.ModelProto) -> Counter[str]:
    """Return how often each operation is in a graph."""
    return Counter(node.op_type for node in model.graph.node)


def float_reads(model: onnx.ModelProto, node: onnx.NodeProto) -> list[bool]:
    """Return for each input of a node whether it was never rounded."""
    rounded = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    return [name not in rounded for name in node.input]


def test_every_layer_is_computed_in_integers(simplified: onnx.ModelProto, tmp_path: Path):
    """Each convolution, the product and the residual sums, by the runtime that serves."""
    before = operations(simplified)
    found = fused(made(simplified), tmp_path)

    assert found["QLinearConv"] == before["Conv"] == 12
    assert (found["QGemm"], found["QLinearAdd"]) == (before["Gemm"], before["Add"])
    assert not {"Conv", "FusedConv", "Gemm", "Add", "Relu"} & {*found}


def test_it_answers_as_the_float_graph_does(simplified: onnx.ModelProto, tmp_path: Path):
    """As served, on rows that set no range: no further from it than TensorRT's form."""
    save(made(simplified), tmp_path / "cpu.onnx")
    wanted, found = logits(simplified, HELD_OUT), OnnxModel(tmp_path / "cpu.onnx").run(HELD_OUT)

    observed = cpu.observe(simplified, CALIBRATION)
    thresholds = {name: max(-one.low, one.high) for name, one in observed.items()}
    engines = logits(graph.quantize(simplified, thresholds), HELD_OUT)
    assert snr_db(wanted, found) > snr_db(wanted, engines) > 20
    assert (wanted.argmax(1) == found.argmax(1)).mean() >= 0.98


def test_what_serves_is_what_the_nodes_say(simplified: onnx.ModelProto, tmp_path: Path):
    """Fusing changes a rounding here and there, and no more."""
    save(made(simplified), tmp_path / "cpu.onnx")

    served = OnnxModel(tmp_path / "cpu.onnx").run(HELD_OUT)
    assert snr_db(logits(made(simplified), HELD_OUT), served) > 40


def test_the_batch_size_is_free(simplified: onnx.ModelProto, tmp_path: Path):
    """An answer does not depend on what it is asked with."""
    save(made(simplified), tmp_path / "cpu.onnx")
    model = OnnxModel(tmp_path / "cpu.onnx")

    whole = model.run(HELD_OUT[:7])
    ones = np.concatenate([model.run(HELD_OUT[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(ones, whole, atol=1e-4)


def test_without_vnni_it_answers_the_same(
    simplified: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another kernel is taken, one that does not overflow, and no number moves."""
    save(made(simplified), tmp_path / "cpu.onnx")
    here = OnnxModel(tmp_path / "cpu.onnx").run(HELD_OUT)

    monkeypatch.setattr(onnxruntime, "described", lambda: "flags\t\t: sse2 avx2\n")
    model = OnnxModel(tmp_path / "cpu.onnx")
    options = model._session.get_session_options()

    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    np.testing.assert_array_equal(model.run(HELD_OUT), here)


def test_equal_graphs_have_equal_bytes(simplified: onnx.ModelProto, tmp_path: Path):
    """And the source is left as it was, with its metadata and format kept."""
    before = simplified.SerializeToString(deterministic=True)
    for name in ("one", "other"):
        save(made(simplified), tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert simplified.SerializeToString(deterministic=True) == before


def test_metadata_and_ends_of_the_graph_are_kept(simplified: onnx.ModelProto):
    """The tool adds its own, which says nothing of the model."""
    source = onnx.ModelProto()
    source.CopyFrom(simplified)
    source.metadata_props.add(key="penstock.model", value="digits-1")
    found = made(source)

    assert found.metadata_props == source.metadata_props
    assert (found.graph.input, found.graph.output) == (source.graph.input, source.graph.output)
    assert (found.ir_version, found.opset_import) == (source.ir_version, source.opset_import)


@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_layer_kept_in_float_keeps_its_weights(
    simplified: onnx.ModelProto, tmp_path: Path, place: int
):
    """Every other one is int8 all the same."""
    layer = graph.layers(simplified)[place]
    found = made(simplified, keep_float=[layer.name])
    (node,) = [n for n in found.graph.node if n.name == layer.name]

    assert float_reads(found, node)[1:] == [True] * (len(node.input) - 1)
    ran = fused(found, tmp_path)
    whole = len(graph.layers(simplified)) - 1
    assert ran["QLinearConv"] + ran["QGemm"] == whole


def test_with_every_layer_in_float_the_graph_is_the_float_graph(simplified: onnx.ModelProto):
    names = [layer.name for layer in graph.layers(simplified)]

    assert made(simplified, keep_float=names) == simplified


def test_logits_and_what_only_float_nodes_read_stay_float():
    """Eight bits for the logits would tie what differs; a Tanh reads what was not rounded."""
    model = graphs.tabular(400).network
    found = cpu.quantize(model, cpu.observe(model, graphs.tabular(400).inputs_n), {})

    made_by = {n: node for node in found.graph.node for n in node.output}
    assert made_by["y"].op_type == "Gemm"
    (tanh,) = [n for n in found.graph.node if n.op_type == "Tanh"]
    assert made_by[tanh.input[0]].op_type == "Gemm"


def test_a_threshold_clips_what_a_layer_reads():
    """On the side where the tail is; zero stays in every range."""
    of = graphs.tabular(4000)
    observed = cpu.observe(of.network, of.inputs_n)
    found = cpu.quantize(of.network, observed, {"x": 8.0})
    held = {i.name: numpy_helper.to_array(i) for i in found.graph.initializer}

    assert observed["x"].high > 50
    assert held["x_scale"] == pytest.approx((8.0 + -observed["x"].low) / 255, rel=1e-5)


def embedded() -> tuple[onnx.ModelProto, np.ndarray]:
    """Return a network of one packed matrix, whose first column is a category, and rows of it.

    A product reads the whole matrix, so that the category is rounded for its sake.
    """
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "one"], ["c"], "cut"),
        helper.make_node("Cast", ["c"], ["i"], "cast", to=onnx.TensorProto.INT64),
        helper.make_node("Squeeze", ["i", "one"], ["id"], "squeeze"),
        helper.make_node("Gather", ["table", "id"], ["e"], "embedding"),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Concat", ["e", "r"], ["j"], "join", axis=1),
        helper.make_node("Gemm", ["j", "w2", "b2"], ["y"], "second"),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "table": graphs.normal(1, 200, 8),
        "w1": graphs.normal(2, 5, 16), "b1": graphs.normal(3, 16), "w2": graphs.normal(4, 24, 2),
        "b2": graphs.normal(5, 2),
    }  # fmt: skip
    constants["w1"][0] = 0
    inputs_n = graphs.normal(6, 500, 5, scale=1.0)
    inputs_n[:, 0] = np.arange(500) % 200
    return graphs.model(nodes, constants, given=["n", 5], made=["n", 2]), inputs_n


def test_a_category_is_looked_up_by_its_own_number():
    """Though a layer reads the same matrix in int8: a rounded number is another category."""
    model, inputs_n = embedded()
    # 255 steps for 200 categories and more: most numbers are rounded to another one's place.
    inputs_n[0, 1] = 900.0
    found = cpu.quantize(model, cpu.observe(model, inputs_n), {})
    nodes = {n.name: n for n in found.graph.node}

    assert nodes["cut"].input[0] == "x"
    assert float_reads(found, nodes["embedding"]) == [True, True]
    assert [float_reads(found, nodes[n])[:2] for n in ("first", "second")] == [[False] * 2] * 2


def test_a_network_with_embeddings_answers_as_before(tmp_path: Path):
    """Served, its products are integers and its table is float."""
    model, inputs_n = embedded()
    save(found := cpu.quantize(model, cpu.observe(model, inputs_n), {"x": 4.0}), tmp_path / "m")

    assert snr_db(logits(model, inputs_n), OnnxModel(tmp_path / "m").run(inputs_n)) > 25
    ran = fused(found, tmp_path)
    assert (ran["QGemm"], ran["Gemm"], ran["Gather"]) == (2, 0, 1)


def test_a_rectifier_whose_output_float_nodes_read_is_kept():
    """As a node or as the end of a range: nothing below zero comes out of it."""
    model, inputs_n = embedded()
    found = cpu.quantize(model, cpu.observe(model, inputs_n), {})
    (join,) = [n for n in found.graph.node if n.name == "join"]

    read = OnnxModel.tensors(with_outputs(found, [join.input[1]]), [join.input[1]], inputs_n)
    assert read[0].min() == 0 < read[0].max()


def test_an_activation_that_is_no_number_has_no_range():
    model, inputs_n = embedded()
    inputs_n[3, 2] = np.nan

    with pytest.raises(ValueError, match="'x' is not finite"):
        cpu.observe(model, inputs_n)
