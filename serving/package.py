"""Load a package: verified bytes, warm at every batch size, golden answers right."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.bundle import Bundle
from penstock.request import Contract, Instance, packaged_rules, packaged_transform, request_input
from penstock.workload import RULES
from serving.rows import Columns, Rows, from_instances, taken
from serving.runtime import DEFAULT, CannotRun, opened
from serving.signature import KEY_VARIABLE, verified

if TYPE_CHECKING:
    from penstock.online import Layout

ROUNDS, MOST_ROUNDS = 50, 500
"""Calls after which noise is no reason to go on, and after which nothing is."""

SETTLED = 1.2
"""A batch size is warm when the last calls take at most this times the quickest of them."""

WINDOW = 5

PAYS = 0.8
"""Running requests together pays where a row then takes at most this share of its time alone."""

LAYOUT = "online.json"
"""Where online features lie; a package of a workload that looks none up has none."""


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

    bundle: Bundle
    """Where the package lies, and the manifest of what was loaded: the folder may change since."""

    instances: list[Instance]
    """The golden requests' rows, as they are sent."""

    layout: Layout | None
    """Of the features that can be looked up, None where there are none."""

    rules: Callable[[Columns], NDArray[np.float64]] | None
    """What answers where the model cannot, None where the workload has none."""

    def __init__(self, path: Path, *, runtime: str = DEFAULT, key: Path | None = None) -> None:
        """Verify and load, both from one private copy; not yet warm.

        Args:
            runtime: What runs the model: one of :data:`serving.runtime.RUNTIMES`.
            key: Public key that the package must be signed by. A workload may ask for signatures;
                where a key is given, they are asked for in any case.

        Raises:
            BundleError: A file is missing or altered, the transform among them.
            NotSigned: It has no valid signature by the key.
            CannotRun: The runtime cannot run it here.
            NotServable: It has no golden answers, or asks for signatures and no key is given.
        """
        self.runtime = runtime
        self.warmth: list[Warmth] = []
        with verified(path, key) as copy:
            self._load(copy, signed=key is not None)
            self.bundle = Bundle(path, copy.manifest)

    def _load(self, bundle: Bundle, *, signed: bool) -> None:
        self.contract = contract = Contract.from_dict(bundle.json("serving.json"))
        if contract.endpoint.signed and not signed:
            raise NotServable(
                f"{contract.workload} serves signed packages only; set {KEY_VARIABLE} to the file "
                "of the public key."
            )
        golden = _golden(bundle, self.runtime)
        self.layout = layout_of(bundle)
        self.rules = packaged_rules(bundle) if RULES in bundle.manifest["files"] else None
        self._rows = Rows(contract)
        self._input = request_input(packaged_transform(bundle))
        classes = contract.classes
        self._run = opened(bundle, self.runtime, workload=contract.workload, classes=classes).run
        self.instances = golden.instances
        self._golden = from_instances(golden.instances, contract)
        self._answers_nk, self._tolerance = golden.answers_nk, golden.tolerance

    def infer(self, columns: Columns) -> NDArray[np.float32]:
        """Return logits [n, classes] for the columns of every feature of the contract."""
        return self._run(self._input(self._rows(columns)))

    def logits(self, rows: pa.Table) -> NDArray[np.float32]:
        """Return logits [n, classes] for a request's rows."""
        return self._run(self._input(rows))

    def batch_most(self, max_ms: float) -> int:
        """Return the largest batch that was seen to take no longer than this; at least 1."""
        return max([w.batch for w in self.warmth if w.steady_ms <= max_ms], default=1)

    @property
    def batching_pays(self) -> bool:
        """Whether rows that are run together, within the endpoint's bound, take less time each."""
        most = self.batch_most(self.contract.endpoint.max_batch_ms)
        took = {w.batch: w.steady_ms / w.batch for w in self.warmth}
        return most > 1 and took[most] <= PAYS * took[1]

    def warm(self, clock: Callable[[], float] = time.perf_counter) -> list[Warmth]:
        """Run every batch size until its latency settles, on golden rows: real ones.

        Raises:
            NotServable: One still got quicker after ``MOST_ROUNDS`` calls, or gives other answers
                than the recorded ones: a graph may be right for a row alone and wrong for many.
        """
        self.warmth = [self._warm(n, clock) for n in batches(self.contract.rows)]
        return self.warmth

    def _warm(self, n: int, clock: Callable[[], float]) -> Warmth:
        rows_n = np.arange(n) % len(self._answers_nk)
        columns = taken(self._golden, rows_n)
        times_ms: list[float] = []
        while not settled(times_ms):
            if len(times_ms) == MOST_ROUNDS:
                raise NotServable(f"batches of {n} still got quicker after {MOST_ROUNDS} calls.")
            begun = clock()
            logits_nk = self.infer(columns)
            times_ms.append((clock() - begun) * 1000)
            self._check(rows_n, logits_nk)
        steady = float(np.median(times_ms[-WINDOW:]))
        return Warmth(batch=n, first_ms=times_ms[0], steady_ms=steady, rounds=len(times_ms))

    def check_golden(self) -> int:
        """Answer the golden requests, each alone, and return how many there are.

        Raises:
            NotServable: An answer differs from the recorded one.
        """
        count = len(self._answers_nk)
        for number in range(count):
            row = np.array([number])
            self._check(row, self.infer(taken(self._golden, row)))
        return count

    def _check(self, rows_n: NDArray[np.int64], logits_nk: NDArray[np.float32]) -> None:
        """Hold a batch of golden rows against what is recorded of them.

        Raises:
            NotServable: The answer to one differs.
        """
        apart_n = np.abs(logits_nk - self._answers_nk[rows_n]).max(axis=1)
        wrong_n = np.flatnonzero(~(apart_n <= self._tolerance))
        if len(wrong_n):
            at = int(wrong_n[0])
            raise NotServable(
                f"golden request {rows_n[at] + 1} of {len(self._answers_nk)}, in a batch of "
                f"{len(rows_n)}, was answered otherwise than recorded: {apart_n[at]:.4g} apart, "
                f"{self._tolerance:g} allowed."
            )


@dataclass(frozen=True, kw_only=True)
class _Golden:
    """Rows whose answers by one runtime are known."""

    instances: list[Instance]
    answers_nk: NDArray[np.float64]
    tolerance: float


def _golden(bundle: Bundle, runtime: str) -> _Golden:
    """Return what one runtime must answer; a package of before there was a choice knows one.

    Raises:
        CannotRun: The package has no model for it.
        NotServable: There are no rows.
    """
    held: dict[str, Any] = bundle.json("golden.json")
    requests = held["requests"]
    if not requests:
        raise NotServable("the package has no golden requests; nothing shows that it is right.")
    answers: dict[str, Any] = {
        DEFAULT: {"tolerance": held["tolerance"], "logits": [r["logits"] for r in requests]},
        **held.get("runtimes", {}),
    }
    if runtime not in answers:
        raise CannotRun(
            f"the package has no model for runtime {runtime}; it has one for "
            f"{', '.join(answers)}: serve with --runtime {DEFAULT}, or register the model again."
        )
    return _Golden(
        instances=[request["instance"] for request in requests],
        answers_nk=np.array(answers[runtime]["logits"], np.float64),
        tolerance=float(answers[runtime]["tolerance"]),
    )


def layout_of(bundle: Bundle) -> Layout | None:
    """Return where a package's features are looked up, None where they are not."""
    if LAYOUT not in bundle.manifest["files"]:
        return None
    from penstock.online.layout import Layout  # noqa: PLC0415 - only where features are looked up

    held: dict[str, Any] = bundle.json(LAYOUT)
    return Layout.from_dict(held)


def settled(times_ms: Sequence[float]) -> bool:
    """Return whether calls, from the first, no longer get quicker.

    The last ``WINDOW`` are about as quick as each other; on a machine whose calls never are, they
    are at least about as slow as those before them, after ``ROUNDS``.

    >>> settled([9, 1, 1, 1, 1, 1]), settled([9, 1, 1, 1, 1])
    (True, False)
    """
    recent = times_ms[-WINDOW:]
    if len(times_ms) > WINDOW and max(recent) <= SETTLED * min(recent):
        return True
    before = times_ms[-2 * WINDOW : -WINDOW]
    return len(times_ms) >= ROUNDS and median(before) <= SETTLED * median(recent)


def batches(rows: int) -> list[int]:
    """Return the batch sizes to warm: doubling, up to the most rows of a request.

    >>> batches(64)
    [1, 2, 4, 8, 16, 32, 64]
    >>> batches(20)
    [1, 2, 4, 8, 16, 20]
    """
    return [*(2**i for i in range((rows - 1).bit_length())), rows]
