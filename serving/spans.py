"""Spans of answered requests, made by OpenTelemetry. Imported only where tracing is on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.seen import PARTS, Seen

NAME = "predict"
_PARENT = TraceContextTextMapPropagator()
_NOBODY = Context()


class _Ids(RandomIdGenerator):
    """Random ids, but for the trace whose id was drawn when it was sampled."""

    trace_id = 0

    def generate_trace_id(self) -> int:
        """Return the id that the sampler saw, so that it decides the same again."""
        return self.trace_id


class Spans(SpanProcessor):
    """Makes spans of requests with OpenTelemetry's sampler and ids, and sends them.

    It is for one thread; :meth:`sampled` may be asked by another.
    """

    def __init__(self, said: Mapping[str, str]) -> None:
        """Prepare to send to the collector that the environment names.

        Args:
            said: Attributes of the process: workload, version, slot.
        """
        self._exporter = OTLPSpanExporter()
        self._ids = _Ids()
        provider = TracerProvider(
            resource=_resource(said), shutdown_on_exit=False, id_generator=self._ids
        )
        provider.add_span_processor(self)
        self._sampler, self._draw = provider.sampler, RandomIdGenerator().generate_trace_id
        self._tracer = provider.get_tracer("penstock")
        self._ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span that is sampled until it is sent."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._ended.append(span)

    def sampled(self, seen: Seen) -> int | None:
        """Return the id of a new trace for a request, None where the sampler wants none of it.

        A request with a parent goes on with the parent's id, and the sampler sees that one.
        """
        parent, drawn = _parent(seen), self._draw()
        held = get_current_span(parent).get_span_context()
        asked = held.trace_id if held.is_valid else drawn
        said = self._sampler.should_sample(parent, asked, NAME, SpanKind.SERVER)
        return drawn if said.decision.is_sampled() else None

    def make(self, seen: Seen, trace_id: int) -> None:
        """Make the spans of one request, in a trace of this id where it has no parent.

        Its parts are known by how long they took; they are laid end to end in their order.
        """
        self._ids.trace_id, begun_ns = trace_id, round(seen.at * 1e9)
        whole = self._tracer.start_span(
            NAME,
            _parent(seen),
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


def _parent(seen: Seen) -> Context:
    """Return the context that a request came with; an empty one where it has none."""
    return _NOBODY if seen.trace is None else _PARENT.extract({"traceparent": seen.trace}, _NOBODY)


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
