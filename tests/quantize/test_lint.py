"""Laws of the linter: each form that would not become int8 is found where it is, and no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from penstock.quantize import graph
from penstock.quantize.lint import Problem, Rule, lint
from tests.quantize import graphs

Change = Callable[[onnx.ModelProto], None]


def good() -> onnx.ModelProto:
    """Return a convolution, a rectifier and a product in int8, all of it as it should be."""
    nodes = [
        helper.make_node("Conv", ["x", "wc", "bc"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], "mean", keepdims=0),
        helper.make_node("Gemm", ["m", "wg", "bg"], ["y"], "gemm"),
    ]
    held = {
        "wc": graphs.normal(1, 6, 6, 3, 3),
        "bc": graphs.normal(2, 6),
        "axes": np.array([2, 3], np.int64),
        "wg": graphs.normal(3, 6, 6),
        "bg": graphs.normal(4, 6),
    }
    model = graphs.model(nodes, held, given=["n", 6, 8, 8], made=["n", 6])
    return graph.quantize(model, {"x": 3.0, "m": 2.0})


def constant(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Put a constant in, or another in the place of one."""
    for held in model.graph.initializer:
        if held.name == name:
            held.CopyFrom(numpy_helper.from_array(values, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """Return a node by its name."""
    (found,) = [n for n in model.graph.node if n.name == name]
    return found


def value(name: str, values: np.ndarray) -> Change:
    """Return the change that gives a constant other values."""
    return lambda model: constant(model, name, values)


def reads(name: str, index: int, tensor: str) -> Change:
    """Return the change that makes a node read another tensor."""

    def change(model: onnx.ModelProto) -> None:
        node(model, name).input[index] = tensor

    return change


def per_channel_activation(model: onnx.ModelProto) -> None:
    constant(model, "x_scale", np.full(6, 0.1, np.float32))
    constant(model, "x_zero_point", np.zeros(6, np.int8))


def no_zero_point(model: onnx.ModelProto) -> None:
    """Without one, and without a type, the format means unsigned."""
    del node(model, "x_int8_QuantizeLinear").input[2]


def computed_scale(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Abs", ["x_scale"], ["computed"], "abs"))
    for kind in ("x_int8_QuantizeLinear", "conv_activation_DequantizeLinear"):
        node(model, kind).input[1] = "computed"


def along_inputs(name: str) -> Change:
    """Return the change that scales a layer's weights along their other axis."""

    def change(model: onnx.ModelProto) -> None:
        (said,) = node(model, f"{name}_weight_DequantizeLinear").attribute
        said.i = 1 - said.i

    return change


def quantized_bias(model: onnx.ModelProto) -> None:
    constant(model, "b_q", np.zeros(6, np.int32))
    constant(model, "b_s", np.full(6, 0.01, np.float32))
    constant(model, "b_z", np.zeros(6, np.int32))
    read = helper.make_node("DequantizeLinear", ["b_q", "b_s", "b_z"], ["b_f"], "bias", axis=0)
    model.graph.node.insert(0, read)
    node(model, "conv").input[2] = "b_f"


def between(model: onnx.ModelProto) -> None:
    """Round the convolution's output before its rectifier."""
    at = [n.name for n in model.graph.node].index("relu")
    inputs = ["x_scale", "x_zero_point"]
    model.graph.node.insert(at, helper.make_node("QuantizeLinear", ["c", *inputs], ["cq"], "q"))
    read = helper.make_node("DequantizeLinear", ["cq", *inputs], ["cd"], "dq")
    model.graph.node.insert(at + 1, read)
    node(model, "relu").input[0] = "cd"


def rounded_for_nobody(model: onnx.ModelProto) -> None:
    inputs = ["x", "x_scale", "x_zero_point"]
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", inputs, ["nobody"], "q"))


def integers_from_elsewhere(model: onnx.ModelProto) -> None:
    model.graph.node.insert(
        0, helper.make_node("Cast", ["x"], ["raw"], "cast", to=TensorProto.INT8)
    )
    node(model, "conv_activation_DequantizeLinear").input[0] = "raw"


def computed_weights(model: onnx.ModelProto) -> None:
    """Read the weights from what the activation was rounded to."""
    model.graph.node.insert(
        [n.name for n in model.graph.node].index("gemm"),
        helper.make_node("DequantizeLinear", ["m_int8", "m_scale", "m_zero_point"], ["mw"], "dw"),
    )
    node(model, "gemm").input[1] = "mw"


def other_scale(model: onnx.ModelProto) -> None:
    constant(model, "twice", np.array(0.2, np.float32))
    node(model, "conv_activation_DequantizeLinear").input[1] = "twice"


def bare(model: onnx.ModelProto) -> None:
    constant(model, "wg", graphs.normal(3, 6, 6))
    node(model, "gemm").input[0] = "m"
    node(model, "gemm").input[1] = "wg"
    for name in ("gemm_activation_DequantizeLinear", "m_int8_QuantizeLinear"):
        model.graph.node.remove(node(model, name))


SCALE, ZERO = "x_scale", "x_zero_point"
PLANTED = {
    "uint8": (value(ZERO, np.array(0, np.uint8)), Rule.NOT_INT8, "x_int8_QuantizeLinear"),
    "no zero point": (no_zero_point, Rule.NOT_INT8, "x_int8_QuantizeLinear"),
    "int16": (value(ZERO, np.array(0, np.int16)), Rule.NOT_INT8, "x_int8_QuantizeLinear"),
    "zero point": (value(ZERO, np.array(3, np.int8)), Rule.ZERO_POINT, "x_int8_QuantizeLinear"),
    "weights' zero point": (
        value("wc_axis0_zero_point", np.eye(6, dtype=np.int8)[0]),
        Rule.ZERO_POINT,
        "conv_weight_DequantizeLinear",
    ),
    "scale 0": (value(SCALE, np.array(0, np.float32)), Rule.SCALE, "x_int8_QuantizeLinear"),
    "scale below 0": (value(SCALE, np.array(-1, np.float32)), Rule.SCALE, "x_int8_QuantizeLinear"),
    "scale NaN": (value(SCALE, np.array(np.nan, np.float32)), Rule.SCALE, "x_int8_QuantizeLinear"),
    "computed scale": (computed_scale, Rule.SCALE, "x_int8_QuantizeLinear"),
    "per channel": (per_channel_activation, Rule.PER_CHANNEL, "x_int8_QuantizeLinear"),
    "axis of a convolution": (along_inputs("conv"), Rule.AXIS, "conv"),
    "axis of a product": (along_inputs("gemm"), Rule.AXIS, "gemm"),
    "number of scales": (
        value("wg_axis1_scale", np.full(5, 0.1, np.float32)), Rule.AXIS, "gemm",
    ),
    "activation only": (
        lambda m: (constant(m, "wc", graphs.normal(1, 6, 6, 3, 3)), reads("conv", 1, "wc")(m)),
        Rule.ACTIVATION_ONLY,
        "conv",
    ),
    "weights only": (reads("conv", 0, "x"), Rule.WEIGHTS_ONLY, "conv"),
    "bias": (quantized_bias, Rule.BIAS, "bias"),
    "before the rectifier": (between, Rule.BETWEEN, "q"),
    "rounded for nobody": (rounded_for_nobody, Rule.UNPAIRED, "q"),
    "integers from elsewhere": (
        integers_from_elsewhere, Rule.UNPAIRED, "conv_activation_DequantizeLinear",
    ),
    "two scales": (other_scale, Rule.PAIR, "conv_activation_DequantizeLinear"),
    "weights computed": (computed_weights, Rule.NOT_WEIGHTS, "gemm"),
    "nothing quantized": (bare, Rule.FLOAT, "gemm"),
}  # fmt: skip


def test_a_good_graph_has_no_problem():
    found = lint(good())

    assert found.problems == ()
    assert found.int8 == ("conv", "gemm")
    assert (found.weighted, found.kept_float) == (2, ())


@pytest.mark.parametrize(("plant", "rule", "where"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_found_where_it_is(plant: Change, rule: Rule, where: str):
    """A graph that TensorRT would refuse, or run in float, is found before it gets there."""
    model = good()
    plant(model)

    assert Problem(node=where, rule=rule) in lint(model).problems


@pytest.mark.parametrize(("plant", "rule", "where"), PLANTED.values(), ids=PLANTED)
def test_what_is_planted_breaks_no_other_rule(plant: Change, rule: Rule, where: str):
    """What else is said stems from it: a Q without its DQ, scales that now differ."""
    model = good()
    plant(model)
    follow = {
        Rule.UNPAIRED: {Rule.NOT_INT8},
        Rule.ACTIVATION_ONLY: set(),
        Rule.WEIGHTS_ONLY: {Rule.UNPAIRED},
    }

    said = {p.rule for p in lint(model).problems}

    assert said - {rule} <= follow.get(rule, set())


def test_each_rule_has_its_planted_graph():
    assert {rule for _, rule, _ in PLANTED.values()} == set(Rule)


def test_a_layer_left_in_float_is_no_problem():
    """The same graph is malformed where nobody asked for it, and well where somebody did."""
    model = good()
    bare(model)

    assert lint(model).problems == (Problem(node="gemm", rule=Rule.FLOAT),)
    assert lint(model).kept_float == ()
    found = lint(model, keep_float=["gemm"])
    assert found.problems == ()
    assert (found.int8, found.kept_float, found.weighted) == (("conv",), ("gemm",), 2)


def test_half_quantized_is_malformed_even_where_float_is_allowed():
    """Left in float means both inputs; one of them would only be rounded for nothing."""
    model = good()
    reads("conv", 0, "x")(model)

    assert Problem(node="conv", rule=Rule.WEIGHTS_ONLY) in lint(model, keep_float=["conv"]).problems


def test_weights_rounded_in_the_graph_are_weights_too():
    """Float weights behind Q and DQ mean the same as int8 weights behind DQ."""
    model = good()
    constant(model, "wg", graphs.normal(3, 6, 6))
    inputs = ["wg", "wg_axis1_scale", "wg_axis1_zero_point"]
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", inputs, ["wgq"], "wq", axis=1))
    node(model, "gemm_weight_DequantizeLinear").input[0] = "wgq"

    assert lint(model).problems == ()
    assert lint(model).int8 == ("conv", "gemm")
