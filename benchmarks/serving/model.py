"""The models that are served, as packages, and the requests that ask them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.serving.rivals.network import Network
from penstock.bundle import Recipe, Summary, write, write_json
from penstock.endpoint import Endpoint
from penstock.online import Layout
from penstock.request import Contract, Feature

NAME = "m"
FEATURES, CLASSES = 32, 2
WIDTHS = (FEATURES, 256, 256, 104, CLASSES)
"""101,178 parameters: about 12 microseconds of a raw call."""

SIDE, VISION_CLASSES = 32, 10
BODIES = 64
"""Different requests, sent in turns."""

ROWS = 64
"""Most rows of a request."""

TABULAR_TRANSFORM = f'''"""Rows of a request as they are."""


def training_input(rows):
    """Return the network's input, shape [n, {FEATURES}]."""
    return rows["features"].combine_chunks().flatten().to_numpy().reshape(-1, {FEATURES})
'''

VISION_TRANSFORM = f'''"""Pixels of a request as an image."""


def training_input(rows):
    """Return the network's input, shape [n, 3, {SIDE}, {SIDE}]."""
    pixels = rows["features"].combine_chunks().flatten().to_numpy()
    return pixels.reshape(-1, 3, {SIDE}, {SIDE})
'''


@dataclass(frozen=True, kw_only=True)
class Made:
    """A package with what asks it."""

    package: Path
    graph: Path
    rows_nd: NDArray[np.float32]
    """Rows that requests send, shape [BODIES, features]."""

    input_shape: tuple[int, ...]
    """Of one row, as the network takes it."""

    def first(self) -> NDArray[np.float32]:
        """Return what the network gives for the first row: probabilities [classes]."""
        _, probability_nk = Network(str(self.graph))(self.rows_nd[:1].reshape(1, *self.input_shape))
        return probability_nk[0]


def perceptron(path: Path, *, seed: int = 7) -> None:
    """Write a perceptron of seeded weights: rows [n, 32] to logits [n, 2]."""
    rng = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    given = "rows"
    for i, (wide, narrow) in enumerate(pairwise(WIDTHS)):
        weights = rng.normal(0, np.sqrt(2 / wide), (wide, narrow)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{i}"))
        constants.append(numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{i}"))
        last = i == len(WIDTHS) - 2
        made = "logits" if last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [given, f"w{i}", f"b{i}"], [made]))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"r{i}"]))
            given = f"r{i}"
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", FEATURES])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])
    graph = helper.make_graph(nodes, "perceptron", [rows], [logits], constants)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def resnet(path: Path) -> None:
    """Write an untrained ResNet-18 for images of 32 pixels: [n, 3, 32, 32] to logits [n, 10]."""
    import warnings

    import torch
    from torchvision.models import resnet18

    torch.manual_seed(7)
    network = resnet18(weights=None, num_classes=VISION_CLASSES).eval()
    with warnings.catch_warnings():
        # The exporter's own.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, 3, SIDE, SIDE),), str(path), dynamo=False,
            input_names=["rows"], output_names=["logits"],
            dynamic_axes={"rows": {0: "n"}, "logits": {0: "n"}}, opset_version=20,
        )  # fmt: skip


def tabular(folder: Path, *, endpoint: Endpoint | None = None) -> Made:
    """Write the package of the perceptron, served as an endpoint declares."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / "model.onnx"
    perceptron(graph)
    rows_nd = np.random.default_rng(1).normal(0, 1, (BODIES, FEATURES))
    return _made(folder, graph, rows_nd, (FEATURES,), CLASSES, TABULAR_TRANSFORM, endpoint=endpoint)


def scalars(folder: Path, *, names: Sequence[str], transform: str, layout: Layout) -> Made:
    """Write the package of the perceptron, asked by single numbers that can be looked up."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / "model.onnx"
    perceptron(graph)
    rows_nd = np.random.default_rng(1).normal(0, 1, (BODIES, FEATURES))
    return _made(
        folder, graph, rows_nd, (FEATURES,), CLASSES, transform, names=names, layout=layout
    )


def vision(folder: Path) -> Made:
    """Write the package of a ResNet-18."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / "model.onnx"
    resnet(graph)
    shape = (3, SIDE, SIDE)
    rows_nd = np.random.default_rng(1).normal(0, 1, (BODIES // 4, int(np.prod(shape))))
    return _made(folder, graph, rows_nd, shape, VISION_CLASSES, VISION_TRANSFORM)


def _made(
    folder: Path, graph: Path, rows_nd: NDArray[np.float64], shape: tuple[int, ...], classes: int,
    transform: str, *, endpoint: Endpoint | None = None, names: Sequence[str] = (),
    layout: Layout | None = None,
) -> Made:  # fmt: skip
    """Write a package: one list feature, or a single number of each name."""
    # As many digits as a client's own numbers have.
    sent_nd = rows_nd.round(4).astype(np.float32)
    contract = Contract(
        workload="digits", classes=classes, threshold=None, rows=ROWS,
        features=_features(names, sent_nd.shape[1]), endpoint=endpoint or Endpoint(),
    )  # fmt: skip
    documents: dict[str, Any] = {
        "serving.json": contract.to_dict(),
        "golden.json": _golden(graph, sent_nd[:3], shape, names),
    }
    if layout is not None:
        documents["online.json"] = layout.to_dict()

    def make(into: Path) -> Summary:
        (into / "model.onnx").write_bytes(graph.read_bytes())
        (into / "transform.py").write_text(transform)
        for name, document in documents.items():
            write_json(into / name, document)
        return Summary("pass", "made for a benchmark")

    recipe = Recipe(kind="package", workload="digits")
    package = folder / "package"
    write(package, recipe, make=make, now=datetime.now(UTC))
    return Made(package=package, graph=graph, rows_nd=sent_nd, input_shape=shape)


def _features(names: Sequence[str], length: int) -> tuple[Feature, ...]:
    if names:
        return tuple(Feature(name=name, dtype="double") for name in names)
    return (Feature(name="features", dtype="list<element: float>", length=length),)


def _golden(
    graph: Path, rows_nd: NDArray[np.float32], shape: tuple[int, ...], names: Sequence[str]
) -> dict[str, Any]:
    logits_nk = Network(str(graph)).logits(rows_nd.reshape(-1, *shape))
    held = rows_nd.tolist()
    instances = [dict(zip(names, row, strict=True)) if names else {"features": row} for row in held]
    requests = [
        {"instance": instance, "logits": logits.tolist()}
        for instance, logits in zip(instances, logits_nk, strict=True)
    ]
    return {"tolerance": 1e-3, "requests": requests}


def message(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole HTTP request."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    given = {"content-type": "application/json", **(headers or {})}
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _numbers(row: NDArray[np.float32]) -> list[float]:
    return [round(float(v), 4) for v in row]


def v1(row: NDArray[np.float32]) -> bytes:
    """Return a v1 request of one row."""
    body = json.dumps({"instances": [_numbers(row)]}).encode()
    return message(f"/v1/models/{NAME}:predict", body)


def v2_json(row: NDArray[np.float32]) -> bytes:
    """Return a v2 request of one row."""
    tensor = {"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": _numbers(row)}
    return message(f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor]}).encode())


def v2_binary(row: NDArray[np.float32]) -> bytes:
    """Return a v2 request of one row, its numbers as bytes both ways."""
    data = row.astype("<f4").tobytes()
    size: dict[str, Any] = {"binary_data_size": len(data)}
    tensor = {"name": "features", "shape": [1, len(row)], "datatype": "FP32", "parameters": size}
    as_bytes = {"binary_data": True}
    outputs = [{"name": name, "parameters": as_bytes} for name in ("label", "probability")]
    header = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    told = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(header)),
    }
    return message(f"/v2/models/{NAME}/infer", header + data, told)


def inputs(path: str, row: NDArray[np.float32]) -> bytes:
    """Return a request of one row to a server with a protocol of its own."""
    return message(path, json.dumps({"inputs": [_numbers(row)]}).encode())
