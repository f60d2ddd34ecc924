"""The supervisor's record: what began, ended and changed, with its time, one line each."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

UNSAID = 1000
"""Lines kept in memory while the disk takes none; then the oldest go."""


def unheard(_words: str) -> None:
    """Take words that nobody keeps."""


class Record:
    """Lines for standard error, which is the supervisor's log; a full disk only delays them."""

    def __init__(
        self, *, descriptor: int = 2, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Write to a descriptor: a file object would keep what it could not write, without end."""
        self._descriptor, self._clock = descriptor, clock
        self._unsaid: deque[bytes] = deque(maxlen=UNSAID)
        self._failing: set[str] = set()

    def say(self, words: str) -> None:
        """Write a line, or keep it until :meth:`flush` can."""
        at = self._clock().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        self._unsaid.append(f"{at}Z {' '.join(words.split())}\n".encode())
        self.flush()

    def flush(self) -> None:
        """Write what could not be written."""
        with suppress(OSError):
            while self._unsaid:
                line = self._unsaid[0]
                rest = line[os.write(self._descriptor, line) :]
                if not rest:
                    self._unsaid.popleft()
                else:
                    self._unsaid[0] = rest

    def attempt(self, what: str, work: Callable[[], object]) -> None:
        """Do a part of a round; whatever goes wrong there is said once, and ends nothing.

        Args:
            what: The sentence that the reason is put to.
        """
        try:
            work()
        except Exception as e:  # noqa: BLE001 - servers without a supervisor are worse than any error
            if what not in self._failing:
                self._failing.add(what)
                self.say(f"{what}: {type(e).__name__}: {e}")
            return
        if what in self._failing:
            self._failing.remove(what)
            self.say(f"over: {what}")
