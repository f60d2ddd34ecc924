"""Turn all users to another slot: one table, read back, verified, timed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.release import EVERYWHERE
from penstock.rollout.asking import NoAnswer, ask
from penstock.rollout.plane import Plane
from penstock.rollout.ports import Stale, TableError
from penstock.rollout.routing import MARKET
from penstock.rollout.table import TrafficTable
from penstock.stage import Refused

IN_FORCE_S = 5.0
"""A table that is not in force by then is not going to be; it takes milliseconds."""

EVERY_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Turned:
    """What became of a table."""

    milliseconds: float
    """From the decision until Envoy said that it uses it."""

    wrong: str = ""
    """What is wrong with it in force; empty where nothing is."""


def turn(plane: Plane, table: TrafficTable) -> Turned:
    """Put a table in force, read it back and verify it through the edge.

    Raises:
        Stale: Somebody else wrote meanwhile; nothing was changed.
    """
    begun = time.monotonic()
    try:
        plane.apply(table)
        plane.wait_applied(table, timeout_s=IN_FORCE_S)
    except Stale:
        raise
    except TableError as e:
        return Turned(milliseconds=_since(begun), wrong=str(e))
    took = _since(begun)
    return Turned(milliseconds=took, wrong=plane.verify(table))


def refuse_another(plane: Plane, workload: str) -> None:
    """See that the servers serve this workload, before traffic of theirs is turned for it.

    Raises:
        Refused: They serve another one.
        PlaneError: None run.
    """
    serving = plane.status()["model"]
    if serving != workload:
        raise Refused(f"the servers serve {serving}, not {workload}; nothing was turned.")


def _since(begun: float) -> float:
    return round((time.monotonic() - begun) * 1000, 1)


class Asking:
    """Asks the edge as many users, one after the other, while the block runs.

    It asks whether the model is ready, which goes the way of every request, reaches the server and
    is in no log.
    """

    def __init__(self, folder: Path, model: str, market: str) -> None:
        """Ask nothing yet."""
        self._folder, self._path = folder, f"/v2/models/{model}/ready"
        self._told = {} if market == EVERYWHERE else {MARKET: market}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_all, daemon=True)
        self.answers: list[tuple[float, int, str]] = []
        """Of each request: when it was sent (monotonic seconds), its status, who answered."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _ask_all(self) -> None:
        number = 0
        while not self._over.wait(EVERY_S):
            number += 1
            begun, told = time.monotonic(), {"x-user-id": f"penstock-drill-{number}", **self._told}
            try:
                status, _, headers = ask(self._folder, self._path, headers=told)
                self.answers.append((begun, status, headers.get("x-penstock-slot", "")))
            except NoAnswer:
                self.answers.append((begun, 0, ""))

    @property
    def failures(self) -> int:
        """How many were not answered well."""
        return sum(status != 200 for _, status, _ in self.answers)
