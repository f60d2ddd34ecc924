"""The keeper: a child that turns finished journals into Parquet, after everything else's turn.

Its work needs the processor, so it is not done in the server, whose threads would take the
interpreter from the one that answers, but by a process with the lowest priority.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from penstock.predictions.place import ADDRESS_VARIABLE

EVERY_S = 3600.0
"""It is also started when nothing was finished: old files expire, copies are tried again."""

AGAIN_S = 60.0
"""After a disk or another place refused."""

_RUN = (
    "import os, sys; os.nice(19); "
    "from penstock.predictions.keep import main; sys.exit(main(sys.argv[1:]))"
)


class Keeper:
    """Starts the child when there is something to do, one at a time."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Look after a log's folder."""
        self._folder, self._clock = folder, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._due_at = 0.0

    def due(self) -> None:
        """Say that a journal was finished."""
        self._due_at = 0.0

    def look(self) -> None:
        """Start it if it is its time; never waits."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            if code != 0:
                self._due_at = min(self._due_at, self._clock() + AGAIN_S)
        if self._clock() >= self._due_at and self._folder.exists():
            self._start()

    @property
    def running(self) -> bool:
        """Whether the child is at work."""
        return self._process is not None and self._process.poll() is None

    def close(self, wait_s: float) -> None:
        """End the child; first let it do all there is, where copies are wanted: this disk may go.

        Elsewhere what is left is done at the next start.
        """
        end = self._clock() + wait_s
        if os.environ.get(ADDRESS_VARIABLE) and self._folder.exists() and self._over(end):
            self._start()
            self._over(end)
        if self._process is not None:
            self._process.kill()  # it may be killed at any point
            self._process.wait()

    def _over(self, end: float) -> bool:
        """Wait for the child; return whether it ended in time."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, end - self._clock()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def _start(self) -> None:
        self._due_at = self._clock() + EVERY_S
        command = [sys.executable, "-c", _RUN, str(self._folder)]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        except OSError:
            self._due_at = self._clock() + AGAIN_S  # no process to be had now; journals wait
