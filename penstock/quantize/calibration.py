"""Try each way of choosing ranges, and keep the one whose int8 graph is best on validation rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.quantize import graph, ranges
from penstock.quantize.running import logits
from penstock.quantize.validation import Score, Validation
from penstock.stats import drops
from penstock.stats.drops import Drop
from penstock.workload import Calibrator, Quantize


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One way of choosing ranges, and how good the graph is with every layer in int8."""

    method: Calibrator
    thresholds: Mapping[str, float]
    score: Score

    short: Drop | None
    """How far its metric falls short of the best one tried; None where the rows cannot tell."""

    @property
    def worse(self) -> bool:
        """Whether its metric is worse than the best one, and not by chance."""
        return self.short is not None and self.short.low is not None and self.short.low > 0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the activations were, and every way of choosing ranges that was tried."""

    observed: Mapping[str, ranges.Observed]
    tried: Sequence[Tried]
    rows: int
    inputs: str
    """Hash of the calibration inputs."""

    @property
    def best(self) -> Tried:
        """The best signal-to-noise ratio, then the earliest, of those not shown to be worse.

        Worse is one whose metric falls short of the best by an interval above zero. What the rows
        cannot tell apart by the metric, noise does: a difference within the interval is chance.
        """
        return max((t for t in self.tried if not t.worse), key=lambda t: t.score.snr_db)

    def to_dict(self, declared: Quantize) -> dict[str, object]:
        """Return plain values."""
        return {
            "method": self.best.method,
            "percentile": declared.percentile,
            "bins": ranges.BINS,
            "rows": self.rows,
            "inputs": self.inputs,
            "tried": [
                {"method": t.method, **asdict(t.score), "short": _interval(t.short)}
                for t in self.tried
            ],
            "tensors": {
                name: {
                    "amax": observed.amax,
                    "values": observed.values,
                    "zeros": observed.zeros,
                    "threshold": {t.method: t.thresholds[name] for t in self.tried},
                    "saturated": {
                        t.method: ranges.saturated(observed, t.thresholds[name]) for t in self.tried
                    },
                }
                for name, observed in self.observed.items()
            },
        }


def calibrate(
    model: onnx.ModelProto,
    inputs_n: NDArray[np.float32],
    validation: Validation,
    declared: Quantize,
) -> Calibration:
    """Return what was tried, every layer in int8.

    Args:
        model: The simplified float graph.
        inputs_n: Network inputs of the calibration rows, shape [n, ...].

    Raises:
        ValueError: No calibrator is declared, there is no row, or an activation is not finite.
    """
    if not declared.calibrators:
        raise ValueError("Quantize.calibrators is empty; declare at least one.")
    observed = ranges.observe(model, graph.tensors(graph.layers(model)), inputs_n)
    thresholds = {
        method: {
            name: ranges.threshold(found, method, percentile=declared.percentile)
            for name, found in observed.items()
        }
        for method in declared.calibrators
    }
    answers = {
        method: logits(graph.quantize(model, held), validation.inputs_n)
        for method, held in thresholds.items()
    }
    return Calibration(
        observed=observed,
        tried=_tried(thresholds, answers, validation),
        rows=len(inputs_n),
        inputs=hash_array(inputs_n),
    )


def _tried(
    thresholds: Mapping[Calibrator, Mapping[str, float]],
    answers: Mapping[Calibrator, NDArray[np.float64]],
    validation: Validation,
) -> list[Tried]:
    """Return each method with its score, and how far it is short of the best metric."""
    scores = {method: validation.score(nk) for method, nk in answers.items()}
    best_nk = answers[max(scores, key=lambda method: _goodness(scores[method]))]
    return [
        Tried(
            method=method,
            thresholds=thresholds[method],
            score=scores[method],
            short=drops.drop(
                validation.declared.metric,
                best_nk,
                answers[method],
                validation.labels_n,
                threshold=validation.declared.threshold,
            ),
        )
        for method in answers
    ]


def _goodness(score: Score) -> tuple[float, float]:
    return -np.inf if score.metric is None else score.metric, score.snr_db


def _interval(short: Drop | None) -> list[float | None] | None:
    return None if short is None else [short.low, short.high]


def hash_array(values: NDArray[np.generic]) -> str:
    """Return ``sha256:`` and the hash of an array's shape and bytes, in order."""
    h = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    h.update(np.ascontiguousarray(values).data)
    return "sha256:" + h.hexdigest()
