"""Tracing: one span a request and one for each part of it, sent to an OpenTelemetry collector.

It is off, and nothing of OpenTelemetry is imported, unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` or
``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` names a collector that takes OTLP over HTTP. Headers,
certificates, sampler and service name are read from OpenTelemetry's own variables.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from serving.seen import Seen

if TYPE_CHECKING:
    from serving.spans import Spans

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

QUEUE = 128
"""Requests that may wait to be sent; one more is dropped and counted."""

EVERY_S = 0.5
"""What waits is sent together. With ``QUEUE`` it bounds what tracing costs: 256 requests/s."""

CLOSES_S = 2.0
"""A collector that has not taken the last spans by then does not get them."""

_UNWANTED = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][02468ace]")
"""A parent that is not sampled (W3C Trace Context, section 3.2.2.5)."""


class Tracing:
    """Takes requests without ever waiting or raising; a thread makes their spans and sends them."""

    def __init__(self, spans: Spans, *, size: int = QUEUE) -> None:
        """Begin to send; ``size`` requests may wait."""
        self._spans, self._size = spans, size
        self._waiting: deque[tuple[Seen, int]] = deque()
        self._counts = {"sent": 0, "dropped": 0, "failed": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="tracing", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(cls, **said: str) -> Tracing | None:
        """Return tracing to the collector that the environment names, or None where it names none.

        Where it cannot begin, a line in the log says why: a model serves without traces.

        Args:
            said: Attributes of the process: workload, version, slot.
        """
        if not any(map(os.environ.get, ENDPOINTS)):
            return None
        # OpenTelemetry's own lines would come with every batch that a collector does not take.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        try:
            from serving.spans import Spans  # noqa: PLC0415 - only where it is on

            return cls(Spans(said))
        except Exception as e:  # noqa: BLE001 - whatever settings of a collector lead to
            logging.getLogger("serving").warning("no traces are sent: %r", e)
            return None

    @property
    def counts(self) -> Mapping[str, int]:
        """Requests whose spans were taken, that found no room here, that nobody took."""
        return dict(self._counts)

    def record(self, seen: Seen) -> None:
        """Take an answered request, unless its parent or the sampler does not want it.

        The sampler is asked first, so that what it does not want takes nobody's room.
        """
        if seen.trace is not None and _UNWANTED.fullmatch(seen.trace):
            return
        try:
            trace_id = self._spans.sampled(seen)
        except Exception:  # noqa: BLE001 - a sampler may be anybody's; the answer was sent
            self._counts["dropped"] += 1
            return
        if trace_id is None:
            return
        if len(self._waiting) < self._size:
            self._waiting.append((seen, trace_id))
        else:
            self._counts["dropped"] += 1

    def close(self) -> None:
        """Send what waits, for a short while."""
        self._stop.set()
        self._thread.join(CLOSES_S)
        self._spans.close()
        self._thread.join(CLOSES_S)

    def _send_all(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._send()
        self._send()

    def _send(self) -> None:
        count = len(self._waiting)
        try:
            for _ in range(count):
                self._spans.make(*self._waiting.popleft())
            sent = self._spans.send()
        except Exception:  # noqa: BLE001 - it is counted, which is all that can be done
            sent = False
        self._counts["sent" if sent else "failed"] += count
