"""Make an ONNX graph from a network, with the newer exporter or, for a reason, the older."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from penstock.runtimes.onnxruntime import OnnxModel
from penstock.runtimes.torch import TorchModel

BATCHES = (1, 7)
"""Batch sizes tried beside all rows at once: a graph may be right for one size only."""

INPUT, OUTPUT = "image", "logits"


class ExportError(RuntimeError):
    """No exporter made a graph that computes what the network computes."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Which exporter was used and how far the graph is from the network."""

    exporter: str
    fallback_reason: str | None
    max_abs_error: float
    opset: int
    ir_version: int


def export(
    network: torch.nn.Module,
    inputs_n: NDArray[np.float32],
    path: Path,
    *,
    opset: int,
    max_abs_error: float,
    exporters: dict[str, Callable[[torch.nn.Module, torch.Tensor, Path, int], None]] | None = None,
) -> Exported:
    """Write the first graph that agrees with the network on real inputs.

    Args:
        inputs_n: Real network inputs, shape [n, ...]; the graph is checked on all of them.
        max_abs_error: Largest difference allowed on any logit, at any batch size.
        exporters: Tried in order; by default torch's newer exporter, then its older one.

    Raises:
        ExportError: None of them did; the text holds each one's reason.
    """
    if network.training:
        raise ExportError("the network is in training mode; call eval() before exporting it.")
    wanted = TorchModel(network).run(inputs_n)
    reasons: list[str] = []
    for name, make in (exporters or {"dynamo": _dynamo, "torchscript": _torchscript}).items():
        try:
            _quietly(make, network, torch.tensor(inputs_n[:2]), path, opset)
            model = onnx.load(path)
            onnx.checker.check_model(model, full_check=True)
            made = model.opset_import[0].version
            if made != opset:
                raise ExportError(f"opset {opset} was asked for, {made} was written")
            error = _error(path, inputs_n, wanted)
            if not error <= max_abs_error:
                raise ExportError(
                    f"differs by {error:.3g} on real inputs, {max_abs_error:g} allowed"
                )
        except Exception as e:  # noqa: BLE001 - an exporter may raise anything; the reason is kept, the next tried
            path.unlink(missing_ok=True)
            reasons.append(f"{name}: {str(e).splitlines()[0] if str(e) else type(e).__name__}")
            continue
        return Exported(
            exporter=name,
            fallback_reason="; ".join(reasons) or None,
            max_abs_error=error,
            opset=made,
            ir_version=model.ir_version,
        )
    raise ExportError("no exporter made the same graph: " + "; ".join(reasons))


def _error(path: Path, inputs_n: NDArray[np.float32], wanted_nk: NDArray[np.float64]) -> float:
    runtime = OnnxModel(path)
    worst = float(np.abs(runtime.run(inputs_n) - wanted_nk).max())
    for size in BATCHES:
        got = runtime.run(inputs_n[:size])
        if got.shape != wanted_nk[:size].shape:
            return float("inf")
        worst = max(worst, float(np.abs(got - wanted_nk[:size]).max()))
    return worst


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
