"""Metrics: what Prometheus reads of one serving process, on a port of its own.

A request costs a few additions to plain numbers; families are made of them when somebody scrapes.
Every label value is one that we know beforehand: a client can make no new series.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from penstock.endpoint import Instead
from penstock.request import Contract
from serving import families
from serving.families import (
    AGE_S,
    ARMS,
    BATCH_ROWS,
    LATENCY_MS,
    OTHER,
    PART_US,
    PROTOCOLS,
    WATCHED,
    Histogram,
    Request,
)
from serving.seen import PARTS, Seen

REFUSALS = "refusals"
"""Of ``penstock_unread_total``: requests that were refused early could not be counted."""

STOOD_IN_FOR_MODELS = ("failed:cached", "failed:rules")
"""Kinds of fallback: what answered where the model failed. The others are of look-ups."""

SLOW_SCRAPER_S = 5.0
"""A scraper that has not sent its request, or taken its answer, by then is let go."""


class Warmed(Protocol):
    """What a warm-up found of one batch size."""

    @property
    def batch(self) -> int: ...  # noqa: D102
    @property
    def first_ms(self) -> float: ...  # noqa: D102
    @property
    def steady_ms(self) -> float: ...  # noqa: D102


class Counted(Protocol):
    """A part that counts for itself, as the prediction log does."""

    @property
    def counts(self) -> Mapping[str, int]: ...  # noqa: D102


class Metrics(Collector):
    """The numbers of one serving process."""

    def __init__(
        self,
        contract: Contract,
        *,
        slot: str,
        version: str,
        digest: str = "",
        runtime: str = "",
        log: Counted | None = None,
    ) -> None:
        """Start at zero, not ready.

        Args:
            log: The prediction log, whose counts are shown as ``log_records``.
        """
        self._info = {
            "workload": contract.workload,
            "version": version,
            "slot": slot,
            "digest": digest,
            "runtime": runtime,
        }
        self._requests: dict[Request, int] = {}
        self._latency = {held: Histogram(LATENCY_MS) for held in (False, True)}
        self._parts = {part: Histogram(PART_US) for part in PARTS}
        self._batch = Histogram(BATCH_ROWS)
        self._ages: dict[str, Histogram] = {}
        self._fallbacks = dict.fromkeys([*map(str, Instead), *STOOD_IN_FOR_MODELS, OTHER], 0)
        self._stale = dict.fromkeys([*contract.names, OTHER], 0)
        self._watched: dict[str, Callable[[], float | Mapping[str, float]]] = {}
        self._refused: Callable[[], Mapping[int, int]] = dict
        self._unread = dict.fromkeys([*WATCHED, REFUSALS], 0)
        self._ready, self._seconds, self._warmth = False, 0.0, tuple[Warmed, ...]()
        self._server: WSGIServer | None = None
        if log is not None:
            self.watch("log_records", lambda: log.counts)

    def observe(self, seen: Seen, protocol: str = OTHER) -> None:
        """Count one request, when its answer was sent. Takes a microsecond or two."""
        key = (protocol, seen.status, seen.arm, seen.mirrored)
        if key in self._requests:
            self._requests[key] += 1
        else:
            self._count_bounded(key)
        if seen.status < 400:
            self._latency[seen.mirrored].add(seen.latency_ms)
        parts = self._parts
        for part, spent_us in seen.spent_us.items():
            if part in parts:
                parts[part].add(spent_us)
        if seen.fallbacks:
            _count(self._fallbacks, seen.fallbacks)
        if seen.stale:
            _count(self._stale, seen.stale)

    def observe_batch(self, rows: int) -> None:
        """Count one run of the model over so many rows."""
        self._batch.add(rows)

    def observe_age(self, view: str, seconds: float) -> None:
        """Count one looked-up row of a feature view that is so old."""
        held = self._ages.get(view)
        if held is None:
            held = self._ages[view] = Histogram(AGE_S)
        held.add(seconds)

    def watch(self, name: str, read: Callable[[], float | Mapping[str, float]]) -> None:
        """Show, of ``WATCHED``, what ``read`` returns at each scrape.

        It is called in another thread, so it should read and not change anything.

        Raises:
            ValueError: There is no such metric.
        """
        if name not in WATCHED:
            raise ValueError(f"no metric {name!r} to watch; there is {', '.join(WATCHED)}.")
        self._watched[name] = read

    def refusals(self, read: Callable[[], Mapping[int, int]]) -> None:
        """Count among the requests those that were refused before they were read, by status."""
        self._refused = read

    def became_ready(self, seconds: float, warmth: Sequence[Warmed]) -> None:
        """Note that requests are answered from now on.

        Args:
            seconds: Since the process began.
            warmth: What the warm-up found of each batch size.
        """
        self._ready, self._seconds, self._warmth = True, seconds, tuple(warmth)

    def draining(self) -> None:
        """Note that no new requests are taken."""
        self._ready = False

    def serve(self, port: int = 0, *, host: str = "127.0.0.1") -> int:
        """Answer scrapes in a thread; return the port, a free one for 0.

        Args:
            host: Where to listen: loopback, or 0.0.0.0 in a pod.

        Raises:
            OSError: The port is taken; the text names it.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        app: Any = make_wsgi_app(registry)
        try:
            self._server = make_server(host, port, app, ThreadingWSGIServer, _Impatient)
        except OSError as e:
            raise OSError(f"metrics port {port} cannot be listened on: {e.strerror}.") from e
        answer = partial(self._server.serve_forever, poll_interval=0.1)
        threading.Thread(target=answer, name="metrics", daemon=True).start()
        return self._server.server_port

    def close(self) -> None:
        """Stop answering scrapes."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def collect(self) -> Iterator[Metric]:
        """Yield every family, for the scrape that is under way."""
        yield from self._of_requests()
        yield from self._of_features()
        yield from self._of_model()
        yield from self._of_others()

    def _count_bounded(self, key: Request) -> None:
        protocol, status, arm, mirrored = key
        known = (
            protocol if protocol in PROTOCOLS else OTHER,
            status if 100 <= status <= 599 else 0,
            arm if arm is None or arm in ARMS else OTHER,
            mirrored,
        )
        self._requests[known] = self._requests.get(known, 0) + 1

    def _of_requests(self) -> Iterator[Metric]:
        held = [*self._requests.items(), *self._early()]
        yield families.requests(held)
        yield families.errors(held)
        latency = {str(mirrored).lower(): one for mirrored, one in self._latency.items()}
        said = "Time to answer, of requests that were answered."
        yield families.histogram("request_seconds", said, latency, label="mirrored", per=1e3)
        said = "Time of requests, by the part in which it went."
        yield families.histogram("part_seconds", said, self._parts, label="part", per=1e6)
        said = "Rows that the model was run over at once."
        yield families.histogram("batch_rows", said, {"": self._batch})

    def _early(self) -> list[tuple[Request, int]]:
        """Return refused requests of which only the status is known."""
        try:
            return [((families.NONE, s, None, False), n) for s, n in dict(self._refused()).items()]
        except Exception:  # noqa: BLE001 - a part's mistake must not hide the other metrics
            self._unread[REFUSALS] += 1
            return []

    def _of_features(self) -> Iterator[Metric]:
        said = "Age of rows that were looked up."
        yield families.histogram("feature_age_seconds", said, dict(self._ages), label="view")
        said = "Answers in which something stood in for a part that could not."
        yield families.counter("fallbacks", said, self._fallbacks, label="kind")
        said = "Values that were older than they may be."
        yield families.counter("stale_features", said, self._stale, label="feature")

    def _of_model(self) -> Iterator[Metric]:
        yield InfoMetricFamily("penstock_model", "What is served.", self._info)
        said = "1 while new requests are answered."
        yield families.gauge("ready", said, {"": float(self._ready)})
        if not self._seconds:
            return
        said = "From the start of the process until it was ready."
        yield families.gauge("ready_seconds", said, {"": self._seconds})
        for name in ("first", "steady"):
            said = f"Time of the model's {name} call at warm-up, by rows."
            taken = {str(one.batch): getattr(one, f"{name}_ms") / 1e3 for one in self._warmth}
            yield families.gauge(f"{name}_call_seconds", said, taken, label="rows")

    def _of_others(self) -> Iterator[Metric]:
        for name, read in self._watched.items():
            try:
                yield families.watched(name, read())
            except Exception:  # noqa: BLE001 - a part's mistake must not hide the other metrics
                self._unread[name] += 1
        said = "Times that a metric's number could not be read."
        yield families.counter("unread", said, self._unread, label="metric")


class _Impatient(WSGIRequestHandler):
    """Lets slow scrapers go, and writes no access log."""

    timeout = SLOW_SCRAPER_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Write nothing."""


def _count(counts: dict[str, int], names: Sequence[str]) -> None:
    for name in names:
        counts[name if name in counts else OTHER] += 1
