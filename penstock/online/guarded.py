"""Guarded: a store that is asked only while it answers, so that a dead one stops nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from penstock.online.layout import OnlineError, StoreOut
from penstock.online.store import Key, Store, Stored

RETRY_S = 0.5
"""Between two tries, of a store that does not answer, whether it does again."""

SLOW_S = 0.01
"""Longest mean of reads. Whoever reads in an event loop keeps everybody waiting for so long."""

WEIGHT, MOST = 0.2, 4.0
"""Of the newest read in that mean, and how often ``SLOW_S`` it counts for at most.

A machine that stood still during one read takes no store out; the second slow read in a row does.
"""


class Guarded:
    """A store whose outage costs whoever reads from it one exchange, however long it lasts.

    The exchange that fails takes the store out, and so does the one by which the mean is too slow.
    From then on every read fails at once, without a wait, until a thread of its own has found that
    the store answers again, and fast enough.
    """

    def __init__(
        self,
        opening: Callable[[], Store],
        *,
        retry_s: float = RETRY_S,
        slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Open the store; one that does not answer yet is tried again later.

        Args:
            opening: Opens it, as :func:`penstock.online.opened` does.
            slow_s: Longest mean of reads.
            clock: Seconds that never go back.

        Raises:
            OnlineError: It answers, and is not the store that is wanted.
        """
        self._opening, self._retry_s = opening, retry_s
        self._slow_s, self._clock, self._mean_s = slow_s, clock, 0.0
        self._store: Store | None = None
        self._out: StoreOut | None = None
        self._ended = threading.Event()
        self._waiting: threading.Thread | None = None
        self.exchanges = 0
        """Reads that the store was asked for; those that failed at once are not among them."""

        self.outages = 0
        try:
            self._store = opening()
        except StoreOut as e:
            self._take_out(e)

    @property
    def out(self) -> bool:
        """Whether it is not asked now."""
        return self._out is not None

    def read(self, keys: Sequence[Key]) -> list[Stored]:
        """Return what is stored of each key.

        Raises:
            StoreOut: The store did not answer, now or when it was asked last.
            OnlineError: As the store's own.
        """
        if self._out is not None or self._store is None:
            raise StoreOut(f"not asked until it answers again: {self._out}") from self._out
        self.exchanges += 1
        begun_s = self._clock()
        try:
            found = self._store.read(keys)
        except StoreOut as e:
            self._take_out(e)
            raise
        self._note(self._clock() - begun_s)
        return found

    def check(self) -> None:
        """Return if the store is asked now.

        Raises:
            StoreOut: It is not.
        """
        if self._out is not None:
            raise StoreOut(str(self._out)) from self._out

    def close(self) -> None:
        """Let go of the store; nobody tries it any more."""
        self._ended.set()
        if self._waiting is not None:
            self._waiting.join()
        if self._store is not None:
            self._store.close()

    def _note(self, took_s: float) -> None:
        self._mean_s += WEIGHT * (min(took_s, MOST * self._slow_s) - self._mean_s)
        if self._mean_s <= self._slow_s:
            return
        mean_ms, most_ms = self._mean_s * 1000, self._slow_s * 1000
        # When it is back, the first read that is slow again takes it out.
        self._mean_s = self._slow_s
        self._take_out(StoreOut(f"reads take {mean_ms:.0f} ms, {most_ms:.0f} ms are allowed"))

    def _take_out(self, why: StoreOut) -> None:
        self._out = why
        self.outages += 1
        self._waiting = threading.Thread(target=self._wait, name="online-store", daemon=True)
        self._waiting.start()

    def _wait(self) -> None:
        """Try until the store answers. Only this thread touches the store meanwhile."""
        while not self._ended.wait(self._retry_s):
            begun_s = self._clock()
            try:
                if self._store is None:
                    self._store = self._opening()
                else:
                    self._store.check()
            except OnlineError:
                continue
            if self._clock() - begun_s <= self._slow_s:
                self._out = None
                return
