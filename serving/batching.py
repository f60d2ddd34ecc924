"""Batching: requests that wait at the same moment are run together; none waits for company.

There is no timer. A request runs at the end of the loop's turn in which it was read, together with
all that were read in the same turn: alone under low load, in growing batches under high load.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from serving.reading import Asked

TOO_OLD = "the request waited longer than it may take; try again"


class Batching:
    """Puts requests into batches, and lets none wait longer than it may."""

    def __init__(
        self,
        run: Callable[[Sequence[Asked]], None],
        *,
        most: int,
        timeout_ms: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take what answers a batch.

        Args:
            run: Answers requests; never raises.
            most: Rows of a batch; 1 runs every request by itself, in a turn of its own, so that
                those who wait are counted and grow old. A request of more rows than this
                is a batch of its own.
            timeout_ms: A request that is older when its turn comes is refused.
            clock: Seconds, by which ``Asked.begun_s`` was read too.
        """
        self._run, self._most, self._clock = run, most, clock
        self._timeout_s = timeout_ms / 1000
        self._waiting: deque[tuple[Asked, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    async def answer(self, asked: Asked) -> None:
        """Return when the request was answered or refused."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append((asked, done))
        if len(self._waiting) == 1:
            loop.call_soon(self._next)
        await done

    def _next(self) -> None:
        """Run one batch; the answers go out, and others come in, before the next."""
        batch = [self._waiting.popleft()]
        rows = batch[0][0].rows
        while self._waiting and rows + self._waiting[0][0].rows <= self._most:
            batch.append(self._waiting.popleft())
            rows += batch[-1][0].rows
        try:
            self._turn([asked for asked, _ in batch])
        finally:
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)

    def _turn(self, batch: list[Asked]) -> None:
        now_s = self._clock()
        late = now_s - self._timeout_s
        for asked in batch:
            if asked.begun_s < late:
                asked.refusal = (503, TOO_OLD)
        young = [asked for asked in batch if asked.refusal is None]
        if young:
            self._run(young)
