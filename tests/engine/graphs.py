"""Small Q/DQ graphs with golden examples, and int8 bundles of them, made without training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penstock.bundle import Bundle, write_json
from penstock.runtimes.onnxruntime import OnnxModel
from tests import bundles

CLASSES = 10
ROWS = 70
"""Golden rows: more than the largest batch, and no multiple of it."""


class Maker:
    """Collects nodes and constants."""

    def __init__(self, seed: int = 11, *, quantized: bool = True) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)
        self.quantized = quantized

    def keep(self, name: str, values: object) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, operation: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(
            helper.make_node(operation, inputs, [output], f"n_{output}", **attributes)
        )
        return output

    def rounded(self, tensor: str, *, kind: type = np.int8) -> str:
        """Q/DQ on an activation, one scale for all of it."""
        if not self.quantized:
            return tensor
        scale = self.keep(f"{tensor}_s", np.array(0.05, np.float32))
        zero = self.keep(f"{tensor}_z", np.array(0, kind))
        self.node("QuantizeLinear", [tensor, scale, zero], f"{tensor}_q")
        return self.node("DequantizeLinear", [f"{tensor}_q", scale, zero], f"{tensor}_dq")

    def weights(self, name: str, shape: tuple[int, ...], *, axis: int) -> str:
        """Weights as int8 with a scale along an axis, and what reads them back."""
        values = self.random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        if not self.quantized:
            return self.keep(name, values)
        others = tuple(i for i in range(len(shape)) if i != axis)
        scale = (np.abs(values).max(others) / 127).astype(np.float32)
        wide = scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        held = self.keep(f"{name}_q", np.rint(values / wide).astype(np.int8))
        zero = self.keep(f"{name}_z", np.zeros(scale.shape, np.int8))
        inputs = [held, self.keep(f"{name}_s", scale), zero]
        return self.node("DequantizeLinear", inputs, name, axis=axis)

    def finished(self, output: str) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])
        made = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", CLASSES])
        graph = helper.make_graph(self.nodes, "small", [image], [made], self.constants)
        opset = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.checker.check_model(model)
        return model


LAYERS = ("n_first", "n_second", "n_logits")
"""Names of the weighted layers of :func:`residual`."""


def residual(*, quantized: bool = True, channel_axis: int = 0, act_only: bool = False):
    """Two convolutions around a residual sum, and a product: the form TensorRT compiles to int8.

    ``channel_axis`` is that of the second convolution's weights, 0 being right; ``act_only`` leaves
    those weights in float.
    """
    m = Maker(quantized=quantized)
    m.node(
        "Conv", [m.rounded("image"), m.weights("w1", (32, 1, 3, 3), axis=0)], "first", pads=[1] * 4
    )
    m.node("Relu", ["first"], "relu1")
    m.quantized = quantized and not act_only
    weights = m.weights("w2", (32, 32, 3, 3), axis=channel_axis)
    m.quantized = quantized
    m.node("Conv", [m.rounded("relu1"), weights], "second", pads=[1] * 4)
    m.node("Add", ["second", "relu1"], "sum")
    m.node("Relu", ["sum"], "relu2")
    m.node("GlobalAveragePool", ["relu2"], "mean")
    m.node("Flatten", ["mean"], "flat")
    m.node("Gemm", [m.rounded("flat"), m.weights("w3", (CLASSES, 32), axis=0)], "logits", transB=1)
    return m.finished("logits")


def unsigned():
    """An activation rounded to uint8: parsers take it and compute int8 instead."""
    m = Maker()
    m.node("Flatten", ["image"], "flat")
    weights = m.weights("w", (CLASSES, 64), axis=0)
    m.node("Gemm", [m.rounded("flat", kind=np.uint8), weights], "logits", transB=1)
    return m.finished("logits")


def unparsable():
    """An int32 bias read back by DequantizeLinear, as ONNX Runtime writes it."""
    m = Maker()
    bias = [m.keep("b_q", np.zeros(CLASSES, np.int32)), m.keep("b_s", np.ones(CLASSES, np.float32))]
    m.node("Flatten", ["image"], "flat")
    weights = m.weights("w", (CLASSES, 64), axis=0)
    m.node("DequantizeLinear", bias, "b", axis=0)
    m.node("Gemm", [m.rounded("flat"), weights, "b"], "logits", transB=1)
    return m.finished("logits")


def digits(path: Path) -> tuple[onnx.ModelProto, list[str]]:
    """Return the untrained network of digits as int8, and the names of its layers.

    Args:
        path: Where the float graph is written on the way.
    """
    import torch  # noqa: PLC0415 - seconds to import

    from penstock.quantize import graph  # noqa: PLC0415
    from workloads.digits.model import build  # noqa: PLC0415

    torch.manual_seed(7)
    example = (torch.zeros(2, 1, 8, 8),)
    batch = {0: torch.export.Dim("n", min=1, max=4096)}
    with warnings.catch_warnings():
        # The exporter's own, of libraries that it uses.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            build(classes=CLASSES).eval(),
            example,
            path,
            dynamo=True,
            dynamic_shapes=(batch,),
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    layers = graph.layers(model)
    ranges = dict.fromkeys(graph.tensors(layers), 8.0)
    return graph.quantize(model, ranges), [layer.name for layer in layers]


def int8_bundle(path: Path, model: onnx.ModelProto) -> Bundle:
    """Write an int8 bundle of the digits workload that holds this graph."""
    return bundles.bundle(path, "int8", filler(model))


def filler(model: onnx.ModelProto) -> Callable[[Path], None]:
    """Return what fills a folder with the files that the engine stage reads."""
    from penstock.quantize import cpu  # noqa: PLC0415

    def fill(folder: Path) -> None:
        onnx.save(model, folder / "model.int8.onnx")
        simplified, inputs = residual(quantized=False), bundles.images(ROWS)
        onnx.save(simplified, folder / "model.simplified.onnx")
        on_cpu = cpu.quantize(simplified, cpu.observe(simplified, inputs), {})
        onnx.save(on_cpu, folder / "model.int8-cpu.onnx")
        np.savez(
            folder / "golden.npz",
            inputs=inputs,
            labels=np.arange(ROWS) % CLASSES,
            reference=OnnxModel(folder / "model.simplified.onnx", reference=True).run(inputs),
            int8=OnnxModel(folder / "model.int8.onnx", reference=True).run(inputs),
            slice_names=np.array([], np.str_),
            slices=np.zeros((0, ROWS), bool),
        )
        write_json(folder / "quantize.json", {})

    return fill
