"""Find Q/DQ that a parser takes without a word and then runs in float, or means otherwise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from penstock.quantize.graph import WEIGHTED, channel_axis, is_weights

Q, DQ = "QuantizeLinear", "DequantizeLinear"

FUSED = ("BatchNormalization", "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh")
"""What a compiler fuses into the layer before it, unless Q/DQ stands between."""


class Rule(StrEnum):
    """What is wrong; each was tried with NVIDIA's parser and compiler."""

    NOT_INT8 = "not signed int8"  # uint8 is read as int8 with a warning: other numbers
    ZERO_POINT = "zero point is not 0"  # refused
    SCALE = "scale is not a positive constant"
    PER_CHANNEL = "activation has more than one scale"  # runs in float
    AXIS = "weights are scaled along another axis than output channels"  # runs in float
    ACTIVATION_ONLY = "activation is quantized, weights are not"  # runs in float
    WEIGHTS_ONLY = "weights are quantized, activation is not"  # runs in float
    BIAS = "bias is quantized"  # refused
    BETWEEN = "Q/DQ stands between a layer and what is fused into it"  # two kernels instead of one
    UNPAIRED = "Q without DQ, or DQ without Q"
    PAIR = "Q and DQ of one tensor have different scales"  # other numbers
    NOT_WEIGHTS = "neither input is constant weights"
    FLOAT = "runs in float and was not left so"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One node that is not in the form that becomes int8."""

    node: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.node}: {self.rule}"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How much of a graph is int8."""

    int8: tuple[str, ...]
    """Layers with both inputs quantized and no problem of their own."""

    kept_float: tuple[str, ...]
    """Layers in float that were left so."""

    weighted: int
    """Convolutions and matrix products with constant weights."""

    problems: tuple[Problem, ...]


def lint(model: onnx.ModelProto, *, keep_float: Collection[str] = ()) -> Placement:
    """Return what is int8, what was left in float, and what is wrong.

    Args:
        keep_float: Names of layers deliberately without Q/DQ.
    """
    graph = _Graph(model)
    problems = [p for node in model.graph.node for p in _problems(node, graph, keep_float)]
    wrong = {p.node for p in problems}
    layers = [n for n in model.graph.node if graph.weights(n) is not None]
    bare = {n.name for n in layers if not graph.quantized_inputs(n)}
    return Placement(
        int8=tuple(n.name for n in layers if n.name not in bare | wrong),
        kept_float=tuple(n.name for n in layers if n.name in bare - wrong),
        weighted=len(layers),
        problems=tuple(problems),
    )


class _Graph:
    """A graph's constants, and who makes and reads each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        nodes = model.graph.node
        self._constants = {i.name: i for i in model.graph.initializer}
        for node in nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self.made_by = {name: node for node in nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in nodes:
            for name in node.input:
                self.readers[name].append(node)
        self.outputs = {o.name for o in model.graph.output}

    def constant(self, name: str) -> TensorProto | None:
        return self._constants.get(name)

    def array(self, name: str) -> NDArray[np.generic] | None:
        held = self._constants.get(name)
        return None if held is None else numpy_helper.to_array(held)

    def maker(self, name: str, operation: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor, if it is of that operation."""
        node = self.made_by.get(name)
        return node if node is not None and node.op_type == operation else None

    def origin(self, name: str) -> str:
        """Return the tensor that Q/DQ, or DQ alone, stands for."""
        for operation in (DQ, Q):
            node = self.maker(name, operation)
            name = node.input[0] if node is not None else name
        return name

    def quantized_inputs(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """Return which of a layer's two inputs come through DequantizeLinear."""
        return tuple(i for i in (0, 1) if self.maker(node.input[i], DQ) is not None)

    def weights(self, node: onnx.NodeProto) -> TensorProto | None:
        """Return the constant weights of a convolution or product, quantized or not."""
        if node.op_type not in WEIGHTED or self.constant(self.origin(node.input[0])) is not None:
            return None
        held = self.constant(self.origin(node.input[1]))
        return held if is_weights(held) or 1 in self.quantized_inputs(node) else None


def _problems(
    node: onnx.NodeProto, graph: _Graph, keep_float: Collection[str]
) -> Iterator[Problem]:
    rules: Iterator[Rule] = iter(())
    if node.op_type in (Q, DQ):
        rules = _of_rounding(node, graph)
    elif node.op_type in WEIGHTED:
        rules = _of_layer(node, graph, kept_float=node.name in keep_float)
    return (Problem(node=node.name, rule=rule) for rule in rules)


def _of_rounding(node: onnx.NodeProto, graph: _Graph) -> Iterator[Rule]:
    if node.op_type == DQ and any(_is_bias(node, reader) for reader in _through(node, graph)):
        yield Rule.BIAS
        return
    scale = graph.array(node.input[1])
    if scale is None or not (np.isfinite(scale) & np.greater(scale, 0)).all():
        yield Rule.SCALE
    elif scale.size > 1 and graph.constant(graph.origin(_rounded(node))) is None:
        yield Rule.PER_CHANNEL
    zero_point = graph.array(node.input[2]) if len(node.input) > 2 else None
    if _kind(node, graph) != TensorProto.INT8:
        yield Rule.NOT_INT8
    elif len(node.input) > 2 and (zero_point is None or zero_point.any()):
        yield Rule.ZERO_POINT
    if node.op_type == Q:
        yield from _of_readers(node, graph)
    else:
        yield from _of_source(node, scale, graph)


def _rounded(node: onnx.NodeProto) -> str:
    """Return the name under which :meth:`_Graph.origin` finds what a node rounds or reads back."""
    return node.input[0] if node.op_type == Q else node.output[0]


def _kind(node: onnx.NodeProto, graph: _Graph) -> int:
    """Return the integer type on the int8 side of a node; unsigned is what the format defaults to.

    What another node rounded is of that node's type.
    """
    if len(node.input) > 2 and (zero_point := graph.constant(node.input[2])) is not None:
        return zero_point.data_type
    if node.op_type == DQ:
        held = graph.constant(node.input[0])
        maker = graph.maker(node.input[0], Q)
        if held is not None:
            return held.data_type
        return _kind(maker, graph) if maker is not None else TensorProto.INT8
    asked = [a.i for a in node.attribute if a.name == "output_dtype"]
    return asked[0] if asked else TensorProto.UINT8


def _of_readers(node: onnx.NodeProto, graph: _Graph) -> Iterator[Rule]:
    """Yield what is wrong with where a QuantizeLinear stands."""
    readers = graph.readers[node.output[0]]
    if not readers or node.output[0] in graph.outputs or any(r.op_type != DQ for r in readers):
        yield Rule.UNPAIRED
    maker = graph.made_by.get(node.input[0])
    if maker is not None and maker.op_type in WEIGHTED:
        after = [r for reader in readers for r in _through(reader, graph)]
        if any(r.op_type in FUSED for r in after):
            yield Rule.BETWEEN


def _of_source(
    node: onnx.NodeProto, scale: NDArray[np.generic] | None, graph: _Graph
) -> Iterator[Rule]:
    """Yield what is wrong with what a DequantizeLinear reads."""
    if graph.constant(node.input[0]) is not None:
        return
    maker = graph.maker(node.input[0], Q)
    if maker is None:
        yield Rule.UNPAIRED
        return
    rounding = graph.array(maker.input[1])
    if scale is None or rounding is None:
        return
    if not np.array_equal(scale, rounding, equal_nan=True):
        yield Rule.PAIR


def _through(node: onnx.NodeProto, graph: _Graph) -> list[onnx.NodeProto]:
    return graph.readers[node.output[0]]


def _is_bias(node: onnx.NodeProto, reader: onnx.NodeProto) -> bool:
    return (
        reader.op_type in ("Conv", "Gemm")
        and len(reader.input) > 2
        and reader.input[2] == node.output[0]
    )


def _of_layer(node: onnx.NodeProto, graph: _Graph, *, kept_float: bool) -> Iterator[Rule]:
    quantized = graph.quantized_inputs(node)
    weights = graph.weights(node)
    if quantized == (0, 1) and weights is None:
        if graph.constant(graph.origin(node.input[0])) is None:
            yield Rule.NOT_WEIGHTS
    elif quantized == (0, 1):
        if weights is not None and not _along_channels(node, weights, graph):
            yield Rule.AXIS
    elif quantized == (0,):
        yield Rule.ACTIVATION_ONLY
    elif quantized == (1,):
        yield Rule.WEIGHTS_ONLY
    elif weights is not None and not kept_float:
        yield Rule.FLOAT


def _along_channels(node: onnx.NodeProto, weights: TensorProto, graph: _Graph) -> bool:
    """Return whether a layer's weights have one scale, or one for each output channel."""
    reader = graph.made_by[node.input[1]]
    scale = graph.array(reader.input[1])
    if scale is None or scale.size == 1:
        return True
    said = {a.name: a.i for a in reader.attribute}
    rank = len(weights.dims)
    axis = said.get("axis", 1) % rank
    # In blocks along an axis, the scales have as many axes as the weights.
    return axis == channel_axis(node, rank) and scale.shape == (weights.dims[axis],)
