"""Laws of tracing, asked of a real OTLP receiver: a span a request, a child for each part."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serving.seen import Seen
from serving.tracing import ENDPOINTS, QUEUE, Tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SPENT_US = {"read": 40.0, "queue": 10.0, "inference": 200.0, "write": 30.0}


class Receiver(ThreadingHTTPServer):
    """An OTLP collector over HTTP that keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.held: list[ExportTraceServiceRequest] = []
        self.came = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.held
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces" and self.server.status == 200:
            self.server.held.append(ExportTraceServiceRequest.FromString(body))
        self.server.came.set()
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Write nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A collector, and the environment variable that names it."""
    made = Receiver()
    monkeypatch.delenv(ENDPOINTS[0], raising=False)
    monkeypatch.setenv(ENDPOINTS[1], made.url)
    yield made
    made.shutdown()
    made.server_close()


def answered(*, trace: str | None = None, status: int = 200) -> Seen:
    """Return a request that was answered."""
    headers = {b"x-user-id": b"someone@example.com", b"x-request-id": b"r-1"}
    seen = Seen(headers if trace is None else {**headers, b"traceparent": trace.encode()})
    seen.status, seen.latency_ms, seen.spent_us = status, 0.5, SPENT_US
    seen.fallbacks.append("cached")
    return seen


def sent(*requests: Seen) -> Tracing:
    """Record requests and close, which sends what waits."""
    tracing = Tracing.from_environment(workload="digits", version="3", slot="a")
    assert tracing is not None
    for seen in requests:
        tracing.record(seen)
    tracing.close()
    return tracing


def test_a_request_is_a_span_and_its_parts_are_its_children_end_to_end(receiver: Receiver):
    """The parts lie in their order inside the request, each as long as it took."""
    seen = answered()
    tracing = sent(seen)

    whole, parts = None, {}
    for span in receiver.spans():
        if span.name == "predict":
            whole = span
        else:
            parts[span.name] = span
    assert whole is not None
    assert whole.start_time_unix_nano == round(seen.at * 1e9)
    assert whole.end_time_unix_nano - whole.start_time_unix_nano == 500_000
    assert list(parts) == list(SPENT_US)
    reached = whole.start_time_unix_nano
    for name, span in parts.items():
        assert span.parent_span_id == whole.span_id
        assert span.trace_id == whole.trace_id
        assert span.start_time_unix_nano == reached
        reached += round(SPENT_US[name] * 1e3)
        assert span.end_time_unix_nano == reached
    assert tracing.counts == {"sent": 1, "dropped": 0, "failed": 0}


def test_a_trace_holds_neither_user_nor_features(receiver: Receiver):
    """What leaves says what happened to a request, never who asked or what."""
    sent(answered(status=500))

    held = str(receiver.held)
    assert "someone" not in held
    assert all(word in held for word in ("r-1", "cached", "digits", "STATUS_CODE_ERROR"))


def test_a_sampled_parent_is_the_parent(receiver: Receiver):
    """The trace of whoever called goes on, under the span that it was in."""
    sent(answered(trace=f"00-{TRACE}-{PARENT}-01"))

    (whole,) = [span for span in receiver.spans() if span.name == "predict"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, PARENT)


def test_a_parent_that_is_not_sampled_is_not_traced(receiver: Receiver):
    """Whoever called decided that this trace is not kept."""
    tracing = sent(answered(trace=f"00-{TRACE}-{PARENT}-00"))

    assert receiver.spans() == []
    assert tracing.counts["sent"] == 0


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "00-xyz",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        "\xff" * 55,
    ],
)
def test_what_is_no_parent_begins_a_trace(receiver: Receiver, trace: str):
    """A client's broken header neither fails the request nor hides it."""
    sent(answered(trace=trace))

    (whole,) = [span for span in receiver.spans() if span.name == "predict"]
    assert not whole.parent_span_id
    assert whole.trace_id.hex() != TRACE


def test_requests_that_find_no_room_are_dropped_and_counted(receiver: Receiver):
    """Recording never waits: more than there is room for is counted."""
    tracing = sent(*(answered() for _ in range(QUEUE + 50)))

    counts = tracing.counts
    assert counts["dropped"] > 0
    assert counts["sent"] == sum(span.name == "predict" for span in receiver.spans())
    assert sum(counts.values()) == QUEUE + 50


def test_what_the_sampler_does_not_want_takes_nobodys_room(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """A tenth of five times the room fits: nothing is dropped, and only what was sampled counts."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.1")

    tracing = sent(*(answered() for _ in range(5 * QUEUE)))

    wholes = [span for span in receiver.spans() if span.name == "predict"]
    assert 0 < len(wholes) < QUEUE
    assert tracing.counts == {"sent": len(wholes), "dropped": 0, "failed": 0}
    assert len({span.trace_id for span in wholes}) == len(wholes)


@pytest.mark.parametrize(("trace", "wanted"), [("0" * 31 + "1", 1), ("f" * 32, 0)])
def test_a_sampler_that_goes_by_ids_sees_the_parents(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, trace: str, wanted: int
):
    """Every service on a request's way decides alike, by the one id that they share."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")

    tracing = sent(answered(trace=f"00-{trace}-{PARENT}-01"))

    assert tracing.counts["sent"] == wanted
    assert [span.trace_id.hex() for span in receiver.spans()] == [trace] * wanted * 5


def test_a_collector_that_refuses_is_counted_and_nobody_notices(receiver: Receiver):
    """What a collector does not take is a number here, and nothing more."""
    receiver.status = 400

    tracing = sent(answered(), answered())

    assert tracing.counts == {"sent": 0, "dropped": 0, "failed": 2}


def test_a_collector_that_is_gone_delays_the_end_by_a_bounded_time(receiver: Receiver):
    """Nobody listens: recording and closing return, and the request is counted."""
    receiver.shutdown()
    receiver.server_close()

    tracing = sent(answered())

    assert tracing.counts == {"sent": 0, "dropped": 0, "failed": 1}


OFF = """
import sys
from serving.tracing import Tracing
assert Tracing.from_environment() is None
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def test_without_the_variable_nothing_of_it_is_imported():
    """Where no collector is named, tracing costs no import and no thread."""
    environment = {"PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", OFF], check=True, env=environment, timeout=60)


def test_settings_that_cannot_be_used_leave_a_line_and_a_server(
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    """A setting that OpenTelemetry refuses is said in the log; the model serves without traces."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")

    assert Tracing.from_environment() is None
    assert "no traces are sent" in caplog.text
