"""The load generator: one process of its own, which sends prepared HTTP requests and times answers.

    python -m benchmarks.serving.load < job.json

Raw sockets and epoll: a request costs it a third of what it costs the leanest server here.
"""

from __future__ import annotations

import base64
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.serving.book import Book, fixed, poisson
from benchmarks.serving.wires import Wires

CORE = 1
"""Of the generator; servers have the other one."""

GRACE_S = 5.0
"""How long answers are waited for after the last request was due."""

TIMED = 16
"""Of so many answers, one is looked into for what the server says of its parts."""

_SLACK_NS = 1_000


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to send, how often, for how long."""

    port: int
    messages: Sequence[bytes]
    """Whole HTTP requests, sent in turns."""

    connections: int
    seconds: float
    per_s: float | None = None
    """Requests a second, sent whether or not answers come; None for a closed loop."""

    settle_s: float = 0.5
    """What is due before counts in no figure: connections are made, caches fill."""

    evenly: bool = False
    """Instead of independently of each other, as people come."""

    seed: int = 1
    core: int | None = CORE

    def to_json(self) -> str:
        """Return it for another process."""
        held = [base64.b64encode(m).decode() for m in self.messages]
        return json.dumps({**asdict(self), "messages": held})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what :meth:`to_json` wrote."""
        held = json.loads(text)
        return cls(**{**held, "messages": [base64.b64decode(m) for m in held["messages"]]})

    def book(self) -> Book:
        """Return its requests, all scheduled beforehand."""
        if self.per_s is None:
            return Book(None, self.connections)
        if self.evenly:
            return Book(fixed(self.per_s, self.seconds).tolist(), self.connections)
        rng = np.random.default_rng(self.seed)
        return Book(poisson(self.per_s, self.seconds, rng).tolist(), self.connections)


class Run:
    """One run of a job."""

    def __init__(self, job: Job, clock: Callable[[], float] = time.perf_counter) -> None:
        """Connect; nothing is sent yet."""
        self._job, self._clock = job, clock
        self.book = job.book()
        self._answers, self.begun = 0, 0.0
        self.parts_ms: dict[str, list[float]] = {}
        self._wires = Wires(job.port, job.connections, self._ended)

    def _ended(self, connection: int, status: int, head: bytes) -> None:
        if self.book.carried(connection):
            self.book.ended(connection, self._clock() - self.begun, status)
        self._answers += 1
        if self._answers % TIMED == 0:
            for name, ms in server_timing(head).items():
                self.parts_ms.setdefault(name, []).append(ms)

    def drive(self) -> float:
        """Send and receive until all is answered; return the seconds from begin to end."""
        job, book, messages = self._job, self.book, self._job.messages
        last_s = job.seconds + GRACE_S
        self.begun = self._clock()
        now = 0.0
        while not book.finished and now < last_s:
            for connection, number in book.sendable(now):
                self._wires.send(connection, messages[number % len(messages)])
            self._wires.receive(
                min(book.next_s, job.seconds if now < job.seconds else last_s) - now
            )
            now = self._clock() - self.begun
            if job.per_s is None and now >= job.seconds:
                book.stop()
        book.close(now)
        self._wires.close()
        return now


def server_timing(head: bytes) -> dict[str, float]:
    r"""Return the milliseconds that a server says its parts took.

    >>> server_timing(b"HTTP/1.1 200 OK\r\nserver-timing: parse;dur=0.02, infer;dur=0.1")
    {'parse': 0.02, 'infer': 0.1}
    """
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"server-timing":
            parts = [p.strip().partition(";dur=") for p in value.decode().split(",")]
            return {part: float(ms) for part, _, ms in parts if ms}
    return {}


def summary(run: Run, job: Job, wall_s: float, cpu_s: float) -> dict[str, Any]:
    """Return what a run came to, as plain values."""
    due_s = np.array(run.book.due_s)
    if not len(due_s):
        raise RuntimeError(f"no request was due in {job.seconds} s; ask for more of them.")
    counted = due_s >= job.settle_s
    if not counted.any():
        # A server that hung from the beginning: that is its figure.
        counted[:] = True
    status, took_ms = np.array(run.book.status)[counted], np.array(run.book.took_s)[counted] * 1000
    span_s = max(wall_s, job.seconds) - job.settle_s
    held: dict[str, Any] = {
        "requests": len(due_s),
        "counted": len(status),
        "statuses": {str(s): n for s, n in sorted(Counter(status.tolist()).items())},
        "failed": int((status != 200).sum()),
        "per_s": int((status == 200).sum()) / span_s,
        "client_us": cpu_s * 1e6 / len(due_s),
        "parts_ms": {n: float(np.median(v)) for n, v in run.parts_ms.items()},
        "first_ms": run.book.took_s[0] * 1000,
        "max_ms": float(took_ms.max()),
        "late_p99_ms": float(np.quantile(np.array(run.book.late_s)[counted] * 1000, 0.99)),
    }
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)):
        held[f"{name}_ms"] = float(np.quantile(took_ms, share, method="higher"))
    held["p99_ms_by_tenth"] = [
        float(np.quantile(part, 0.99, method="higher"))
        for part in np.array_split(took_ms, min(10, len(took_ms)))
    ]
    return held


def drive(job: Job) -> dict[str, Any]:
    """Run a job in a process of its own and return its summary.

    Raises:
        RuntimeError: It failed; the text is its own.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.load"],
        input=job.to_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    """Run the job that standard input holds."""
    job = Job.from_json(sys.stdin.read())
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    # Without it the kernel wakes a sleeper up to 50 microseconds late.
    ctypes.CDLL(None).prctl(29, _SLACK_NS)
    run = Run(job)
    gc.disable()
    before = time.process_time()
    wall_s = run.drive()
    print(json.dumps(summary(run, job, wall_s, time.process_time() - before)))


if __name__ == "__main__":
    main()
