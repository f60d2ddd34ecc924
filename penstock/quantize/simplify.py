"""Fold constants, drop dead nodes and fuse BatchNorm into Conv: the graph that is quantized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort


class CannotSimplify(ValueError):
    """The runtime does not take the graph."""


def simplify(source: Path, target: Path) -> onnx.ModelProto:
    """Write the simplified graph at ``target`` and return it.

    It keeps the metadata and the format version of the source, and every node of it has a name, by
    which reports speak of layers.

    The steps after the dead nodes are those of ONNX Runtime's ``quant_pre_process``. That function
    keeps dead nodes, which block fusions, and where the runtime fails it logs so and goes on with
    the graph as it was.

    Raises:
        CannotSimplify: The runtime does not take the graph.
    """
    before = onnx.load(source)
    _optimize(_alive(before), target)
    model = onnx.shape_inference.infer_shapes(onnx.load(target))
    model.ir_version = before.ir_version
    _replace(model.metadata_props, before.metadata_props)
    # The runtime lists every domain it knows; a parser would look for each.
    used = {"", *(node.domain for node in model.graph.node)}
    _replace(model.opset_import, [o for o in model.opset_import if o.domain in used])
    taken = {node.name for node in model.graph.node}
    for node in model.graph.node:
        if not node.name:
            node.name = _free(f"{node.op_type}_{node.output[0]}", taken)
            taken.add(node.name)
    onnx.checker.check_model(model)
    save(model, target)
    return model


def _alive(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without what no output depends on."""
    wanted = {output.name for output in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(_reads(node))
    alive = onnx.ModelProto()
    alive.CopyFrom(model)
    _replace(alive.graph.node, reversed(kept))
    _replace(alive.graph.initializer, [i for i in alive.graph.initializer if i.name in wanted])
    return alive


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors a node reads, with those that graphs inside it may take from around it."""
    yield from node.input
    for inner in [n for a in node.attribute if a.HasField("g") for n in a.g.node]:
        yield from _reads(inner)


def _optimize(model: onnx.ModelProto, target: Path) -> None:
    """Write the graph after the rewrites that hold on any machine, and no others."""
    options: Any = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions share no base
        raise CannotSimplify(f"the graph cannot be simplified: {e}") from e


def _replace(field: Any, values: Iterable[Any]) -> None:
    kept = list(values)
    del field[:]
    field.extend(kept)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; equal graphs give equal bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))
