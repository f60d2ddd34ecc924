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
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.serving.book import NOT_ANSWERED, Book, fixed, poisson

CORE = 1
"""Of the generator; servers have the other one."""

GRACE_S = 5.0
"""How long answers are waited for after the last request was due."""

TIMED = 16
"""Of so many answers, one is looked into for what the server says of its parts."""

_HOST = "127.0.0.1"
_SLACK_NS = 1_000
_LAST_CHUNK = b"\r\n0\r\n\r\n"


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


class Wires:
    """The connections of one run."""

    def __init__(
        self, port: int, connections: int, ended: Callable[[int, int, bytes], None]
    ) -> None:
        """Connect.

        Args:
            ended: Told of each answer: its connection, its status, its head.
        """
        self._port, self._ended = port, ended
        self._epoll = select.epoll()
        self._open: list[socket.socket] = []
        self._held: list[bytes] = [b""] * connections
        self._of: dict[int, int] = {}
        for connection in range(connections):
            self._open.append(self._connected(connection))

    def _connected(self, connection: int) -> socket.socket:
        made = socket.create_connection((_HOST, self._port), timeout=10)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        self._of[made.fileno()] = connection
        self._epoll.register(made, select.EPOLLIN)
        return made

    def send(self, connection: int, message: bytes) -> None:
        """Send a whole request.

        Raises:
            RuntimeError: It is larger than the socket takes at once.
        """
        try:
            sent = self._open[connection].send(message)
        except ConnectionError:
            self._lost(connection)
            return
        if sent != len(message):
            raise RuntimeError(f"of {len(message)} bytes {sent} were sent; send smaller requests.")

    def receive(self, wait_s: float) -> None:
        """Wait until anything comes, then take all that came."""
        if wait_s > 0:
            # Its own wait counts in milliseconds, which would send requests in bursts.
            select.select([self._epoll], [], [], min(wait_s, 1.0))
        for number, _ in self._epoll.poll(0):
            connection = self._of[number]
            try:
                data = self._open[connection].recv(1 << 18)
            except ConnectionError:
                data = b""
            if data:
                self._take(connection, self._held[connection] + data)
            else:
                self._lost(connection)

    def _take(self, connection: int, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0 or not _whole(data, end):
            self._held[connection] = data
            return
        self._held[connection] = b""
        self._ended(connection, int(data[9:12]), data[:end])

    def _lost(self, connection: int) -> None:
        """Connect again in place of a connection that the server closed."""
        old = self._open[connection]
        self._epoll.unregister(old)
        del self._of[old.fileno()]
        old.close()
        self._held[connection] = b""
        self._open[connection] = self._connected(connection)
        self._ended(connection, NOT_ANSWERED, b"")

    def close(self) -> None:
        """Close every connection."""
        for one in self._open:
            one.close()
        self._epoll.close()


def _whole(data: bytes, end: int) -> bool:
    """Return whether an answer is complete whose head ends at a place.

    Raises:
        RuntimeError: It does not say how long it is.
    """
    lower = data[:end].lower()
    at = lower.find(b"\r\ncontent-length:")
    if at >= 0:
        last = lower.find(b"\r\n", at + 2)
        return len(data) >= end + 4 + int(lower[at + 17 : last if last >= 0 else None])
    if b"\r\ntransfer-encoding: chunked" not in lower:
        raise RuntimeError(f"an answer of no stated length: {data[:200]!r}")
    return data.endswith(_LAST_CHUNK)


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
    counted = due_s >= job.settle_s
    status, took_ms = np.array(run.book.status)[counted], np.array(run.book.took_s)[counted] * 1000
    if not len(status):
        raise RuntimeError(f"no request was due between {job.settle_s} and {job.seconds} s.")
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
