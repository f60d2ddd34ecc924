"""Put explicit Q/DQ into a graph, in the form that TensorRT takes, and check that form."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

WEIGHTED = ("Conv", "Gemm", "MatMul")
QUANTIZED = (*WEIGHTED, "Add")
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What the graph holds now."""

    weighted: int
    """Convolutions and matrix products."""

    int8: int
    """How many of them have both inputs quantized."""

    problems: tuple[str, ...]
    """Forms TensorRT would refuse or run in float."""


class _Reader(CalibrationDataReader):
    """Feeds training inputs, in order, in batches."""

    def __init__(self, name: str, inputs_n: NDArray[np.float32]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = iter(
            [{name: inputs_n[i : i + BATCH]} for i in range(0, len(inputs_n), BATCH)]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(self._batches, None)


def quantize(source: Path, target: Path, inputs_n: NDArray[np.float32]) -> Quantized:
    """Write the int8 graph of ``source`` at ``target``.

    Symmetric signed int8 with zero point 0; activations one scale per tensor, weights one per
    output channel; both inputs of every weighted operation; biases stay float. These are the forms
    that TensorRT 10 and 11 compile to int8 kernels.

    Args:
        inputs_n: Network inputs from training data, shape [n, ...], that set the ranges.
    """
    logging.getLogger().addFilter(_advice)
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-quantize-") as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            name = onnx.load(prepared).graph.input[0].name
            quantize_static(
                str(prepared),
                str(target),
                _Reader(name, inputs_n),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(QUANTIZED),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "AddQDQPairToWeight": False,
                    "DedicatedQDQPair": True,
                    "OpTypesToExcludeOutputQuantization": list(QUANTIZED),
                },
            )
    finally:
        logging.getLogger().removeFilter(_advice)
    return inspect(onnx.load(target))


def _advice(record: logging.LogRecord) -> bool:
    """Drop the library's advice to pre-process a graph that was pre-processed one line before."""
    return "pre-processing before quantization" not in record.getMessage()


def inspect(model: onnx.ModelProto) -> Quantized:
    """Return how much of a graph is int8, and what about its Q/DQ is not in TensorRT's form."""
    nodes = list(model.graph.node)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    made_by = {name: node for node in nodes for name in node.output}
    weighted = [n for n in nodes if n.op_type in WEIGHTED]
    both = [n for n in weighted if all(_dequantized(name, made_by) for name in n.input[:2])]
    problems = [p for n in nodes for p in _problems(n, constants)]
    float_nodes = [n.name for n in weighted if n not in both]
    problems += [f"{name} runs in float" for name in float_nodes]
    return Quantized(weighted=len(weighted), int8=len(both), problems=tuple(problems))


def _dequantized(name: str, made_by: dict[str, onnx.NodeProto]) -> bool:
    return name in made_by and made_by[name].op_type == "DequantizeLinear"


def _problems(node: onnx.NodeProto, constants: dict[str, NDArray[np.generic]]) -> Iterator[str]:
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return
    scale = constants.get(node.input[1])
    if scale is None or not np.all(np.asarray(scale, np.float64) > 0):
        yield f"{node.name} has a scale that is not a positive constant"
    if len(node.input) > 2:
        zero = constants.get(node.input[2])
        if zero is None or zero.dtype != np.int8 or np.any(zero):
            yield f"{node.name} is not symmetric signed int8"


def operations(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many nodes of each operation a graph has, most frequent first."""
    return dict(Counter(n.op_type for n in model.graph.node).most_common())
