"""Moving: many files at a time, told as one number of bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 8
"""Files moved together: a store answers each only after a while."""

CHUNK = 8 << 20
"""Bytes of one request to read, and of memory that one file takes meanwhile."""


@dataclass(frozen=True)
class Moved:
    """How far a transfer is."""

    done: int
    """Bytes that arrived, those that were there before too."""

    total: int


Heard = Callable[[Moved], None]
"""Is told how far a transfer is; by one thread at a time, and often."""


class StoppedError(RuntimeError):
    """Another file of the same transfer failed, so this one is not finished."""


@dataclass
class Meter:
    """Counts the bytes of several threads for who listens."""

    total: int
    heard: Heard | None = None
    _done: int = 0
    _stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int) -> None:
        """Count bytes more, or less: of a file that is begun anew.

        Raises:
            StoppedError: The transfer was stopped.
        """
        with self._lock:
            self._done += count
            if self._stopped:
                raise StoppedError
            if self.heard is not None:
                self.heard(Moved(self._done, self.total))

    def stop(self) -> None:
        """Let every thread end at its next bytes."""
        self._stopped = True


def together(
    act: Callable[[T], object], things: Iterable[T], *, stop: Callable[[], None] | None = None
) -> None:
    """Do something with each of many things, several at a time; the first error ends it.

    Args:
        stop: Is called at that error; without it, what was begun is finished first.
    """
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="storage") as pool:
        begun = [pool.submit(act, thing) for thing in things]
        try:
            for one in as_completed(begun):
                one.result()
        except BaseException:
            if stop is not None:
                stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
