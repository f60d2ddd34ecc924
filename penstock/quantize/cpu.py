"""Write the int8 graph that ONNX Runtime computes in integers on a CPU.

TensorRT's form is not that one: there the outputs of layers stay float, and ONNX Runtime computes
a convolution in int8 only where its output is int8 as well. So a CPU is given its own graph, of the
same float graph and the same calibration rows. Its float layers are those of the other form, and
what it needs besides; see :mod:`penstock.quantize.served`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from penstock.quantize import graph
from penstock.quantize.ranges import round_up
from penstock.quantize.running import Tensors

BETWEEN = (
    "Add", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Flatten", "Reshape",
    "Transpose", "Squeeze", "Unsqueeze",
)  # fmt: skip
"""Operations that stay int8 between int8 layers: the runtime has them for integers too."""

FLOAT_OUTPUT = ("Gemm", "MatMul")
"""Products that the runtime computes in int8 also where their output is float."""

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The least and the largest value that an activation's uint8 stands for; 0 is between them."""

    low: float
    high: float

    def clipped(self, threshold: float | None) -> Range:
        """Return the range without what lies beyond the largest absolute value of a calibrator."""
        if threshold is None:
            return self
        return Range(low=max(self.low, -threshold), high=min(self.high, threshold))


def observe(model: onnx.ModelProto, inputs_n: NDArray[np.float32]) -> dict[str, Range]:
    """Return the range of every activation that may be int8, from one pass over training rows.

    Its ends are rounded outwards, as :func:`ranges.round_up` does and for its reason.

    Args:
        model: The simplified float graph.
        inputs_n: Network inputs of the calibration rows, shape [n, ...].

    Raises:
        ValueError: An activation is not finite.
    """
    layers = graph.layers(model)
    made = [n for node in int8_nodes(model, {la.name for la in layers}) for n in node.output]
    names = dict.fromkeys([*(layer.activation for layer in layers), *made])
    lows, highs = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for batch in Tensors(model, [*names]).batches(inputs_n):
        for name, values in batch.items():
            lows[name] = min(lows[name], float(values.min()))
            highs[name] = max(highs[name], float(values.max()))
            if not math.isfinite(lows[name] + highs[name] + float(values.sum())):
                raise ValueError(f"activation {name!r} is not finite on calibration rows.")
    return {n: Range(low=-round_up(-lows[n]), high=round_up(highs[n])) for n in names}


def int8_nodes(model: onnx.ModelProto, layers: Collection[str]) -> list[onnx.NodeProto]:
    """Return the nodes that are int8 where these layers are, in order of computing.

    The layers, and what lies between them: a node all of whose inputs int8 nodes made. Embeddings,
    normalization and what reads them are none; nor is the sum with a constant, which eight bits
    would hold too coarsely.
    """
    made: set[str] = set()
    found: list[onnx.NodeProto] = []
    constants = {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        read = [n for n in node.input if n and n not in constants]
        whole = len(read) == len(node.input) or node.op_type not in ("Add", "Concat")
        between = node.op_type in BETWEEN and whole and bool(read) and made.issuperset(read)
        if node.name in layers or between:
            found.append(node)
            made.update(node.output)
    return found


def quantize(
    model: onnx.ModelProto,
    observed: Mapping[str, Range],
    thresholds: Mapping[str, float],
    *,
    keep_float: Collection[str] = (),
) -> onnx.ModelProto:
    """Return the graph with Q/DQ in the form that ONNX Runtime fuses into integer kernels.

    Activations are uint8 with a zero point, weights int8 with one scale per output channel, biases
    int32; the outputs of layers are rounded too, except of products that nothing in int8 reads: the
    logits, for one. What an int8 node makes keeps its name, and is the rounded one under it.

    The calibrator carries over as far as it has a threshold: what a layer reads is clipped to it.
    The other activations have the least and largest value of the calibration rows.

    Weights use all eight bits (``reduce_range`` is off). With VNNI, sums of products are held in 32
    bits. Without, the fast kernel adds two products in 16 bits, which may overflow; there
    :class:`~penstock.runtimes.onnxruntime.OnnxModel` asks for the slower one that does not, which
    gives the same numbers. Another program on such a CPU must ask for it as well.

    Args:
        model: The simplified float graph.
        observed: Range of each activation, of :func:`observe`.
        thresholds: Largest absolute value of the activations that were calibrated.
        keep_float: Names of layers left alone.
    """
    chosen = {layer.name for layer in graph.layers(model)} - {*keep_float}
    nodes = int8_nodes(model, chosen)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    # The tool takes an empty list of nodes for all of them.
    if nodes:
        found = _fake_quantized(model, nodes, observed, thresholds)
        made.graph.CopyFrom(_tidied(found, {node.name: node for node in nodes}))
    onnx.checker.check_model(made)
    return made


def _fake_quantized(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    observed: Mapping[str, Range],
    thresholds: Mapping[str, float],
) -> onnx.GraphProto:
    """Return the graph as ONNX Runtime's own tool writes it, in order of computing."""
    bounds = {name: one.clipped(thresholds.get(name)) for name, one in observed.items()}
    ranges: Any = {n: (np.float32(one.low), np.float32(one.high)) for n, one in bounds.items()}
    tool: Any = QDQQuantizer(
        _unshared(model, {node.name for node in nodes}),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        # Weights of a product may have more than two axes; the last counts output channels.
        extra_options={"QDQOpTypePerChannelSupportToAxis": {"MatMul": -1}},
    )
    tool.quantize_model()
    tool.model.topological_sort()
    found: onnx.GraphProto = tool.model.model.graph
    return found


def _unshared(model: onnx.ModelProto, int8: Collection[str]) -> onnx.ModelProto:
    """Return the graph with constants of their own for its int8 nodes.

    The tool rounds a constant for all that read it: layers in float, and layers whose biases need
    other scales.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = {
        i.name: i for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT
    }
    read_by = Counter(name for node in model.graph.node for name in node.input)
    for node in made.graph.node:
        for place, name in enumerate(node.input):
            if node.name in int8 and name in constants and read_by[name] > 1:
                own = made.graph.initializer.add()
                own.CopyFrom(constants[name])
                node.input[place] = own.name = f"{name}_of_{node.name}"
    return made


def _tidied(found: onnx.GraphProto, int8: Mapping[str, onnx.NodeProto]) -> onnx.GraphProto:
    """Return the graph with the names it had, and nothing rounded for the sake of float nodes.

    The tool has all read what was rounded. Here a float node reads what another made as it is: a
    category's number or a residual stream must not be rounded because a layer reads it as well.

    Args:
        int8: The nodes that are int8, as they were, by name.
    """
    made_by = {n: node for node in found.node for n in node.output}
    back = {node.input[0]: node for node in found.node if node.op_type == DEQUANTIZE}
    dropped: set[str] = set()
    renamed: dict[str, str] = {}
    in_float: dict[str, str] = {}
    for node in found.node:
        if node.op_type != QUANTIZE:
            continue
        maker, rounded = made_by.get(node.input[0]), back[node.output[0]].output[0]
        if maker is None or maker.name not in int8:
            in_float[rounded] = node.input[0]
            continue
        name = rounded if _is_output(found, rounded) else node.input[0]
        wanted = any(rounded in n.input for n in found.node if n.name in int8)
        # Another output than its own is that of a rectifier, which the rounding stands for.
        own = name in int8[maker.name].output
        if maker.op_type in FLOAT_OUTPUT and own and not wanted:
            dropped |= {node.name, back[node.output[0]].name}
        unrounded = name if node.name in dropped else f"{name}_unrounded"
        renamed |= {rounded: name, node.input[0]: unrounded}
    tidy = onnx.GraphProto()
    tidy.CopyFrom(found)
    del tidy.node[:]
    for node in found.node:
        if node.name not in dropped:
            read = renamed if node.name in int8 else {**renamed, **in_float}
            tidy.node.append(_renamed(node, read, renamed))
    _keep(tidy.initializer, {name for node in tidy.node for name in node.input})
    _keep(tidy.value_info, {name for node in tidy.node for name in node.output})
    return tidy


def _is_output(found: onnx.GraphProto, name: str) -> bool:
    return any(output.name == name for output in found.output)


def _renamed(
    node: onnx.NodeProto, read: Mapping[str, str], made: Mapping[str, str]
) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.input[:] = [read.get(n, n) for n in node.input]
    copied.output[:] = [made.get(n, n) for n in node.output]
    return copied


def _keep(field: Any, names: Collection[str]) -> None:
    kept: Iterable[Any] = [one for one in field if one.name in names]
    del field[:]
    field.extend(kept)
