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


@contextmanager
def faulty(url: str) -> Iterator[Faults]:
    """Run a proxy before a store."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = f"{self.command} {self.path}"
            faults.asked.append(asked)
            how = faults.wrong(asked)
            if how == "hang":
                time.sleep(3)
            if how == "hang" or (how and how[0].isdigit()):
                self._fail(how)
                return
            status, headers, data = self._forwarded(body)
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = dict((n.lower(), v) for n, v in headers).get("content-length", len(data))
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if how == "cut" else data)
            self.close_connection = how == "cut"

        def _forwarded(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            upstream = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            data = answer.read()
            upstream.close()
            return answer.status, answer.getheaders(), data

        def _fail(self, how: str) -> None:
            status, _, message = how.partition(" ") if how != "hang" else ("503", "", "")
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    faults.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
