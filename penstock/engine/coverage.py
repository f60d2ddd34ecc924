"""Which layers a compiler made int8, read from what it says of the finished engine.

A parser takes graphs that then run in float without a word: weights with a scale per input
channel, only one of two inputs quantized, activations with a scale per channel. So every layer that
is meant to be int8 is looked up by its name in the compiler's own table, and no table is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")

ELEMENTWISE = ("kgen",)
"""Kinds of generated kernels around a product: scaling, rounding. They name its node too."""

_ROW = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs: \["
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


class NoLayerTable(ValueError):
    """The compiler told nothing of its layers, so nothing is known of them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer of a compiled engine."""

    kind: str
    inputs: tuple[str, ...]
    """Datatypes, in order."""

    constants: tuple[str, ...]
    """Datatypes; of a product the first one is the weights."""

    nodes: frozenset[str]
    """Names of the graph's nodes that it computes, or computes a part of."""

    @property
    def int8(self) -> bool:
        """Whether it multiplies int8 by int8.

        A product of two activations has no constant weights: its second input counts then. Weights
        that are read as int8 and multiplied as float come after their scale, which is float.
        """
        operands = (*self.inputs[:1], *(self.constants or self.inputs[1:])[:1])
        return operands == ("Int8", "Int8")

    @property
    def said(self) -> str:
        """The layer in a few words."""
        operands = (*self.inputs[:1], *self.constants)
        return f"{self.kind} of {' × '.join(operands[:2]) or 'nothing known'}"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What became of every weighted layer of a graph."""

    int8: tuple[str, ...]
    """Names of layers meant to be int8 that are."""

    not_int8: Mapping[str, str]
    """Names of those that are not, and what they were compiled as."""

    kept_float: tuple[str, ...]
    """Names of layers that the graph leaves in float."""

    @property
    def problem(self) -> str | None:
        """Why the engine is not what the graph says, None if it is."""
        if not self.not_int8:
            return None
        meant = len(self.int8) + len(self.not_int8)
        named = ", ".join(f"{name} ({found})" for name, found in self.not_int8.items())
        return f"{len(self.not_int8)} of {meant} layers meant to be int8 are not: {named}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``engine.json``."""
        return {
            "meant": len(self.int8) + len(self.not_int8),
            "int8": list(self.int8),
            "not_int8": [{"name": n, "compiled_as": f} for n, f in self.not_int8.items()],
            "kept_float": list(self.kept_float),
        }


def cover(model: onnx.ModelProto, rows: Sequence[Row]) -> Coverage:
    """Return what became of a graph's convolutions and products.

    One is meant to be int8 when any of its two inputs comes out of Q/DQ.

    Raises:
        NoLayerTable: There is no row.
    """
    if not rows:
        raise NoLayerTable(
            "the build log holds no table of layers, so nothing says which are int8; this version "
            "of the library may write it otherwise: see penstock/engine/coverage.py."
        )
    kernels = [row for row in rows if row.kind not in ELEMENTWISE]
    meant, kept_float = _weighted(model)
    of = {name: [row for row in kernels if name in row.nodes] for name in meant}
    int8 = tuple(name for name in meant if any(row.int8 for row in of[name]))
    return Coverage(
        int8=int8,
        not_int8={
            name: "; ".join(row.said for row in of[name]) or "no layer names it"
            for name in meant
            if name not in int8
        },
        kept_float=tuple(kept_float),
    )


def _weighted(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Return the names of layers meant to be int8, and of those left in float."""
    quantized = {
        name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    meant: list[str] = []
    kept: list[str] = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED:
            name = node.name or f"the nameless {node.op_type} that gives {node.output[0]}"
            (meant if quantized & set(node.input[:2]) else kept).append(name)
    return meant, kept


def rows_of_log(messages: Iterable[str]) -> list[Row]:
    """Return the layers that a verbose build log lists, none if it lists none."""
    tables = [m for m in messages if m.startswith("Layers:")]
    lines = [line for table in tables for line in table.splitlines()]
    return [_row(found, line) for line in lines if (found := _ROW.search(line))]


def _row(found: re.Match[str], line: str) -> Row:
    return Row(
        kind=found["kind"],
        inputs=tuple(_DATATYPE.findall(found["inputs"])),
        constants=tuple(_DATATYPE.findall(found["constants"])),
        nodes=frozenset(_NODE.findall(line)),
    )


def rows_of_inspector(text: str) -> list[Row]:
    """Return the layers that an engine inspector lists as JSON, none if it lists names only.

    Versions differ: a datatype is a field of its own or stands inside a format's description, and
    weights are an entry ``Weights`` or the first of ``Constants``.
    """
    layers = json.loads(text).get("Layers", [])
    # One that was built without details is a name alone.
    return [_inspected(layer) for layer in layers if not isinstance(layer, str)]


def _inspected(layer: Mapping[str, Any]) -> Row:
    weights = layer.get("Weights")
    constants = [_datatype(c) for c in layer.get("Constants", [])]
    if weights:
        constants.insert(0, _known(str(weights.get("Type", ""))))
    return Row(
        kind=str(layer.get("LayerType", "unknown")),
        inputs=tuple(_datatype(i) for i in layer.get("Inputs", [])),
        constants=tuple(constants),
        nodes=frozenset(_NODE.findall(str(layer.get("Metadata", "")))),
    )


def _datatype(tensor: Mapping[str, Any]) -> str:
    named = tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype")
    return _known(str(named or ""))


def _known(text: str) -> str:
    """Return the datatype that a description speaks of.

    >>> _known("Thirty-two wide channel vectorized row major Int8 format")
    'Int8'
    """
    names = {"int8": "Int8", "half": "Half", "fp16": "Half", "float": "Float", "fp32": "Float"}
    return next((name for word, name in names.items() if word in text.lower()), "unknown")
