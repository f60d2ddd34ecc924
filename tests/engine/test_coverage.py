"""Laws of int8 coverage: a layer is int8 only if the compiler's own table says so, by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.coverage import NoLayerTable, Row, cover, rows_of_inspector, rows_of_log
from tests.engine.graphs import LAYERS, residual

datatypes = st.sampled_from(["Int8", "Float", "Half"])


def row(node: str, inputs: tuple[str, ...], constants: tuple[str, ...], kind: str = "gemm") -> Row:
    return Row(kind=kind, inputs=inputs, constants=constants, nodes=frozenset({node}))


def line(node: str, first: str, weights: str, kind: str = "correlation") -> str:
    """Return a layer as TensorRT-RTX writes it."""
    tensor = (
        "{ Name: t, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], Datatype: %s, Format: (x) y }"
    )
    return (
        f"Name: {node}_myl0_2, LayerType: {kind}, Inputs: [ {tensor % first}], Constants: "
        f"[ {tensor % weights}, {tensor % 'Float'}], Outputs: [ {tensor % 'Float'}], "
        f"TacticName: stub, StreamId: 0, Metadata: [ONNX Layer: {node}][ONNX Layer: {node}_dq]"
    )


@given(st.lists(st.tuples(datatypes, datatypes), min_size=3, max_size=3))
def test_a_layer_is_int8_if_and_only_if_both_operands_are(operands: list[tuple[str, str]]):
    """Each layer of the log is judged by its own operands, whatever the others are."""
    lines = [line(n, *o) for n, o in zip(LAYERS, operands, strict=True)]
    found = cover(residual(), rows_of_log(["noise", "Layers:\n" + "\n".join(lines)]))

    right = tuple(n for n, o in zip(LAYERS, operands, strict=True) if o == ("Int8", "Int8"))
    assert found.int8 == right
    assert set(found.not_int8) == set(LAYERS) - set(right)
    assert (found.problem is None) == (len(right) == 3)


@pytest.mark.parametrize(
    ("inputs", "constants", "int8"),
    [
        (("Int8",), ("Int8", "Float"), True),
        (("Int8",), ("Float", "Int8"), False),
        (("Float",), ("Int8",), False),
        (("Int8", "Int8"), (), True),
        (("Int8", "Float"), (), False),
        (("Int8",), (), False),
        ((), (), False),
    ],
)
def test_int8_weights_that_are_scaled_before_the_product_are_no_int8_product(
    inputs: tuple[str, ...], constants: tuple[str, ...], int8: bool
):
    """The first constant is what is multiplied; without constants it is the second input."""
    assert row("x", inputs, constants).int8 is int8


def test_a_kernel_around_a_product_does_not_vouch_for_it():
    """Generated elementwise kernels name the product's node and are no product."""
    rows = [row(n, ("Int8",), ("Int8",), kind="kgen") for n in LAYERS]

    assert cover(residual(), rows).int8 == ()


def test_a_layer_that_no_row_names_is_not_int8():
    """What the table does not mention is reported, not assumed."""
    found = cover(residual(), [row(LAYERS[0], ("Int8",), ("Int8",))])

    assert found.not_int8 == dict.fromkeys(LAYERS[1:], "no layer names it")


@pytest.mark.parametrize("said", [[], ["Layers:"], ["layers were fused"], ["Layers:\nNAME of all"]])
def test_no_table_of_layers_is_an_error(said: list[str]):
    """A library that writes its log otherwise is noticed, never taken for full coverage."""
    with pytest.raises(NoLayerTable, match="no table of layers"):
        cover(residual(), rows_of_log(said))


def test_layers_left_in_float_on_purpose_are_no_problem():
    """A float graph asks for nothing to be int8."""
    found = cover(residual(quantized=False), [row("other", ("Float",), ("Float",))])

    assert (found.kept_float, found.problem) == (LAYERS, None)


INT8_FORMAT = {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
FLOAT_FORMAT = {"Format/Datatype": "Row major linear FP32"}
INT8_FIELD = {"Format": "Channel major", "Datatype": "Int8"}


@pytest.mark.parametrize(
    ("layer", "int8"),
    [
        ({"Inputs": [INT8_FORMAT], "Weights": {"Type": "Int8", "Count": 9}}, True),
        ({"Inputs": [INT8_FORMAT], "Weights": {"Type": "Float", "Count": 9}}, False),
        ({"Inputs": [FLOAT_FORMAT], "Weights": {"Type": "Int8", "Count": 9}}, False),
        ({"Inputs": [INT8_FIELD], "Constants": [INT8_FIELD]}, True),
        ({"Inputs": [INT8_FIELD], "Constants": [{"Datatype": "Float"}, INT8_FIELD]}, False),
        ({"Inputs": [{}]}, False),
    ],
)
def test_an_inspector_is_read_in_the_forms_of_each_version(layer: dict[str, object], int8: bool):
    """A datatype is a field or part of a description; weights are named, or the first constant."""
    metadata = {"LayerType": "CaskConvolution", "Metadata": "[ONNX Layer: n_first]"}
    text = json.dumps({"Layers": [{**layer, **metadata}]})

    assert [(r.nodes, r.int8) for r in rows_of_inspector(text)] == [({"n_first"}, int8)]


def test_an_inspector_that_lists_names_alone_tells_nothing():
    assert rows_of_inspector('{"Layers": ["conv1 + relu"]}') == []
