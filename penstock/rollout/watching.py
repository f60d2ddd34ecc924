"""Watching processes: does it answer, when to start it again, what a dead supervisor left."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.processes import die_with_parent

HANG_S = 5.0
"""A process that lives but has answered nothing for this long is ended and started again."""

EVERY_S = 0.5
LATE_S = 1.0
"""A watcher that looks seldom counts no more than this of the time since it looked last."""

GONE_S = 10.0
"""Longest wait for a killed process: one stuck in the kernel must not stop whoever ends it."""

BACK_OFF_S = (0.2, 5.0)
"""Wait before the first restart, and the longest wait; it doubles from crash to crash."""

STEADY_S = 30.0
"""A process that ran this long has recovered: its next crash is a first one again."""

LOOPING = 3
"""Crashes in a row from which on it is called a crash loop."""


@dataclass(kw_only=True)
class BackOff:
    """When a process that ended is started again."""

    clock: Callable[[], float] = time.monotonic
    restarts: int = 0
    in_a_row: int = 0
    again_at: float = 0.0
    _begun_at: float = 0.0

    def begun(self) -> None:
        """Note a start."""
        self._begun_at = self.clock()

    def ended(self) -> None:
        """Note a crash and set when to start again."""
        now = self.clock()
        self.in_a_row = 1 if now - self._begun_at >= STEADY_S else self.in_a_row + 1
        first, longest = BACK_OFF_S
        self.again_at = now + min(longest, first * 2 ** min(self.in_a_row - 1, 30))
        self.restarts += 1

    @property
    def wait_s(self) -> float:
        """Seconds until then."""
        return max(0.0, self.again_at - self.clock())

    @property
    def due(self) -> bool:
        """Whether the wait is over."""
        return self.clock() >= self.again_at

    @property
    def looping(self) -> bool:
        """Whether it crashes again and again."""
        return self.in_a_row >= LOOPING and self.clock() - self._begun_at < STEADY_S


@dataclass(kw_only=True)
class Pulse:
    """Asks a loopback server again and again, and never waits for its answer.

    Any answer is a sign of life, also one that says *not ready*.
    """

    port: int
    path: str
    clock: Callable[[], float] = time.monotonic
    every_s: float = EVERY_S
    status: int | None = None
    """What it answered last."""

    _alive_at: float = field(init=False)
    _looked_at: float = field(init=False)
    _asked_at: float = 0.0
    _asking: socket.socket | None = None
    _sent: bool = False

    def __post_init__(self) -> None:
        self._alive_at = self._looked_at = self.clock()

    @property
    def silent_s(self) -> float:
        """Seconds since it last answered, or since the first question."""
        return self.clock() - self._alive_at

    def feel(self) -> None:
        """Ask if it is time; take an answer if there is one."""
        now = self.clock()
        # What we slept longer, nobody can have heard; the rest of a slow round was silence.
        self._alive_at += max(0.0, now - self._looked_at - LATE_S)
        self._looked_at = now
        if self._asking is not None:
            self._listen(now)
            if now - self._asked_at > HANG_S:
                self.close()
        elif now - self._asked_at >= self.every_s:
            self._ask(now)

    def _ask(self, now: float) -> None:
        self._asked_at, self._sent = now, False
        self._asking = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._asking.setblocking(False)
        self._asking.connect_ex(("127.0.0.1", self.port))

    def _listen(self, now: float) -> None:
        if self._asking is None:
            return
        try:
            if not self._sent:
                request = f"GET {self.path} HTTP/1.1\r\nhost: penstock\r\nconnection: close\r\n\r\n"
                self._asking.send(request.encode())
                self._sent = True
                return
            begins = self._asking.recv(16)
            self.close()
            if begins.startswith(b"HTTP/1."):
                self._alive_at, self.status = now, int(begins[9:12] or 0)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self.close()

    def close(self) -> None:
        """Ask no more for now."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None


def begin(note: Path, number: signal.Signals) -> Callable[[], None]:
    """Return what a child does before it becomes its program: die with us, leave its number.

    To be called in the parent; no child is ever unknown to whoever comes after us.
    """
    parent = os.getpid()

    def child() -> None:
        die_with_parent(number)
        if os.getppid() != parent:
            os._exit(1)
        # Without a note, on a full disk, it is still ours to watch.
        with suppress(OSError):
            note.write_text(json.dumps(this_process()), encoding="utf-8")

    return child


def left_over(note: Path) -> int | None:
    """Return the number of the process that a note tells of, if it still runs."""
    try:
        left = json.loads(note.read_text(encoding="utf-8"))
        return left["pid"] if alive(left["pid"], left["start"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_leftover(note: Path, *, wait_s: float = GONE_S) -> None:
    """End the process that a note tells of, with all it started, if it still runs.

    Raises:
        OSError: The kernel does not let it end.
    """
    end = time.monotonic() + wait_s
    while (pid := left_over(note)) is not None:
        if time.monotonic() > end:
            raise OSError(f"process {pid} of an earlier start was killed and does not end")
        end_group(pid)
        time.sleep(0.01)


def end_group(leader: int) -> None:
    """Kill a process and all it started; a stopped one too."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def alive(pid: int, started: str) -> bool:
    """Return whether a process still runs, and is not another that got its number."""
    return started_at(pid) == started


def started_at(pid: int) -> str:
    """Return the kernel's start time of a process, or empty when there is none.

    A process that has ended and only waits to be collected counts as ended.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def this_process() -> dict[str, Any]:
    """Return this process's number and start time."""
    return {"pid": os.getpid(), "start": started_at(os.getpid())}
