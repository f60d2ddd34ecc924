"""Probes: what Kubernetes and Prometheus ask a controller, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from penstock.rollout.plan import Phase
from penstock.rollout.state import State

PREFIX = "penstock_controller_"
TEXT = "text/plain; charset=utf-8"
NUMBERS = "text/plain; version=0.0.4; charset=utf-8"

Check = Callable[[], str]
"""Returns what is wrong, empty where nothing is."""


class _Phases(Collector):
    """Releases that go on, as of the last round; none where another replica acts."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads, self.seen = leads, dict[str, list[Phase]]()

    def collect(self) -> Iterator[Metric]:
        said = "Releases that go on, by phase, as of the last round."
        family = GaugeMetricFamily(f"{PREFIX}releases", said, labels=["workload", "phase"])
        if not self._leads():
            self.seen.clear()  # they go on elsewhere
        for workload, phases in self.seen.items():
            for phase in Phase:
                family.add_metric([workload, str(phase)], phases.count(phase))
        yield family


class Numbers:
    """What Prometheus reads."""

    def __init__(
        self,
        workloads: Sequence[str],
        leads: Callable[[], bool],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at 0, with every workload there is."""
        self.registry = CollectorRegistry()
        self._monotonic, self._begun_s = monotonic, monotonic()
        self._last: dict[str, float] = {}
        by, into = ["workload"], self.registry
        leader = Gauge(f"{PREFIX}leader", "1 on the replica that acts.", registry=into)
        leader.set_function(lambda: float(leads()))
        said = "Rounds by how they ended: done, or failed."
        self._rounds = Counter(f"{PREFIX}rounds", said, [*by, "outcome"], registry=into)
        said = "Seconds that a round took."
        self._seconds = Histogram(f"{PREFIX}round_seconds", said, by, registry=into)
        self._phases = _Phases(leads)
        into.register(self._phases)
        said = "Seconds since the last round that was done; since the start where none was."
        since = Gauge(f"{PREFIX}seconds_since_round", said, by, registry=into)
        said = "Changes of routes by another hand."
        self._foreign = Counter(f"{PREFIX}foreign_changes", said, by, registry=into)
        for name in workloads:
            since.labels(name).set_function(lambda name=name: self._since_s(name))
            self._foreign.labels(name)
            for outcome in ("done", "failed"):
                self._rounds.labels(name, outcome)

    def round(self, workload: str, seconds: float, states: Sequence[State]) -> None:
        """Count a round that was done."""
        self._last[workload] = self._monotonic()
        self._rounds.labels(workload, "done").inc()
        self._seconds.labels(workload).observe(seconds)
        self._phases.seen[workload] = [state.phase for state in states]

    def error(self, workload: str) -> None:
        """Count a round that failed."""
        self._rounds.labels(workload, "failed").inc()

    def foreign(self, workload: str) -> None:
        """Count a change by another hand."""
        self._foreign.labels(workload).inc()

    def text(self) -> bytes:
        """Return all of them, as Prometheus reads them."""
        return generate_latest(self.registry)

    def _since_s(self, workload: str) -> float:
        return self._monotonic() - self._last.get(workload, self._begun_s)


@contextmanager
def answering(
    host: str, port: int, *, live: Check, ready: Check, numbers: Callable[[], bytes]
) -> Iterator[int]:
    """Answer ``/livez``, ``/readyz`` and ``/metrics`` while the block runs; yield the port.

    Raises:
        OSError: The address cannot be listened on.
    """
    checks: Mapping[str, Check] = {"/livez": live, "/readyz": ready}

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # who connects and says nothing holds no thread for long

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
            """Be silent: probes come every few seconds."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(200, numbers(), NUMBERS)
            elif path in checks:
                wrong = checks[path]()
                self._send(503 if wrong else 200, f"{wrong or 'ok'}\n".encode(), TEXT)
            else:
                self._send(404, b"there are /livez, /readyz and /metrics\n", TEXT)

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="probes")
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
