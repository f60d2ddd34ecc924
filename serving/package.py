"""Load a package: verified bytes, warm at every batch size, golden answers right."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bundle import read
from penstock.request import Contract, packaged_transform, request_input
from penstock.runtimes.onnxruntime import OnnxModel
from serving.reading import from_instances

ROUNDS = 50
SETTLED = 1.2
"""A batch size is warm when the last calls take at most this times the quickest of them."""

WINDOW = 5


class NotServable(RuntimeError):
    """The package must not serve; the text says why."""


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
            BundleError: A file is missing or altered, the transform among them.
            NotServable: It has no golden requests.
        """
        bundle = read(path, kind="package")
        self.contract = Contract.from_dict(bundle.json("serving.json"))
        self._input = request_input(packaged_transform(bundle))
        self._model = OnnxModel(bundle.file("model.onnx"))
        golden = bundle.json("golden.json")
        if not golden["requests"]:
            raise NotServable("the package has no golden requests; nothing shows that it is right.")
        held = [request["instance"] for request in golden["requests"]]
        if self.contract.plain:
            held = [instance[self.contract.names[0]] for instance in held]
        self._golden = from_instances(held, self.contract)
        self._answers_nk = np.array([request["logits"] for request in golden["requests"]])
        self._tolerance = float(golden["tolerance"])

    def logits(self, rows: pa.Table) -> NDArray[np.float32]:
        """Return logits [n, classes] for a request's rows."""
        return self._model.run(self._input(rows))

    def warm(self) -> list[Warmth]:
        """Run every batch size until its latency settles, on golden rows: real ones."""
        return [self._warm(n) for n in batches(self.contract.rows)]

    def _warm(self, n: int) -> Warmth:
        rows = self._golden.take(pa.array(np.arange(n) % len(self._golden)))
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
        """Answer the golden requests, each alone, and return how many there are.

        Raises:
            NotServable: An answer differs from the recorded one.
        """
        count = len(self._golden)
        for number, answer in enumerate(self._answers_nk):
            logits = self.logits(self._golden.slice(number, 1))[0]
            apart = float(np.abs(logits - answer).max())
            if not apart <= self._tolerance:
                raise NotServable(
                    f"golden request {number + 1} of {count} was answered otherwise "
                    f"than recorded: {apart:.4g} apart, {self._tolerance:g} allowed."
                )
        return count


def batches(rows: int) -> list[int]:
    """Return the batch sizes to warm: doubling, up to the most rows of a request.

    >>> batches(64)
    [1, 2, 4, 8, 16, 32, 64]
    >>> batches(20)
    [1, 2, 4, 8, 16, 20]
    """
    return [*(2**i for i in range((rows - 1).bit_length())), rows]
