"""Which request is due when, which connection carries it, and how long it took: no I/O, no clock.

Latency counts from the moment a request was due. A generator that waits for one answer before it
sends the next would ask a stalled server nothing, and so see nothing of the stall.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NOT_ANSWERED = 0
"""Status of a request that got no answer."""

NEVER = float("inf")


def fixed(per_s: float, seconds: float) -> Floats:
    """Return when requests are due that come evenly, in seconds from the beginning."""
    return np.arange(int(per_s * seconds)) / per_s


def poisson(per_s: float, seconds: float, rng: np.random.Generator) -> Floats:
    """Return when requests are due that come independently of each other: gaps are exponential."""
    drawn = rng.exponential(1 / per_s, int(per_s * seconds * 1.2) + 100).cumsum()
    return drawn[drawn < seconds]


class Book:
    """The requests of one run. A connection carries one at a time; what is due meanwhile waits."""

    def __init__(self, due_s: Iterable[float] | None, connections: int) -> None:
        """Begin with every connection free.

        Args:
            due_s: When each request is due, ascending; None for a closed loop, in which one is due
                as soon as a connection is free.
        """
        self._closed = due_s is None
        self._waiting: Iterator[float] = iter(()) if due_s is None else iter(due_s)
        self._free = list(range(connections))
        self._freed_s = 0.0
        self._carries = [-1] * connections
        self._next_s = 0.0 if self._closed else next(self._waiting, NEVER)
        self.due_s, self.late_s = array("d"), array("d")
        self.took_s, self.status = array("d"), array("i")

    @property
    def next_s(self) -> float:
        """When the next request can be sent; never, while no connection is free."""
        return self._next_s if self._free else NEVER

    @property
    def finished(self) -> bool:
        """Whether every request was sent and answered."""
        return self._next_s == NEVER and len(self._free) == len(self._carries)

    def carried(self, connection: int) -> bool:
        """Return whether a connection carries a request now."""
        return self._carries[connection] >= 0

    def sendable(self, now_s: float) -> Iterator[tuple[int, int]]:
        """Take every request that is due and has a connection: connection and request number."""
        while self._free and self._next_s <= now_s:
            connection, number = self._free.pop(), len(self.due_s)
            due_s = now_s if self._closed else self._next_s
            self.due_s.append(due_s)
            self.late_s.append(now_s - max(due_s, self._freed_s))
            self.took_s.append(NEVER)
            self.status.append(NOT_ANSWERED)
            self._carries[connection] = number
            self._next_s = now_s if self._closed else next(self._waiting, NEVER)
            yield connection, number

    def ended(self, connection: int, now_s: float, status: int) -> None:
        """Note the answer that a connection brought; its status is 0 where it brought none."""
        number = self._carries[connection]
        if number < 0:
            raise ValueError(f"connection {connection} brought an answer that nobody asked for.")
        self._carries[connection] = -1
        self.took_s[number] = now_s - self.due_s[number]
        self.status[number] = status
        if not self._free:
            self._freed_s = now_s
        self._free.append(connection)

    def stop(self) -> None:
        """Send nothing more; in a closed loop, which would never end."""
        self._next_s = NEVER

    def close(self, now_s: float) -> None:
        """Count what is still unanswered, or was due and never sent, as having taken until now."""
        for number in self._carries:
            if number >= 0:
                self.took_s[number] = now_s - self.due_s[number]
        while self._next_s <= now_s and not self._closed:
            self.due_s.append(self._next_s)
            self.late_s.append(0.0)
            self.took_s.append(now_s - self._next_s)
            self.status.append(NOT_ANSWERED)
            self._next_s = next(self._waiting, NEVER)
