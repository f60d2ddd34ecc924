"""The load generator's connections: raw sockets and epoll, one request on each at a time."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from benchmarks.serving.book import NOT_ANSWERED

_HOST = "127.0.0.1"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


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
