"""Hop: a lean HTTP client to one server inside the cluster, with bounded connections and time.

Plain HTTP/1.1 on asyncio and httptools; what a general client does besides costs more than the
predictor's answer. Inside a mesh the sidecar encrypts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import httptools

Headers = Sequence[tuple[bytes, bytes]]

LARGEST_ANSWER = 64 << 20


class Unreachable(RuntimeError):
    """The server gave no answer in time; the text says in which way."""


@dataclass(slots=True)
class Answer:
    """What a server answered."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    """By name in lower case."""

    body: bytes = b""


class Hop:
    """Asks one server."""

    def __init__(self, host: str, port: int, *, connections: int, timeout_s: float) -> None:
        """Take where it is; connections are opened when they are needed.

        Args:
            connections: Most of them at once; who finds all in use waits, within its time.
            timeout_s: From asking to the whole answer.
        """
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._name = f"{host}:{port}".encode()
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(connections)
        self.opened = 0
        """Connections that were made."""

    async def ask(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Answer:
        """Return what the server answers, whatever its status.

        Raises:
            Unreachable: It does not, or not in time.
        """
        lines = [f"{method} {path} HTTP/1.1".encode(), b"host: " + self._name]
        lines += [b"%s: %s" % one for one in headers]
        lines += [b"content-length: %d" % len(body), b"", body]
        try:
            async with asyncio.timeout(self._timeout_s), self._free:
                return await self._exchange(b"\r\n".join(lines))
        except TimeoutError as e:
            raise Unreachable(f"no answer within {self._timeout_s * 1000:.0f} ms") from e
        except (OSError, httptools.HttpParserError) as e:
            raise Unreachable(f"no answer: {e!r}") from e

    async def _exchange(self, request: bytes) -> Answer:
        while self._idle:
            connection = self._idle.pop()
            try:
                return await self._on(connection, request)
            except _Closed:
                continue  # it closed an idle connection before it saw this request
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, self._host, self._port)
        self.opened += 1
        return await self._on(made, request)

    async def _on(self, connection: _Connection, request: bytes) -> Answer:
        try:
            answer = await connection.ask(request)
        except BaseException:
            # What is still to come would be taken for the answer to the next request.
            connection.abort()
            raise
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().abort()


class _Closed(ConnectionError):
    """The connection ended before the first byte of an answer."""


class _Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._body: list[bytes] = []
        self._size = 0
        self._done: asyncio.Future[Answer] | None = None
        self._begun = False
        self.reusable = False

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return its answer.

        Raises:
            ConnectionError: The connection ended before the answer did.
            HttpParserError: What came is no HTTP.
        """
        if self._transport is None or self._transport.is_closing():
            raise _Closed("the connection was closed")
        self._parser = httptools.HttpResponseParser(self)
        self._answer, self._body, self._size = Answer(), [], 0
        self._begun = self.reusable = False
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done

    def abort(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            self.abort()  # nobody asked
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            self._fail(e)

    def connection_lost(self, exc: Exception | None) -> None:
        kind = ConnectionError if self._begun else _Closed
        self._fail(kind(f"the connection was closed: {exc or 'by the server'}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._size += len(body)
        if self._size > LARGEST_ANSWER:
            self._fail(ConnectionError(f"the answer is larger than {LARGEST_ANSWER} bytes"))

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._answer.body = b"".join(self._body)
        self.reusable = self._parser.should_keep_alive()
        if self._done is not None and not self._done.done():
            self._done.set_result(self._answer)

    def _fail(self, why: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(why)
