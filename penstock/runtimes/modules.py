"""Find the modules of a network in a graph that was made from it, by what they compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from penstock.runtimes.layers import Layer, with_outputs
from penstock.runtimes.onnxruntime import OnnxModel
from penstock.stats.distance import EQUAL_DB, snr_db

Floats = NDArray[np.float64]

Network = torch.nn.Module
"""For those above, who import no torch."""


@dataclass(frozen=True, kw_only=True)
class Module(Layer):
    """One call of a module, against the tensor of the graph that is nearest to its output."""

    fed_right: bool
    """Whether the graph has what goes into it."""

    absorbed: bool
    """Whether the graph computes it together with what follows, which it has right."""


@dataclass(kw_only=True)
class _Call:
    name: str
    operation: str
    inputs: list[Floats]
    output: Floats = field(default_factory=lambda: np.zeros(0))
    sources: list[int] = field(default_factory=list[int])
    """Numbers of the calls that made its inputs, as far as modules did."""


def compare(
    network: Network, graph: Path, inputs_n: NDArray[np.float32], *, least_db: float
) -> list[Module]:
    """Return each call of a module in order, and how near the graph comes to its output.

    A graph has other names than the network, and several modules may have become one operation. So
    a module is looked for among all tensors of its output's shape. Only modules are looked for;
    what a network computes between them is not seen.

    Args:
        network: In evaluation mode and in float64.
        inputs_n: Network inputs, shape [n, ...]; all tensors of all of them are held in memory.
        least_db: Signal-to-noise ratio from which a tensor is the module's output.
    """
    calls = _calls(network, inputs_n)
    tensors = _tensors(graph, inputs_n)
    nearest = [_nearest(call.output, tensors) for call in calls]
    right = [db >= least_db for db in nearest]
    absorbed = [False] * len(calls)
    for i in reversed(range(len(calls))):
        users = [j for j, call in enumerate(calls) if i in call.sources]
        absorbed[i] = not right[i] and any(right[j] or absorbed[j] for j in users)
    return [
        Module(
            name=call.name,
            operation=call.operation,
            snr_db=db,
            fed_right=all(_nearest(x, tensors) >= least_db for x in call.inputs),
            absorbed=gone,
        )
        for call, db, gone in zip(calls, nearest, absorbed, strict=True)
    ]


def first_wrong(modules: Sequence[Module], *, least_db: float) -> Module | None:
    """Return the first module whose output the graph has not, nor anything right after it."""
    return next((m for m in modules if m.snr_db < least_db and not m.absorbed), None)


def _nearest(values: Floats, tensors: Sequence[Floats]) -> float:
    found = [snr_db(values, tensor) for tensor in tensors if tensor.shape == values.shape]
    return max(found, default=-EQUAL_DB)


def _tensors(graph: Path, inputs_n: NDArray[np.float32]) -> list[Floats]:
    model = onnx.load(graph)
    names = [name for node in model.graph.node for name in node.output if name]
    found = OnnxModel.tensors(with_outputs(model, names), names, inputs_n)
    return [inputs_n.astype(np.float64), *found]


def _calls(network: Network, inputs_n: NDArray[np.float32]) -> list[_Call]:
    """Run a network and return what went into and out of its innermost modules and itself."""
    calls: list[_Call] = []
    with _watched(network, calls), torch.no_grad():
        network(torch.tensor(inputs_n, dtype=torch.float64))
    return calls


@contextmanager
def _watched(network: Network, calls: list[_Call]) -> Iterator[None]:
    opened: list[_Call] = []
    made_by: dict[int, int] = {}
    # Objects that are gone would give their identity to others.
    alive: list[object] = []

    def before(name: str, module: torch.nn.Module, given: Any) -> None:
        held = [x for x in given if isinstance(x, torch.Tensor)]
        alive.extend(held)
        sources = [made_by[id(x)] for x in held if id(x) in made_by]
        inputs = [_copied(x) for x in held]
        opened.append(
            _Call(name=name, operation=type(module).__name__, inputs=inputs, sources=sources)
        )

    def after(_module: torch.nn.Module, _given: Any, made: Any) -> None:
        call = opened.pop()
        if isinstance(made, torch.Tensor):
            call.output = _copied(made)
            alive.append(made)
            made_by[id(made)] = len(calls)
            calls.append(call)

    handles: list[Any] = []
    modules: Any = network.named_modules()
    for name, module in modules:
        if module is network or not list(module.children()):
            called = partial(before, name or "the network itself")
            handles.append(module.register_forward_pre_hook(called))
            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copied(tensor: torch.Tensor) -> Floats:
    """Return a tensor's values, which a later module may overwrite in place."""
    return tensor.detach().clone().double().numpy()
