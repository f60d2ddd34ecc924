"""The network: each number in steps between fixed edges, then a small multilayer perceptron.

The steps are the piecewise-linear encoding of Gorishniy, Rubachev and Babenko (2022), *On
Embeddings for Numerical Features in Tabular Deep Learning*, with edges from what the columns mean
in place of quantiles. They bring the network to what boosted trees reach here, and bound what any
input can do: beyond its last edge a number changes nothing more, in float as in int8.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from workloads.credit.transform import FEATURES, UNITS, compressed

HIDDEN = (128, 64)

_USE = (0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95, 1, 1.1, 1.4)
_TREND = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_REPAID = (0, 0.02, 0.04, 0.06, 0.1, 0.2, 0.5, 0.9, 1)

EDGES: dict[str, tuple[float, ...]] = {
    "credit_limit": tuple(1e4 * e for e in (1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 80)),
    "use": (-0.1, *_USE),
    "use_high": _USE,
    "use_trend": (*(-e for e in reversed(_TREND)), 0, *_TREND),
    "months_late": (0, 1, 2, 3, 4),
    "months_late_high": (0, 1, 2, 3, 4, 5),
    "late_count": (0, 1, 2, 3, 4, 5, 6),
    # A mean over three months moves in thirds.
    "late_trend": tuple(e / 3 for e in (-9, -4, -3, -2, -1, 0, 1, 2, 3, 4)),
    "repaid_share": _REPAID,
    "repaid_share_low": _REPAID,
    "paid": tuple(1e3 * e for e in (0, 0.3, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)),
    "bill": tuple(1e3 * e for e in (-0.1, 0, 0.3, 1, 3, 8, 20, 40, 60, 100, 200)),
    "paid_of_limit": (0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 1),
}
"""Of each column, where its steps begin and end, rising, in the column's own unit."""


class PiecewiseLinear(nn.Module):
    """Turns packed rows [n, d] into the steps of their columns, [n, ``width``], each 0 to 1."""

    column: torch.Tensor
    low: torch.Tensor
    per_width: torch.Tensor

    def __init__(self, edges: Mapping[str, tuple[float, ...]]) -> None:
        """Take each packed column's edges, in the order of the columns."""
        super().__init__()
        packed = [compressed(np.asarray(e, np.float64), UNITS[name]) for name, e in edges.items()]
        column = np.repeat(np.arange(len(packed)), [len(e) - 1 for e in packed])
        low = np.concatenate([e[:-1] for e in packed])
        width = np.concatenate([np.diff(e) for e in packed])
        # Kept with the weights: a bundle whose edges are not those it was trained with is useless.
        self.register_buffer("column", torch.from_numpy(column))
        self.register_buffer("low", torch.from_numpy(low).float())
        self.register_buffer("per_width", torch.from_numpy(1 / width).float())
        self.width = len(column)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the steps: how far each value has come between each pair of its edges."""
        held = rows.index_select(1, self.column)
        return ((held - self.low) * self.per_width).clamp(0, 1)


def build(*, classes: int) -> nn.Module:
    """Return an untrained network: packed rows [n, len(FEATURES)] to logits [n, classes]."""
    steps = PiecewiseLinear({name: EDGES[name] for name in FEATURES})
    first, second = HIDDEN
    return nn.Sequential(
        steps,
        nn.Linear(steps.width, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, classes),
    )
