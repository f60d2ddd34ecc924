"""Small graphs and data that the tests of the quantize stage start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penstock.quantize.running import logits
from penstock.quantize.validation import Validation
from penstock.workload import (
    Calibrator,
    DataRules,
    Engine,
    Equivalence,
    Export,
    Limits,
    Network,
    Quantize,
    Rung,
    Training,
)

FEATURES, HIDDEN = 13, 48


def model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    given: list[int | str],
    made: list[int | str],
) -> onnx.ModelProto:
    """Return a checked graph from ``x`` to ``y``."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", given), ("y", made))
    ]
    held = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    made_model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.checker.check_model(made_model, full_check=True)
    return made_model


def normal(seed: int, *shape: int, scale: float = 0.3) -> np.ndarray:
    """Return seeded normal float32 numbers."""
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


@dataclass(frozen=True)
class Tabular:
    """A network of three products whose first input column has a heavy tail."""

    network: onnx.ModelProto
    inputs_n: np.ndarray
    labels_n: np.ndarray
    tail_n: np.ndarray
    """Rows of the heaviest hundredth."""


def tabular(rows: int = 6000) -> Tabular:
    """Return a network fit to a score that rises and falls along the heavy column's logarithm."""
    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, (rows, FEATURES)).astype(np.float32)
    x[:, 0] = np.exp(1.5 * x[:, 0])
    score = 0.6 * x[:, 1] + 0.4 * x[:, 2] - 0.5 * x[:, 3] + 1.5 * np.sin(1.3 * np.log(x[:, 0]))
    labels = (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(np.int64)
    w1, b1 = normal(1, FEATURES, HIDDEN, scale=0.5), normal(2, HIDDEN)
    w1[0], w1[0, :16], w1[1:, :16] = 0.02 * w1[0], 1.0, 0.0
    b1[:16] = -np.exp(np.linspace(-2, 4.0, 16))
    w2, b2 = normal(3, HIDDEN, HIDDEN, scale=0.1), normal(4, HIDDEN)
    hidden = np.tanh(np.maximum(x @ w1 + b1, 0) @ w2 + b2)
    design = np.c_[hidden, np.ones(rows)].astype(np.float64)
    best = np.linalg.lstsq(design.T @ design + 3 * np.eye(HIDDEN + 1), design.T @ score, rcond=None)
    half = (best[0] / 2).astype(np.float32)
    constants = {
        "w1": w1, "b1": b1, "w2": w2, "b2": b2,
        "w3": np.stack([-half[:-1], half[:-1]], 1), "b3": np.array([-half[-1], half[-1]]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a1"], "first"),
        helper.make_node("Relu", ["a1"], ["r1"], "relu1"),
        helper.make_node("Gemm", ["r1", "w2", "b2"], ["a2"], "second"),
        helper.make_node("Tanh", ["a2"], ["r2"], "tanh"),
        helper.make_node("Gemm", ["r2", "w3", "b3"], ["y"], "third"),
    ]
    network = model(nodes, constants, given=["n", FEATURES], made=["n", 2])
    tail = x[:, 0] > np.quantile(x[:, 0], 0.99)
    return Tabular(network=network, inputs_n=x, labels_n=labels, tail_n=tail)


def declared(*, whole: Limits, tail: Limits, quantize: Quantize | None = None) -> Network:
    """Return a declaration of the tabular network with one slice, the tail."""
    return Network(
        name="tabular",
        title="Tabular",
        owner="tests",
        feature_service="none",
        label="label",
        data=DataRules(columns=(), unique=(), at_least_rows=1),
        classes=2,
        metric="auc",
        threshold=0.5,
        training=Training(epochs=1, batch_size=1, learning_rate=0.1),
        export=Export(),
        quantize=quantize or Quantize(calibrators=(Calibrator.PERCENTILE,), percentile=99.9),
        engine=Engine(),
        equivalence=Equivalence(int8=Rung(whole=whole, slices=tail), min_slice_support=30),
    )


def validation(of: Tabular, rules: Network, *, start: int = 0) -> Validation:
    """Return rows to judge on, the tail their only slice."""
    inputs_n = of.inputs_n[start:]
    return Validation(
        declared=rules,
        inputs_n=inputs_n,
        labels_n=of.labels_n[start:],
        slices={"tail": of.tail_n[start:].copy()},
        reference_nk=logits(of.network, inputs_n),
    )
