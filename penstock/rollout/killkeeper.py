"""Keeps the kill switch heard over HTTP, where a token was made: by a process that outlives us."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from penstock.rollout.killserver import NOTE
from penstock.rollout.killtokens import tokens_of
from penstock.rollout.record import unheard
from penstock.rollout.rotation import cut
from penstock.rollout.watching import BackOff, end_leftover, left_over

LOOK_S = 0.5
LONGEST_LOG = 1 << 20


class KillKeeper:
    """Starts the process, and again when it ended; ends it when the servers are stopped."""

    def __init__(
        self,
        home: Path,
        *,
        say: Callable[[str], None] = unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet."""
        self._home, self._say, self._clock = home, say, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._again = BackOff(clock=clock)
        self._looked_at = -LOOK_S

    @property
    def _note(self) -> Path:
        return self._home / "serving" / NOTE

    def watch(self) -> None:
        """Look at it now and then."""
        if self._clock() - self._looked_at < LOOK_S:
            return
        self._looked_at = self._clock()
        if self._process is not None and self._process.poll() is not None:
            self._say(f"the kill server ended with {self._process.returncode}; see its log")
            self._process = None
            self._again.ended()
        if self._process is None and self._again.due and tokens_of(self._home).exists():
            self._start()

    def _start(self) -> None:
        log = self._note.with_name("server.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        # Of a supervisor that died: it holds the port, and hears as well as ours would.
        if left_over(self._note) is not None:
            return
        cut(log, longest=LONGEST_LOG)
        self._again.begun()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock.rollout.killserver", "--home", str(self._home)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._say(f"the kill server starts, process {self._process.pid}")

    def stop(self) -> None:
        """End it, whoever has started it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        end_leftover(self._note)
