"""Load a package: verified bytes, warm at every batch size, golden answers right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock import workload as workloads
from penstock.bundle import read
from penstock.runtimes.onnxruntime import OnnxModel

BATCHES = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 50
SETTLED = 1.2
"""A batch size is warm when the last calls take at most this times the quickest of them."""

WINDOW = 5


class NotServable(RuntimeError):
    """The package must not serve; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a request must hold."""

    workload: str
    classes: int
    feature: str
    width: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Warmth:
    """How long the first call took, and how long calls take now, in milliseconds."""

    batch: int
    first_ms: float
    steady_ms: float
    rounds: int


class Served:
    """A package ready to answer."""

    def __init__(self, path: Path) -> None:
        """Load and verify; not yet warm.

        Raises:
            BundleError: A file is missing or altered.
        """
        self._bundle = read(path, kind="package")
        document = self._bundle.json("serving.json")
        self.contract = Contract(
            workload=document["workload"],
            classes=document["classes"],
            feature=document["features"][0],
            width=document["width"],
            low=document["low"],
            high=document["high"],
        )
        self._transform = workloads.part(self.contract.workload, "transform").request_input
        self._model = OnnxModel(self._bundle.file("model.onnx"))

    def logits(self, raw_nd: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [n, classes] for raw rows [n, width]."""
        return self._model.run(self._transform(raw_nd))

    def warm(self) -> list[Warmth]:
        """Run every batch size until its latency settles."""
        return [self._warm(n) for n in BATCHES]

    def _warm(self, n: int) -> Warmth:
        middle = (self.contract.low + self.contract.high) / 2
        rows = np.full((n, self.contract.width), middle, np.float32)
        rows[:, ::2] = self.contract.high
        taken: list[float] = []
        while len(taken) < ROUNDS:
            begun = time.perf_counter()
            self.logits(rows)
            taken.append((time.perf_counter() - begun) * 1000)
            recent = taken[-WINDOW:]
            if len(taken) > WINDOW and max(recent) <= SETTLED * min(recent):
                break
        steady = float(np.median(taken[-WINDOW:]))
        return Warmth(batch=n, first_ms=taken[0], steady_ms=steady, rounds=len(taken))

    def check_golden(self) -> int:
        """Answer the golden requests and return how many there are.

        Raises:
            NotServable: There is none, or an answer differs from the recorded one.
        """
        golden: dict[str, Any] = self._bundle.json("golden.json")
        if not golden["requests"]:
            raise NotServable("the package has no golden requests; nothing shows that it is right.")
        for number, request in enumerate(golden["requests"], start=1):
            raw = np.array([request[self.contract.feature]], np.float32)
            apart = float(np.abs(self.logits(raw)[0] - np.array(request["logits"])).max())
            if not apart <= golden["tolerance"]:
                raise NotServable(
                    f"golden request {number} of {len(golden['requests'])} was answered otherwise "
                    f"than recorded: {apart:.4g} apart, {golden['tolerance']:g} allowed."
                )
        return len(golden["requests"])


def parse_rows(values: Any, contract: Contract) -> NDArray[np.float32]:
    """Return request rows as an array [n, width].

    Raises:
        ValueError: Not numbers, the wrong shape, not finite, out of range, or too many rows.
    """
    name = contract.feature
    refuse_other_than_numbers(values, name)
    try:
        with np.errstate(over="ignore"):
            rows = np.asarray(values, np.float32)
    except (TypeError, ValueError, OverflowError) as e:
        raise ValueError(f"{name}: rows of {contract.width} numbers were wanted: {e}") from None
    if rows.ndim != 2 or rows.shape[1] != contract.width:
        raise ValueError(f"{name}: shape {list(rows.shape)} came, [n, {contract.width}] was wanted")
    if not 1 <= len(rows) <= BATCHES[-1]:
        raise ValueError(f"{name}: {len(rows)} rows came, 1 to {BATCHES[-1]} are taken at once")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name}: holds a value that is not a finite number")
    if rows.min() < contract.low or rows.max() > contract.high:
        raise ValueError(
            f"{name}: values {rows.min():g} to {rows.max():g} came, {contract.low:g} to "
            f"{contract.high:g} are allowed"
        )
    return rows


def refuse_other_than_numbers(values: Any, name: str) -> None:
    """Refuse text and truth values in a list, or a list of rows: numpy would read them as numbers.

    Raises:
        ValueError: There is one.
    """
    kinds = set(map(type, _leaves(values)))
    if others := sorted(_JSON_NAMES.get(kind, kind.__name__) for kind in kinds - {int, float}):
        raise ValueError(f"{name}: {', '.join(others)} came, numbers were wanted")


_JSON_NAMES = {str: "text", bool: "a truth value", type(None): "null", dict: "an object"}


def _leaves(values: Any) -> Iterator[Any]:
    if not isinstance(values, list):
        return
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value
