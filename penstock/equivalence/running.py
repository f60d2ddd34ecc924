"""Run every step on the holdout, batch by batch, and on inputs out of distribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.equivalence import inputs
from penstock.equivalence.holdout import BATCH, Holdout
from penstock.runtimes import Runtime

Floats = NDArray[np.float64]

BEYOND_ROWS = 32
"""Inputs of each kind out of distribution."""

SAMPLE_ROWS = 4096
SAMPLE_BYTES = 64 << 20
"""Of the inputs that say where ordinary ones lie."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the steps gave."""

    logits: dict[str, Floats]
    """Of each step on all rows, shape [n, k]."""

    beyond: dict[str, dict[str, Floats]]
    """For each kind of inputs out of distribution, of each step, shape [m, k]."""

    beyond_inputs: dict[str, NDArray[np.float32]]

    centre: inputs.Centre

    distance_n: Floats
    """How far out each row lies, shape [n]."""

    rows: dict[int, int]
    """Number of the first row with a network input, by the hash of its bytes."""


def run(holdout: Holdout, runtimes: Mapping[str, Runtime], *, least_beyond: int) -> Outputs:
    """Run all steps; what stays in memory is their outputs, never the inputs of all rows.

    Args:
        least_beyond: Fewest inputs out of distribution of each kind, where the holdout has as many.
    """
    few = holdout.pick(holdout.spread(max(BEYOND_ROWS, least_beyond)))
    most = max(len(few), min(SAMPLE_ROWS, SAMPLE_BYTES // few[0].nbytes))
    centre = inputs.Centre(holdout.pick(holdout.spread(most)))
    strange = inputs.beyond(few)
    logits: dict[str, list[Floats]] = {name: [] for name in runtimes}
    distances: list[Floats] = []
    rows: dict[int, int] = {}
    start = 0
    for inputs_b in holdout.batches():
        for name, runtime in runtimes.items():
            logits[name].append(_double(runtime, inputs_b))
        distances.append(centre.distance(inputs_b))
        for i, row in enumerate(inputs_b, start):
            rows.setdefault(fingerprint(row), i)
        start += len(inputs_b)
    return Outputs(
        logits={name: np.concatenate(parts) for name, parts in logits.items()},
        beyond={
            kind: {name: _double(runtime, made) for name, runtime in runtimes.items()}
            for kind, made in strange.items()
        },
        beyond_inputs=strange,
        centre=centre,
        distance_n=np.concatenate(distances),
        rows=rows,
    )


def in_batches(runtime: Runtime, inputs_n: NDArray[np.float32]) -> Floats:
    """Return the outputs of inputs that are in memory, computed a batch at a time."""
    starts = range(0, len(inputs_n), BATCH)
    return np.concatenate([_double(runtime, inputs_n[i : i + BATCH]) for i in starts])


def fingerprint(row: NDArray[np.float32]) -> int:
    """Return a number for a network input, the same for equal ones within this process."""
    return hash(row.tobytes())


def _double(runtime: Runtime, inputs_n: NDArray[np.float32]) -> Floats:
    return np.asarray(runtime.run(inputs_n), np.float64)
