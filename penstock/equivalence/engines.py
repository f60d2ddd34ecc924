"""The last rung: engines that ran, against what the int8 graph's Q/DQ nodes say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.bundle import Bundle, BundleError, hash_file
from penstock.equivalence import inputs
from penstock.equivalence.ladder import Masks, Step, step
from penstock.stats.distance import snr_db
from penstock.stats.slices import ALL
from penstock.verdict import Check, Outcome
from penstock.workload import Limits, Network, Rung

Floats = NDArray[np.float64]

RAN, BUILT = "run", "built"

BELOW_FLOOR_DB = 10.0
LEAST_DB = 25.0
MOST_FLOOR_DB = 60.0
"""Of the floor that counts. Where the jitter happened to round nothing otherwise, the graph equals
itself; one activation of one row in a few hundred that an engine rounds otherwise costs as much."""

MIN_AGREEMENT = 0.995


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Holdout rows on which engines ran, and what the int8 graph says of them."""

    inputs_n: NDArray[np.float32]
    labels_n: NDArray[np.int64]
    int8_nk: Floats
    slices: Masks


@dataclass(frozen=True, kw_only=True)
class Engines:
    """What there is to say of the engines."""

    steps: tuple[Step, ...]
    """One for each that ran and left its outputs."""

    checks: tuple[Check, ...]
    """Of engines that are required and did not run, or left no outputs that can be compared."""

    states: tuple[dict[str, Any], ...]
    """Name, state and reason of every backend that was tried."""

    outputs: dict[str, Floats]


def golden(int8: Bundle, centre: inputs.Centre, *, least_rare: int) -> Golden:
    """Return the golden rows of an int8 bundle, with their slices and the rare ones."""
    with np.load(int8.file("golden.npz"), allow_pickle=False) as held:
        given = np.asarray(held["inputs"], np.float32)
        named = dict(zip(held["slice_names"].tolist(), held["slices"], strict=True))
        far_n = inputs.rare(centre.distance(given), least=least_rare)
        return Golden(
            inputs_n=given,
            labels_n=held["labels"],
            int8_nk=held["int8"].astype(np.float64),
            slices={**named, inputs.RARE: far_n},
        )


def floor_db(given: Golden, jittered_nk: Floats) -> dict[str, float]:
    """Return how near the int8 graph comes to itself on inputs that barely differ, in decibels.

    Rounding turns a difference in the last bit into a step of int8, so two right engines are no
    nearer to each other than that. Overall and on each slice that has a row.

    Args:
        jittered_nk: Logits of the int8 graph on :func:`inputs.jittered` golden rows.
    """
    parts = {ALL: np.ones(len(jittered_nk), bool), **given.slices}
    return {
        name: snr_db(given.int8_nk[mask], jittered_nk[mask])
        for name, mask in parts.items()
        if mask.any()
    }


def derived(floors_db: Mapping[str, float], given: Golden, int8: Rung) -> Rung:
    """Return what a right engine keeps, where the workload declares no tolerance.

    At most 10 dB below the floor of its slice and never below 25 dB; 99.5 % of decisions, of which
    a slice may always lose one: the tie that rounds the other way. The metric may drop by as much
    as the int8 step may.
    """

    def limits(name: str, drop: float, n: int) -> Limits:
        counts_db = min(MOST_FLOOR_DB, floors_db.get(name, MOST_FLOOR_DB))
        spare = 0.0 if name == ALL else 1 / max(n, 1)
        return Limits(
            min_agreement=min(MIN_AGREEMENT, 1 - spare),
            max_metric_drop=drop,
            min_snr_db=max(LEAST_DB, counts_db - BELOW_FLOOR_DB),
        )

    whole = limits(ALL, int8.whole.max_metric_drop, len(given.labels_n))
    named = tuple(
        (name, limits(name, int8.limits(name).max_metric_drop, int(mask.sum())))
        for name, mask in given.slices.items()
    )
    return Rung(whole=whole, slices=whole, named=named)


MADE_FROM = (
    ("onnx", "model.int8.onnx", "engines of another int8 graph"),
    ("golden", "golden.npz", "outputs on other golden rows"),
)
"""What ``engine.json`` calls it, the file of the int8 bundle, and what another one means."""


def require_made_from(engine: Bundle, int8: Bundle) -> None:
    """Refuse engines of another int8 graph than the one at hand, or that ran on other rows.

    Raises:
        BundleError: They are, or do not say of which.
    """
    stated = engine.json("engine.json")
    for name, file, other in MADE_FROM:
        wanted, found = hash_file(int8.file(file)), str(stated.get(name, "not stated"))
        if found != wanted:
            raise BundleError(
                f"{engine.path} holds {other} ({found[:19]}…, not {wanted[:19]}…); run the engine "
                f"stage on {int8.path}."
            )


def judged(engine: Bundle, given: Golden, rung: Rung, declared: Network) -> Engines:
    """Hold every engine that ran against the int8 graph, on the golden rows.

    An engine that was only built, or not built, is named and makes no check, unless the workload
    requires it.
    """
    document = engine.json("engine.json")
    states = tuple(
        {"name": b["name"], "state": b["state"], "reason": b["reason"]}
        for b in document["backends"]
    )
    outputs: dict[str, Floats] = {}
    checks = list(_missing(states, declared))
    for state in states:
        if state["state"] == RAN:
            found = _outputs(engine, state["name"], given)
            if isinstance(found, Check):
                checks.append(found)
            else:
                outputs[state["name"]] = found
    steps = tuple(
        step(name, "int8", {"int8": given.int8_nk, name: found}, given.labels_n, given.slices,
             rung, declared)
        for name, found in outputs.items()
    )  # fmt: skip
    return Engines(steps=steps, checks=tuple(checks), states=states, outputs=outputs)


def _missing(states: tuple[dict[str, Any], ...], declared: Network) -> list[Check]:
    """Return an error for each backend that must have run and did not."""
    known = {state["name"]: state for state in states}
    return [
        Check(
            name=f"{name} ran",
            outcome=Outcome.ERROR,
            reason=told(known[name]) if name in known else "it was not tried",
        )
        for name in declared.engine.required
        if name not in known or known[name]["state"] != RAN
    ]


def _outputs(engine: Bundle, name: str, given: Golden) -> Floats | Check:
    """Return an engine's outputs on the golden rows, or the check that says why there are none."""
    asked = f"{name} outputs"
    try:
        found = np.load(engine.file(f"{name}.npy"), allow_pickle=False)
    except (BundleError, ValueError) as e:
        return Check(name=asked, outcome=Outcome.ERROR, reason=f"it ran and left none: {e}")
    if found.shape != given.int8_nk.shape:
        reason = f"they have shape {found.shape}, {given.int8_nk.shape} was wanted"
        return Check(name=asked, outcome=Outcome.ERROR, reason=reason)
    return found.astype(np.float64)


def word(state: Mapping[str, Any]) -> str:
    """Return how far an engine that did not run came: ``built, not run`` or ``not built``."""
    return "built, not run" if state["state"] == BUILT else state["state"]


def told(state: Mapping[str, Any]) -> str:
    """Return how far an engine that did not run came, and why no further."""
    return f"{word(state)}: {state['reason'] or 'no reason was recorded'}"
