"""How much each layer suffers from int8: alone, and with all others in int8 too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.quantize import graph
from penstock.quantize.fallback import Found, State, fall_back
from penstock.quantize.running import Tensors, logits
from penstock.quantize.validation import Score, Validation
from penstock.stats.distance import Noise


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What int8 does to one layer."""

    layer: graph.Layer
    alone: Score
    """Of the graph's answers, with only this layer in int8."""

    whole_snr_db: float
    """Of the layer's own output with every layer in int8: noise of all before it included."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Every layer's effect, and which layers stay in float for the tolerance's sake."""

    effects: Sequence[Effect]
    found: Found
    reference: Score
    rows: int

    def to_dict(self) -> dict[str, object]:
        """Return plain values; the layer that suffers most alone comes first."""
        why = {step.layer: step.why for step in self.found.steps}
        kept = set(self.found.keep_float)
        return {
            "rows": self.rows,
            "metric": self.reference.metric,
            "layers": [
                {
                    "layer": effect.layer.name,
                    "operation": effect.layer.operation,
                    "snr_db": effect.alone.snr_db,
                    "metric_drop": _drop(self.reference.metric, effect.alone.metric),
                    "agreement": effect.alone.agreement,
                    "whole_snr_db": effect.whole_snr_db,
                    "float": effect.layer.name in kept,
                    "why": why[effect.layer.name] if effect.layer.name in kept else None,
                }
                for effect in sorted(self.effects, key=lambda e: e.alone.snr_db)
            ],
            "steps": [asdict(step) for step in self.found.steps],
            "spared": list(self.found.spared),
            "failing": dict(self.found.state.gaps),
            "snr_db": self.found.state.snr_db,
        }


def _drop(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def measure(
    model: onnx.ModelProto,
    thresholds: Mapping[str, float],
    validation: Validation,
    *,
    most: int | None,
) -> Sensitivity:
    """Return each layer's effect and the layers that stay in float.

    Args:
        model: The simplified float graph.
        thresholds: Range of each activation.
        most: Layers that may stay in float; None: any number.
    """
    layers = graph.layers(model)
    names = [layer.name for layer in layers]
    whole = noise_of(model, graph.quantize(model, thresholds), layers, validation.inputs_n)
    seen: dict[frozenset[str], State] = {}

    def answers(keep_float: frozenset[str]) -> NDArray[np.float64]:
        return logits(graph.quantize(model, thresholds, keep_float=keep_float), validation.inputs_n)

    def evaluate(keep_float: frozenset[str]) -> State:
        if keep_float not in seen:
            nk = answers(keep_float)
            seen[keep_float] = State(gaps=validation.gaps(nk), snr_db=validation.score(nk).snr_db)
        return seen[keep_float]

    effects = [
        Effect(
            layer=layer,
            alone=validation.score(answers(frozenset(names) - {layer.name})),
            whole_snr_db=whole[layer.output],
        )
        for layer in layers
    ]
    return Sensitivity(
        effects=effects,
        found=fall_back(names, evaluate, most=most),
        reference=validation.score(validation.reference_nk),
        rows=len(validation.inputs_n),
    )


def noise_of(
    model: onnx.ModelProto,
    int8: onnx.ModelProto,
    layers: Sequence[graph.Layer],
    inputs_n: NDArray[np.float32],
) -> dict[str, float]:
    """Return the signal-to-noise ratio in decibels of each layer's output in the int8 graph.

    Sums run over batches, so memory holds the outputs of one.
    """
    names = [layer.output for layer in layers]
    found = {name: Noise() for name in names}
    both = zip(
        Tensors(model, names).batches(inputs_n), Tensors(int8, names).batches(inputs_n), strict=True
    )
    for before, after in both:
        for name in names:
            found[name].add(before[name].astype(np.float64), after[name].astype(np.float64))
    return {name: noise.db for name, noise in found.items()}
