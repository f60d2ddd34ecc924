"""What shows only with time or with many: memory over minutes, and ten thousand connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.serving import model, servers, watch
from benchmarks.serving.measure import OPEN, Figures, Plan, disturbed, loaded, refused
from benchmarks.serving.servers import Running
from benchmarks.serving.tables import Part, number

SOAK_PER_S = 500.0
SAMPLE_S = 2.0
SETTLED = 0.2
"""Share of a soak before its memory is looked at: caches and the log's buffers fill."""

MANY = 10_000
IDLE_S = 5.0

Floats = NDArray[np.float64]


def slope(at_s: Floats, value: Floats) -> tuple[float, float]:
    """Return a line's slope by least squares, and half its 95 % interval.

    Neighbouring samples of memory resemble each other; the interval is widened as for a first-order
    autoregression of the residuals: by sqrt((1 + r) / (1 - r)).
    """
    x, y = at_s - at_s.mean(), value - value.mean()
    if len(x) < 4 or not x.any():
        raise ValueError(f"a slope of {len(x)} samples says nothing; measure for longer.")
    b = float((x * y).sum() / (x * x).sum())
    left = y - b * x
    squares = float((left * left).sum())
    if squares == 0:
        return b, 0.0
    r = float(np.clip((left[1:] * left[:-1]).sum() / squares, 0.0, 0.99))
    error = np.sqrt(squares / (len(x) - 2) / (x * x).sum()) * np.sqrt((1 + r) / (1 - r))
    return b, float(1.96 * error)


class Sampled:
    """Samples of what a server costs, taken by a thread."""

    def __init__(self, pid: int) -> None:
        """Begin."""
        self.at_s: list[float] = []
        self.costs: list[watch.Cost] = []
        self._pid, self._begun = pid, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.at_s.append(time.monotonic() - self._begun)
            self.costs.append(watch.cost(self._pid))

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


def soaked(plan: Plan, _console: Console) -> list[Part]:
    """Ask our server at a steady rate for minutes; return memory, files and latency over time."""
    made = model.tabular(plan.folder / "tabular")
    with servers.started(servers.ours(made, plan.folder), made, plan.folder) as running:
        sampled = Sampled(running.pid)
        messages = [m for p in running.server.asked for m in running.messages(p, made)]
        found = loaded(
            running, messages, plan, connections=OPEN, per_s=SOAK_PER_S, seconds=plan.minutes * 60
        )
        sampled.stop()
    figures = {"load": found, "at_s": sampled.at_s, "costs": [asdict(c) for c in sampled.costs]}
    return [_soak_part(plan, found, sampled, figures)]


def _soak_part(plan: Plan, found: Figures, sampled: Sampled, figures: Figures) -> Part:
    at_s = np.array(sampled.at_s)
    steady = at_s >= SETTLED * at_s[-1]
    rows: list[list[str]] = []
    for name, unit in (("private_mb", "MB"), ("rss_mb", "MB"), ("files", ""), ("threads", "")):
        values = np.array([getattr(c, name) for c in sampled.costs], float)
        hourly, within = (3600 * v for v in slope(at_s[steady], values[steady]))
        rows.append([
            name.partition("_")[0], unit, number(values[steady][0]), number(values[-1]),
            number(values.max()), f"{hourly:+.2f} ± {within:.2f}",
        ])  # fmt: skip
    by_tenth = ", ".join(number(v) for v in found["p99_ms_by_tenth"])
    return Part(
        title=f"{plan.minutes:g} minutes at {SOAK_PER_S:g} requests a second",
        head=("", "unit", "after a fifth", "at the end", "most", "an hour"),
        rows=rows,
        notes=[
            f"{found['requests']:,} requests in all three protocols, {found['failed']} failed.",
            f"p99 in ms of each tenth of the time: {by_tenth}.",
            disturbed([found]),
            "An hour: the slope after a fifth of the time, with its 95 % interval.",
        ],
        figures=figures,
    )


def idle(plan: Plan, _console: Console) -> list[Part]:
    """Hold ten thousand connections that do nothing, and ask on one more."""
    made = model.tabular(plan.folder / "tabular")
    with servers.started(servers.ours(made, plan.folder), made, plan.folder) as running:
        messages = running.messages("v2 JSON", made)
        rows = [_alone("none", running, messages, plan)]
        before = watch.cost(running.pid)
        with held(running.port, MANY) as sockets:
            after = watch.cost(running.pid)
            rows.append(_alone(f"{len(sockets):,}", running, messages, plan))
            alive = sum(_alive(one) for one in sockets)
            spent = watch.cpu_s(running.pid)
            time.sleep(IDLE_S)
            resting = (watch.cpu_s(running.pid) - spent) / IDLE_S
    each_kb = (after.private_mb - before.private_mb) * 1024 / max(1, len(sockets))
    return [
        Part(
            title="Connections that do nothing, and one client that asks",
            head=("idle connections", "per s", "p50 ms", "p99 ms"),
            rows=rows,
            notes=[
                f"{alive:,} of {len(sockets):,} were open at the end; {MANY:,} were wanted.",
                f"One takes {each_kb:.1f} KB. Unasked, the server takes {resting:.1%} of a core.",
            ],
            figures={
                "opened": len(sockets), "alive": alive, "each_kb": each_kb, "resting": resting,
            },
        )
    ]  # fmt: skip


def _alone(what: str, running: Running, messages: Sequence[bytes], plan: Plan) -> list[str]:
    found = loaded(running, messages, plan, connections=1)
    return [
        what,
        number(found["per_s"]) + refused(found),
        number(found["p50_ms"]),
        number(found["p99_ms"]),
    ]


@contextmanager
def held(port: int, many: int) -> Iterator[list[socket.socket]]:
    """Open connections, each of which asks once and is quiet then; as many as are given."""
    opened: list[socket.socket] = []
    request = b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    try:
        with suppress(OSError):
            for _ in range(many):
                one = socket.create_connection(("127.0.0.1", port), timeout=5)
                opened.append(one)
                one.sendall(request)
                one.recv(4096)
        for one in opened:
            one.setblocking(False)
        yield opened
    finally:
        for one in opened:
            one.close()


def _alive(one: socket.socket) -> bool:
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
