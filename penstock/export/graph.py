"""Make an ONNX graph from a network, with the newer exporter or, for a reason, the older."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from penstock.runtimes.onnxruntime import OnnxModel
from penstock.runtimes.torch import TorchModel
from penstock.workload import Export

BATCHES = (1, 7)
"""Batch sizes tried beside the one for all rows: a graph may be right for one size only."""

AT_ONCE = 1024

INPUT, OUTPUT = "input", "logits"


Exporter = Callable[[torch.nn.Module, torch.Tensor, Path, int], None]
"""Writes the graph of a network, given two example inputs, a path and an opset."""


class ExportError(RuntimeError):
    """No exporter made a graph that computes what the network computes."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Which exporter was used and how far the graph is from the network."""

    exporter: str
    fallback_reason: str | None
    max_abs_error: float
    """On all rows, at any batch size."""

    by_slice: dict[str, float]
    """The largest difference on each slice."""

    opset: int
    ir_version: int


def export(
    network: torch.nn.Module,
    inputs_n: NDArray[np.float32],
    path: Path,
    *,
    settings: Export,
    slices: Mapping[str, NDArray[np.bool_]],
    exporters: Mapping[str, Exporter] | None = None,
) -> Exported:
    """Write the first graph that agrees with the network on real inputs.

    The graph's opset is the asked one, or another exporter is tried: a converter may leave another
    and only log it. The version of the file format is set to the asked one.

    Args:
        inputs_n: Real network inputs, shape [n, ...]; the graph is checked on all of them.
        slices: Which rows each slice holds, shape [n].
        exporters: Tried in order; by default torch's newer exporter, then its older one.

    Raises:
        ExportError: None of them did; the text holds each one's reason.
    """
    if network.training:
        raise ExportError("the network is in training mode; call eval() before exporting it.")
    reference = TorchModel(network)
    parts = np.array_split(inputs_n, max(1, -(-len(inputs_n) // AT_ONCE)))
    wanted = np.concatenate([reference.run(part) for part in parts])
    reasons: list[str] = []
    for name, make in (exporters or {"dynamo": _dynamo, "torchscript": _torchscript}).items():
        try:
            _quietly(make, network, torch.tensor(inputs_n[:2]), path, settings.opset)
            model = onnx.load(path)
            _forget_where(model)
            onnx.checker.check_model(model, full_check=True)
            made = model.opset_import[0].version
            if made != settings.opset:
                raise ExportError(f"opset {settings.opset} was asked for, {made} was written")
            model.ir_version = settings.ir_version
            onnx.save(model, path)
            error_n = _errors(path, inputs_n, wanted)
            error = float(error_n.max())
            if not error <= settings.max_abs_error:
                raise ExportError(
                    f"differs by {error:.3g} on real inputs, {settings.max_abs_error:g} allowed"
                )
        except Exception as e:  # noqa: BLE001 - an exporter may raise anything; the reason is kept, the next tried
            path.unlink(missing_ok=True)
            reasons.append(f"{name}: {str(e).splitlines()[0] if str(e) else type(e).__name__}")
            continue
        return Exported(
            exporter=name,
            fallback_reason="; ".join(reasons) or None,
            max_abs_error=error,
            by_slice={n: float(error_n[rows].max()) for n, rows in slices.items() if rows.any()},
            opset=made,
            ir_version=model.ir_version,
        )
    raise ExportError("no exporter made the same graph: " + "; ".join(reasons))


def _forget_where(model: onnx.ModelProto) -> None:
    """Remove the exporter's stack traces, which name the folders of whoever exported.

    With them the same network would give other bytes on each machine.
    """
    for node in (*model.graph.node, *(n for f in model.functions for n in f.node)):
        kept = [p for p in node.metadata_props if not p.key.endswith("stack_trace")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def _errors(
    path: Path, inputs_n: NDArray[np.float32], wanted_nk: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return each row's largest difference, shape [n], over the batch sizes; infinite if no row."""
    runtime = OnnxModel(path)
    worst_n = np.zeros(len(inputs_n))
    for size in (*BATCHES, AT_ONCE):
        last = len(inputs_n) if size == AT_ONCE else size
        for start in range(0, last, size):
            rows = slice(start, min(start + size, last))
            got = runtime.run(inputs_n[rows])
            if got.shape != wanted_nk[rows].shape:
                return np.full(len(inputs_n), np.inf)
            # An output that is not a number must not count as none.
            error = np.nan_to_num(np.abs(got - wanted_nk[rows]), nan=np.inf).max(axis=1)
            worst_n[rows] = np.maximum(worst_n[rows], error)
    return worst_n


def _dynamo(network: torch.nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=opset,
        external_data=False,
        verbose=False,
    )
    if program is None:
        raise ExportError("the exporter returned no program")
    program.save(path, external_data=False)


def _torchscript(network: torch.nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    torch.onnx.export(
        network,
        (example,),
        str(path),
        dynamo=False,
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=opset,
    )


def _quietly(make: Callable[..., None], *arguments: object) -> None:
    """Call an exporter without the pages that it prints; errors are still raised."""
    onnxscript = logging.getLogger("onnxscript")
    level = onnxscript.level
    onnxscript.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            make(*arguments)
    finally:
        onnxscript.setLevel(level)


def describe(path: Path, properties: dict[str, str]) -> None:
    """Write properties into the graph's own metadata."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)
