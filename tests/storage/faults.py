"""A store with faults: a proxy before a real one that fails when it is told to."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message></Error>"""


@dataclass
class Faults:
    """What is asked, and what goes wrong."""

    url: str = ""
    asked: list[str] = field(default_factory=list[str])
    """Method and path of every request."""

    wrong: Callable[[str], str | None] = lambda _asked: None
    """Returns for a request how it fails: ``503``, ``403 text``, ``cut``, ``hang``; None: it does
    not."""

    def first(self, count: int, how: str, *, of: str = "") -> None:
        """Let the first requests of a kind fail."""
        left, lock = [count], threading.Lock()

        def wrong(asked: str) -> str | None:
            with lock:
                if of not in asked or not left[0]:
                    return None
                left[0] -= 1
                return how

        self.wrong = wrong


class Before(ThreadingHTTPServer):
    """Stands before the store of an address."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.faults = url.removeprefix("http://"), Faults()
        self.faults.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Hands a request on, or fails."""

    protocol_version = "HTTP/1.1"
    server: Before

    def _pass(self) -> None:
        body, asked = self._body(), f"{self.command} {self.path}"
        self.server.faults.asked.append(asked)
        how = self.server.faults.wrong(asked) or ""
        if how == "hang":
            time.sleep(3)
            how = "503"
        if how[:1].isdigit():
            self._fail(*how.partition(" ")[::2])
        else:
            self._forward(body, cut=how == "cut")

    def _body(self) -> bytes:
        """Return a request's body as it came; S3's clients send uploads in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        came = b""
        while size := int((line := self.rfile.readline()).split(b";")[0], 16):
            came += line + self.rfile.read(size + 2)
        came += line
        while (line := self.rfile.readline()).strip():
            came += line
        return came + line

    def _forward(self, body: bytes, *, cut: bool) -> None:
        store = http.client.HTTPConnection(self.server.behind, timeout=30)
        store.request(self.command, self.path, body, dict(self.headers))
        answer = store.getresponse()
        data, length = answer.read(), answer.getheader("Content-Length")
        store.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut

    def _fail(self, status: str, message: str) -> None:
        code = {"403": "SignatureDoesNotMatch", "503": "SlowDown"}[status]
        data = ERROR.format(code=code, message=message).encode()
        self.send_response(int(status))
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815 - its base asks so

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def faulty(url: str) -> Iterator[Faults]:
    """Run a proxy before a store."""
    with Before(url) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.faults
        finally:
            server.shutdown()
            thread.join(10)
