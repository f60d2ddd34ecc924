"""Name the first layer where a failing step goes wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock.equivalence.holdout import Holdout
from penstock.equivalence.ladder import Masks, Step
from penstock.equivalence.running import Outputs
from penstock.stats import comparison
from penstock.stats.slices import ALL
from penstock.workload import Rung

if TYPE_CHECKING:
    from penstock.runtimes.layers import Layer
    from penstock.runtimes.modules import Network

ROWS = 64
"""Inputs whose tensors are compared; a few of them are in memory at once."""

MODULE_ROWS = 16
"""Inputs whose tensors are compared with the network's modules; all are in memory at once."""

USUAL_DB = 20.0
"""Least signal-to-noise ratio of a layer where the workload declares none."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where a step goes wrong, and every layer that was looked at."""

    layers: Sequence[Layer]

    said: str | None
    """For people; None where the step does not fail."""


def inputs_of(step: Step, outputs: Outputs, slices: Masks, holdout: Holdout) -> NDArray[np.float32]:
    """Return the inputs to look at: the worst of the part that fails, else evenly spaced rows."""
    failing = step.failing
    if failing is None:
        return holdout.pick(holdout.spread(ROWS))
    name = failing.found.slice
    if failing in step.beyond:
        return outputs.beyond_inputs[name][:ROWS]
    before, after = outputs.logits[step.against], outputs.logits[step.name]
    rows = np.flatnonzero(np.ones(len(before), bool) if name == ALL else slices[name])
    threshold = holdout.declared.threshold
    worst = comparison.worst(before[rows], after[rows], threshold=threshold, most=ROWS)
    return holdout.pick(rows[[found[0] for found in worst]])


def in_graphs(
    step: Step,
    graphs: Mapping[str, Path],
    inputs_n: NDArray[np.float32],
    rung: Rung,
    *,
    fused: bool = False,
) -> Located:
    """Hold the graph of a step against that of the step before, tensor by tensor of one name.

    Args:
        fused: Whether the step was run with its layers fused. Their tensors do not exist then, so
            they are looked at as the graph's nodes say, and that is said.
    """
    from penstock.runtimes import layers  # noqa: PLC0415 - onnx takes a while to import

    found = layers.compare(graphs[step.against], graphs[step.name], inputs_n)
    if step.failing is None:
        return Located(layers=found, said=None)
    least_db = _least_db(rung)
    wrong = layers.first_wrong(found, least_db=least_db)
    rows = f"on the {len(inputs_n)} worst inputs of {step.failing.found.slice!r}"
    if wrong is not None:
        said = f"{wrong.operation} {wrong.name}, {wrong.snr_db:.1f} dB {rows}"
    elif found:
        least = min(found, key=lambda layer: layer.snr_db)
        said = (
            f"no layer in particular: all keep {least_db:g} dB {rows}; the noisiest is "
            f"{least.operation} {least.name}, {least.snr_db:.1f} dB"
        )
    else:
        said = "a layer that cannot be named: the two graphs have no tensors of one name"
    return Located(layers=found, said=f"{said}, as its nodes say, unfused" if fused else said)


def in_network(
    step: Step,
    network: Network,
    graph: Path,
    inputs_n: NDArray[np.float32],
    rung: Rung,
) -> Located:
    """Look for the network's modules in the graph, where the first step fails.

    The graph has other names than the network, so a module is found by what it computes; see
    :mod:`penstock.runtimes.modules`.
    """
    if step.failing is None:
        return Located(layers=(), said=None)
    from penstock.runtimes import modules  # noqa: PLC0415 - torch takes seconds to import

    least_db = _least_db(rung)
    found = modules.compare(network, graph, inputs_n[:MODULE_ROWS], least_db=least_db)
    wrong = modules.first_wrong(found, least_db=least_db)
    if wrong is None:
        said = f"no module in particular: the graph has each one's output to {least_db:g} dB"
    else:
        fed = "" if wrong.fed_right else ", nor like what goes into it"
        said = f"{wrong.operation} {wrong.name}: the graph computes nothing like its output{fed}"
    return Located(layers=found, said=said)


def plain(found: Located) -> list[dict[str, Any]]:
    """Return the layers as plain values for ``layers.json``."""
    return [
        {"name": layer.name, "operation": layer.operation, "snr_db": layer.snr_db}
        for layer in found.layers
    ]


def _least_db(rung: Rung) -> float:
    """Return the least ratio that the rung asks of any slice."""
    limits = [rung.whole, rung.slices, *(one for _, one in rung.named)]
    asked = [one.min_snr_db for one in limits if one.min_snr_db is not None]
    return min(asked, default=USUAL_DB)
