"""Time that does not go back: the wall clock once, and a monotonic source from then on."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def _wall() -> datetime:
    return datetime.now(UTC)


class SteadyClock:
    """Counts on from the later of the wall clock and what the ledger knows already.

    A wall clock that is set back, or was when this process began, never shortens a soak: time only
    goes on from the newest entry. One that is set forward while this process runs is not seen.
    """

    def __init__(
        self,
        anchor: datetime | None = None,
        *,
        wall: Callable[[], datetime] = _wall,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin to count.

        Args:
            anchor: Time of the newest entry in the ledger, None of an empty one.
            monotonic: Seconds that only grow.
        """
        now = wall()
        self._from = now if anchor is None else max(now, anchor)
        self._wall, self._monotonic, self._sleep = wall, monotonic, sleep
        self._begun_s = monotonic()

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self._from + timedelta(seconds=self._monotonic() - self._begun_s)

    def ahead_s(self) -> float:
        """Return how far this time is ahead of the wall clock, by which records are dated."""
        return (self.now() - self._wall()).total_seconds()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._sleep(seconds)
