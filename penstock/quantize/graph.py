"""Put explicit Q/DQ into a graph, in the form that TensorRT compiles to int8 kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul")
LARGEST = 127
"""Of the integers used: -128 would make the range lopsided."""


@dataclass(frozen=True, kw_only=True)
class Skip:
    """The branch of a residual sum that does not come from the layer fused with it."""

    node: str
    index: int
    """Which input of the sum it is."""

    tensor: str


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution or matrix product with constant weights."""

    name: str
    operation: str
    activation: str
    weight: str
    axis: int
    """Of the weights: the one that counts output channels."""

    output: str
    skip: Skip | None
    """Of the residual sum that the layer's output goes into, and nowhere else."""


def layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Return the layers that can be int8, in order of computing.

    A product of two activations is none: it has no weights to quantize per channel.
    """
    constants = {i.name: i for i in model.graph.initializer}
    skips = _skips(model)
    return tuple(
        Layer(
            name=node.name,
            operation=node.op_type,
            activation=node.input[0],
            weight=node.input[1],
            axis=channel_axis(node, len(constants[node.input[1]].dims)),
            output=node.output[0],
            skip=skips.get(node.name),
        )
        for node in model.graph.node
        if _has_weights(node, constants)
    )


def _has_weights(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type not in WEIGHTED or node.input[0] in constants:
        return False
    return is_weights(constants.get(node.input[1]))


def is_weights(constant: onnx.TensorProto | None) -> bool:
    """Return whether a constant is float32 weights with an axis for output channels."""
    if constant is None or constant.data_type != onnx.TensorProto.FLOAT:
        return False
    return len(constant.dims) > 1


def channel_axis(node: onnx.NodeProto, rank: int) -> int:
    """Return the axis of a node's weights, of so many axes, that counts output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return rank - 1


def _skips(model: onnx.ModelProto) -> dict[str, Skip]:
    """Return the skip branch of each residual sum, by the name of the layer it is fused with.

    TensorRT fuses the sum into the layer computed last, whose own output then never exists as
    int8; the other branch is read from memory, and as int8 that is a quarter of the bytes.
    Quantizing both branches would round the layer's output for nothing.
    """
    constants = {i.name for i in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    read_by: dict[str, int] = defaultdict(int)
    for name in [i for node in model.graph.node for i in node.input]:
        read_by[name] += 1
    order = {node.name: i for i, node in enumerate(model.graph.node)}
    outputs = {o.name for o in model.graph.output}
    found: dict[str, Skip] = {}
    for node in model.graph.node:
        if node.op_type != "Add" or constants & set(node.input) or node.input[0] == node.input[1]:
            continue
        fusable = [
            (order[made_by[name].name], made_by[name].name, 1 - i)
            for i, name in enumerate(node.input)
            if name in made_by
            and made_by[name].op_type in WEIGHTED
            and read_by[name] == 1
            and name not in outputs
        ]
        if fusable:
            _, layer, index = max(fusable)
            found[layer] = Skip(node=node.name, index=index, tensor=node.input[index])
    return found


def tensors(found: Collection[Layer]) -> tuple[str, ...]:
    """Return the activations that need a range, each once, in order of use."""
    names = [n for la in found for n in (la.activation, *((la.skip.tensor,) if la.skip else ()))]
    return tuple(dict.fromkeys(names))


def quantize(
    model: onnx.ModelProto,
    thresholds: Mapping[str, float],
    *,
    keep_float: Collection[str] = (),
) -> onnx.ModelProto:
    """Return the graph with Q/DQ around its layers.

    Symmetric signed int8 with zero point 0; activations one scale per tensor, weights stored as
    int8 with one scale per output channel; both inputs of every layer; biases and the outputs of
    layers stay float, so that what follows can be fused. Of a residual sum the skip branch is
    quantized where the layer it is fused with is. Everything else (embeddings, normalization,
    products of two activations) is left as it is, and so is the batch size.

    Products of few columns are quantized too: TensorRT-RTX compiles them to int8, and where they
    cost precision the fallback finds it.

    Args:
        thresholds: Largest absolute value that each activation's int8 stands for.
        keep_float: Names of layers left alone.
    """
    chosen = [layer for layer in layers(model) if layer.name not in keep_float]
    writer = _Writer(model, thresholds)
    by_node: dict[str, list[Layer]] = defaultdict(list)
    for layer in chosen:
        by_node[layer.name].append(layer)
        if layer.skip:
            by_node[layer.skip.node].append(layer)
    for node in model.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        for layer in by_node[node.name]:
            if node.name == layer.name:
                copied.input[0] = writer.activation(layer.activation, f"{layer.name}_activation")
                copied.input[1] = writer.weights(layer)
            elif layer.skip:
                name = writer.activation(layer.skip.tensor, f"{node.name}_skip")
                copied.input[layer.skip.index] = name
        writer.nodes.append(copied)
    return writer.finished()


class _Writer:
    """Collects the nodes and constants of the int8 graph."""

    def __init__(self, model: onnx.ModelProto, thresholds: Mapping[str, float]) -> None:
        self._model = model
        self._thresholds = thresholds
        self._floats = {i.name: i for i in model.graph.initializer}
        self._made: dict[str, onnx.TensorProto] = {}
        self._quantized: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []

    def activation(self, tensor: str, name: str) -> str:
        """Add what rounds a tensor, once, and what reads it back, for each reader."""
        constants = f"{tensor}_scale", f"{tensor}_zero_point"
        if tensor not in self._quantized:
            scale = scales(np.asarray(self._thresholds[tensor], np.float64))
            self._constants(constants, scale)
            self._add("QuantizeLinear", [tensor, *constants], f"{tensor}_int8")
            self._quantized.add(tensor)
        self._add("DequantizeLinear", [f"{tensor}_int8", *constants], name)
        return name

    def weights(self, layer: Layer) -> str:
        """Add a layer's weights as int8 and what reads them back."""
        stem = f"{layer.weight}_axis{layer.axis}"
        constants = f"{stem}_scale", f"{stem}_zero_point"
        if f"{stem}_quantized" not in self._made:
            values = numpy_helper.to_array(self._floats[layer.weight]).astype(np.float32)
            rounded, scale_c = round_weights(values, axis=layer.axis)
            self._keep(f"{stem}_quantized", rounded)
            self._constants(constants, scale_c)
        name = f"{layer.name}_weight"
        self._add("DequantizeLinear", [f"{stem}_quantized", *constants], name, axis=layer.axis)
        return name

    def _constants(self, names: tuple[str, str], scale: NDArray[np.float32]) -> None:
        self._keep(names[0], scale)
        self._keep(names[1], np.zeros(scale.shape, np.int8))

    def _keep(self, name: str, values: NDArray[np.generic]) -> None:
        self._made[name] = numpy_helper.from_array(values, name)

    def _add(self, operation: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        name = f"{output}_{operation}"
        self.nodes.append(helper.make_node(operation, inputs, [output], name=name, axis=axis))

    def finished(self) -> onnx.ModelProto:
        """Return the graph; weights that nothing reads as float any more are dropped."""
        made = onnx.ModelProto()
        made.CopyFrom(self._model)
        del made.graph.node[:]
        made.graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input}
        kept = [i for i in self._model.graph.initializer if i.name in read]
        del made.graph.initializer[:]
        made.graph.initializer.extend([*kept, *self._made.values()])
        return made


def scales(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the step between integers for the largest absolute values they stand for.

    What is 0 everywhere gets 1: any step holds it, and a scale must be positive.
    """
    least = float(np.finfo(np.float32).tiny)
    return np.where(thresholds < least * LARGEST, 1.0, thresholds / LARGEST).astype(np.float32)


def round_weights(
    values: NDArray[np.float32], *, axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights as int8, and the scale of each output channel, shape [channels]."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale_c = scales(np.abs(values.astype(np.float64)).max(axis=others))
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    steps = np.rint(values / scale_c.reshape(shape))
    return np.clip(steps, -LARGEST, LARGEST).astype(np.int8), scale_c
