"""Spans of answered requests, made by OpenTelemetry. Imported only where tracing is on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.seen import PARTS, Seen

_PARENT = TraceContextTextMapPropagator()


class Spans(SpanProcessor):
    """Makes spans of requests with OpenTelemetry's sampler and ids, and sends them.

    It is for one thread.
    """

    def __init__(self, said: Mapping[str, str]) -> None:
        """Prepare to send to the collector that the environment names.

        Args:
            said: Attributes of the process: workload, version, slot.
        """
        self._exporter = OTLPSpanExporter()
        provider = TracerProvider(resource=_resource(said), shutdown_on_exit=False)
        provider.add_span_processor(self)
        self._tracer = provider.get_tracer("penstock")
        self._ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span that is sampled until it is sent."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._ended.append(span)

    def make(self, seen: Seen) -> None:
        """Make the spans of one request.

        Its parts are known by how long they took; they are laid end to end in their order.
        """
        carried = {} if seen.trace is None else {"traceparent": seen.trace}
        begun_ns = round(seen.at * 1e9)
        whole = self._tracer.start_span(
            "predict",
            _PARENT.extract(carried),
            kind=SpanKind.SERVER,
            attributes=_attributes(seen),
            start_time=begun_ns,
        )
        if seen.status >= 500:
            whole.set_status(StatusCode.ERROR)
        reached_ns, inside = begun_ns, set_span_in_context(whole)
        for part in PARTS:
            if part in seen.spent_us:
                child = self._tracer.start_span(part, inside, start_time=reached_ns)
                reached_ns += round(seen.spent_us[part] * 1e3)
                child.end(reached_ns)
        whole.end(max(reached_ns, begun_ns + round(seen.latency_ms * 1e6)))

    def send(self) -> bool:
        """Send what was made; return whether the collector took it. May wait for it for seconds."""
        ended, self._ended = self._ended, []
        return not ended or self._exporter.export(ended) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Give up what is being sent."""
        self._exporter.shutdown()


def _resource(said: Mapping[str, str]) -> Resource:
    held = Resource.create({f"penstock.{name}": value for name, value in said.items()})
    named = not str(held.attributes[SERVICE_NAME]).startswith("unknown_service")
    return held if named else held.merge(Resource({SERVICE_NAME: "penstock"}))


def _attributes(seen: Seen) -> dict[str, str | int | bool | Sequence[str]]:
    """Return what a span says of a request: not what was asked, and not by whom."""
    said = {
        "http.response.status_code": seen.status,
        "penstock.request_id": seen.request_id,
        "penstock.arm": seen.arm or "",
        "penstock.mirrored": seen.mirrored,
        "penstock.fallbacks": list(seen.fallbacks),
        "penstock.stale": list(seen.stale),
    }
    return {name: value for name, value in said.items() if value not in ("", [])}
