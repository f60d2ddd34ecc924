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
from penstock.workload import Calibrator, Quantize


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One way of choosing ranges, and how good the graph is with every layer in int8."""

    method: Calibrator
    thresholds: Mapping[str, float]
    score: Score


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
        """The best metric, then the best signal-to-noise ratio, then the earliest."""
        return max(self.tried, key=_goodness)

    def to_dict(self, declared: Quantize) -> dict[str, object]:
        """Return plain values."""
        return {
            "method": self.best.method,
            "percentile": declared.percentile,
            "bins": ranges.BINS,
            "rows": self.rows,
            "inputs": self.inputs,
            "tried": [{"method": t.method, **asdict(t.score)} for t in self.tried],
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
    tried: list[Tried] = []
    for method in declared.calibrators:
        thresholds = {
            name: ranges.threshold(found, method, percentile=declared.percentile)
            for name, found in observed.items()
        }
        answers = logits(graph.quantize(model, thresholds), validation.inputs_n)
        tried.append(Tried(method=method, thresholds=thresholds, score=validation.score(answers)))
    return Calibration(
        observed=observed, tried=tried, rows=len(inputs_n), inputs=hash_array(inputs_n)
    )


def _goodness(tried: Tried) -> tuple[float, float]:
    metric = tried.score.metric
    return -np.inf if metric is None else metric, tried.score.snr_db


def hash_array(values: NDArray[np.generic]) -> str:
    """Return ``sha256:`` and the hash of an array's shape and bytes, in order."""
    h = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    h.update(np.ascontiguousarray(values).data)
    return "sha256:" + h.hexdigest()
