"""The server's side of HTTP: what a connection may send, how long it may take, how all of it stops.

A request is handed on when it is whole, so that a slow client costs a connection and nothing else.
Time is only watched while something is missing: a request that arrives in one piece sets no timer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.hardened import BEGUN, RETRY_AFTER_S, STOPPING, Headers

LOGGER = logging.getLogger("serving.http")
LOGGER.setLevel(logging.ERROR)  # any stranger could fill the disk with warnings of what it sends


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection, and all of them together, may ask of the server."""

    body_bytes: int = 1 << 20
    unfinished_bytes: int = 64 << 20
    """Of bodies that have begun and are not whole, over all connections."""

    connections: int = 1000
    head_bytes: int = 16 << 10
    headers: int = 64
    head_s: float = 10.0
    """From the first byte, or from the connection where none comes, to the end of the headers."""

    body_s: float = 10.0
    idle_s: float = 75.0
    """Between two requests; longer than the edge keeps its own connections open."""

    write_s: float = 10.0
    """For a client to read enough of its answer that more can be sent."""

    linger_s: float = 1.0
    """After a refusal, for what the client still sends: closing at once would reset the answer."""


@dataclass
class Shared:
    """What the connections of one server know of each other."""

    refused: Counter[int]
    said: bytes = b""
    """Headers of every refusal: who gives it."""

    unfinished_bytes: int = 0
    strangers: dict[Protocol, None] = field(default_factory=dict)
    """Connections that have sent no whole request yet, the oldest first."""


class Refused(Exception):
    """Stops the parser: the connection has its answer."""


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits. :func:`protocol` binds them."""

    limits: Limits
    shared: Shared

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.logger = LOGGER
        self.timeout_keep_alive = self.limits.idle_s
        self._missing: str | None = None
        """What of a request is still to come: its head, its body, or nothing."""

        self._watched: str | None = None
        self._began = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._held: tuple[Any, Any] | None = None
        self._running: Any = None
        self._parked: tuple[Any, Any] | None = None
        """A whole request of a client that does not read its answers: it has to wait."""

        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a connection; a stranger makes room where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._make_room()
        if not self._refused:
            self.shared.strangers[self] = None
            self._watch(self.limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.shared.strangers.pop(self, None)
        self._forget_body()
        self._unwatch()
        self._parked = None
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and watch the clock while something is missing."""
        if self._refused:
            return
        super().data_received(data)
        if self._missing is None:
            if self._timer is not None:
                self._unwatch()
            if not self._answering():
                self._watch(self.limits.head_s)  # only line ends came
        elif not self._refused:
            self._still_missing(len(data))

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer a client that closed only its own half."""
        return self._last_word()

    def pause_writing(self) -> None:
        """Give a client that does not read its answers a while.

        What was answered is sent into memory: its sender is not held up, and holds up nobody. No
        further request of the client begins until it reads.
        """
        self._write_timer = self.loop.call_later(self.limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        parked = self._parked
        if parked is not None:
            self._parked = None
            self._start_asgi_task(*parked)

    def shutdown(self) -> None:
        """Finish what is whole, refuse what is not, close what is idle."""
        if self._missing is not None and not self._refused:
            self._refuse(503, STOPPING)
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """Start with the next request."""
        super().on_message_begin()
        self._missing, self._began = "head", True

    def on_headers_complete(self) -> None:
        """Refuse by the head alone what can be, before any of the body is read."""
        self._missing = "body"
        wrong = self._wrong_head()
        if wrong is not None:
            self._refuse(*wrong)
            raise Refused
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a piece, within what one may send."""
        held = self.cycle.body
        held += body
        if len(held) > self.limits.body_bytes:
            self._refuse(413, f"the body is larger than {self.limits.body_bytes} bytes")
            raise Refused

    def on_message_complete(self) -> None:
        """Hand on the request, now that it is whole."""
        self._missing = None
        if self._body_bytes:
            self._forget_body()
        self.shared.strangers.pop(self, None)
        self.scope[BEGUN] = time.perf_counter()
        super().on_message_complete()
        held = self._held
        if held is not None:
            self._held = None
            self._start_asgi_task(*held)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        """Answer what is no HTTP, or what a callback refused and has answered."""
        if not self._refused:
            self._refuse(400, "this is not an HTTP request as RFC 9112 has it")

    def _should_upgrade(self) -> bool:
        return False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if not cycle.more_body:
            self._running = cycle
            if self._write_timer is not None:
                self._parked = (cycle, app)
                return
            super()._start_asgi_task(cycle, app)
            return
        self._held = (cycle, app)
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _wrong_head(self) -> tuple[int, str] | None:
        size, hosts, declared = len(self.url), 0, 0
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                declared = int(value)
        limits = self.limits
        if size > limits.head_bytes or len(self.headers) > limits.headers:
            return 431, (
                f"the request has {len(self.headers)} headers and {size} bytes of them; "
                f"{limits.headers} and {limits.head_bytes} are taken"
            )
        version = self.parser.get_http_version()  # pyright: ignore[reportOptionalMemberAccess]
        if version not in ("1.1", "1.0"):
            return 400, f"HTTP {version} came, 1.1 or 1.0 was wanted"
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            return 400, f"the request has {hosts} host headers, one was wanted"
        if declared > limits.body_bytes:
            return 413, f"the body has {declared} bytes, at most {limits.body_bytes} are taken"
        return None

    def _still_missing(self, came: int) -> None:
        if self._began:
            self._head_bytes = 0
        elif self._missing == "head":
            self._head_bytes += came
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(431, f"the headers are larger than {self.limits.head_bytes} bytes")
        if self._missing == "body":
            self._hold_body()
        if not self._refused and (self._began or self._missing != self._watched):
            self._began, self._watched = False, self._missing
            self._unwatch()
            self._watch(self.limits.head_s if self._missing == "head" else self.limits.body_s)

    def _watch(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._late)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._refused or self._missing is None:
            self.transport.close()
        else:
            self._refuse(408, f"the request's {self._missing} did not arrive in time")

    def _answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def _hold_body(self) -> None:
        """Count what is held of a body that is not whole, within what all may hold."""
        held = len(self.cycle.body)
        self.shared.unfinished_bytes += held - self._body_bytes
        self._body_bytes = held
        if self.shared.unfinished_bytes > self.limits.unfinished_bytes:
            self._refuse(503, "too many bodies are on their way; try again")

    def _forget_body(self) -> None:
        self.shared.unfinished_bytes -= self._body_bytes
        self._body_bytes = 0

    def _last_word(self) -> bool:
        """Let no request follow those that are whole; return whether there are any."""
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is None or last.response_complete:
            return False
        last.keep_alive = False
        return True

    def _refuse(self, status: int, error: str) -> None:
        """Answer for the application, unless answers to earlier requests are still to come."""
        self._refused, self._held, self._missing = True, None, None
        self.shared.refused[status] += 1
        self._forget_body()
        self._unwatch()
        if self._last_word():
            return
        body = json.dumps({"error": error}).encode()
        said = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        said += self.shared.said
        if status == 503:
            said += b"retry-after: %d\r\n" % RETRY_AFTER_S
        self.transport.write(STATUS_LINE[status] + said + b"connection: close\r\n\r\n" + body)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._watch(self.limits.linger_s)

    def _make_room(self) -> None:
        """Drop the oldest stranger; where everybody is known, the newcomer has to wait."""
        oldest = next(iter(self.shared.strangers), None)
        if oldest is None:
            self._refuse(503, "too many connections; try again")
            self.transport.close()
        else:
            del self.shared.strangers[oldest]
            oldest.transport.abort()


def protocol(limits: Limits, refused: Counter[int], said: Headers = ()) -> type[Protocol]:
    """Return the protocol of one server.

    Args:
        refused: Where refusals are counted, by status.
        said: Headers of every refusal: who gives it.
    """
    lines = b"".join(b"%s: %s\r\n" % one for one in said)
    return type("Limited", (Protocol,), {"limits": limits, "shared": Shared(refused, lines)})
