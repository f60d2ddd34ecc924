"""Rounds: one workload after the other would wait for each other, so each has a thread of its own.

What fails in one of them is counted, said, and tried again later and later; the others go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from penstock.ledger import LedgerError
from penstock.rollout.journal import Told
from penstock.rollout.ports import TableError
from penstock.rollout.state import State
from penstock.stage import Refused

EVERY_S = 2.0
LONGEST_S = 60.0
"""Between two rounds of a workload that fails again and again."""


PASSING = (TableError, LedgerError, Refused, OSError, LookupError)
"""What may be otherwise the next time, and is no reason to read all evidence anew."""


class Ending(BaseException):
    """This process is to end: whatever waits is left where it is, to be taken up again."""


class Place(Protocol):
    """What carries a workload; :class:`penstock.rollout.adapters.workplace.Workplace` does."""

    @property
    def over(self) -> bool:
        """Whether it is better made anew for the next round."""
        ...

    def round(self) -> list[State]:
        """Look once at everything."""
        ...


class Counts(Protocol):
    """What is told of rounds; :class:`penstock.rollout.adapters.probes.Numbers` keeps it."""

    def round(self, workload: str, seconds: float, states: Sequence[State]) -> None:
        """Count a round that was done."""
        ...

    def error(self, workload: str) -> None:
        """Count one that was not."""
        ...


@dataclass(kw_only=True)
class Rounds:
    """The rounds of one workload, whoever leads."""

    workload: str
    open: Callable[[], AbstractContextManager[Place]]
    """Makes what carries the workload, anew each time that this replica begins to lead."""

    leads: Callable[[], bool]
    counts: Counts
    emit: Callable[[Told], None]
    every_s: float = EVERY_S
    monotonic: Callable[[], float] = time.monotonic
    problem: str = ""
    """Why the last round was not done; empty where it was, or was not this replica's."""

    wake: threading.Event = field(default_factory=threading.Event)
    """Set where the next round should not wait."""

    turned_s: float = field(default_factory=time.monotonic)
    """When the last turn ended, of who waits too."""

    _held: ExitStack = field(default_factory=ExitStack)
    _place: Place | None = None
    _failed: int = 0

    def turn(self) -> None:
        """Do one round, if this replica leads; nothing but :class:`Ending` comes out of it."""
        begun_s = self.monotonic()
        try:
            self._turn(begun_s)
        except Exception as e:  # noqa: BLE001 - one workload's failure is not another's
            self._failed += 1
            self.counts.error(self.workload)
            self._say(f"{type(e).__name__}: {e}")
            if not isinstance(e, PASSING):
                self.close()
        finally:
            self.turned_s = self.monotonic()

    def _turn(self, begun_s: float) -> None:
        if not self.leads():
            self.problem = ""
            self.close()
            return
        if self._place is None:
            self._place = self._held.enter_context(self.open())
        states = self._place.round()
        self.counts.round(self.workload, self.monotonic() - begun_s, states)
        self._failed, self.problem = 0, ""
        if self._place.over:
            self.close()

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            self.emit({"event": "failed", "workload": self.workload, "text": problem})
        self.problem = problem

    def close(self) -> None:
        """Let go of what carries the workload: whoever leads next makes it anew."""
        self._place = None
        held, self._held = self._held, ExitStack()
        held.close()

    def pause_s(self) -> float:
        """Return how long to wait before the next turn: longer after each failure in a row."""
        return min(self.every_s * 2 ** min(self._failed, 10), max(LONGEST_S, self.every_s))

    def run(self, stop: threading.Event) -> None:
        """Turn until told to stop."""
        try:
            while not stop.is_set():
                self.wake.clear()
                self.turn()
                if not stop.is_set():
                    self.wake.wait(self.pause_s())
        except Ending:
            pass
        finally:
            self.close()


def ending_sleep(stop: threading.Event) -> Callable[[float], None]:
    """Return what waits, and is cut short by the end of this process.

    What waits is between two steps that can each be done again; nothing is lost by going.
    """

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise Ending

    return sleep
