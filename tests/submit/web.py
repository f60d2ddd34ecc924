"""A Kubeflow server on loopback: real HTTP, real TLS, and what can go wrong on the way."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.submit.conforming import Unpublished
from tests.submit.kubeflow import Kubeflow, Said


@dataclass
class Fault:
    """Something that goes wrong with requests of a form, so many times."""

    match: str
    """Regular expression of ``METHOD /path``."""

    kind: str
    """``status``, ``reset`` before anything happens, ``lost`` after it, ``slow``, ``page``."""

    times: int = 1
    status: int = 500
    text: str = '{"message": "trouble"}'
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    before: Callable[[], None] | None = None
    """Happens first: somebody else was faster."""


@dataclass
class Server:
    """A running server and what came to it."""

    url: str
    kubeflow: Kubeflow
    token: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Answers that the published API does not have: defects of this stand-in."""

    released: threading.Event = field(default_factory=threading.Event)
    alone: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, asked: str) -> Fault | None:
        """Return what goes wrong with a request."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.match, asked):
                fault.times -= 1
                return fault
        return None

    def count(self, match: str) -> int:
        """Return how many requests were of a form."""
        return sum(bool(re.search(match, asked)) for asked in self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet an answer: two of them wait 40 ms for each other.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    @property
    def about(self) -> Server:
        return self.server.about  # pyright: ignore[reportAttributeAccessIssue]

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        asked = f"{self.command} {parts.path}"
        self.about.asked.append(f"{asked}?{parts.query}" if parts.query else asked)
        fault = self.about.fault(asked) or Fault("", "none")
        if fault.before is not None:
            fault.before()
        if fault.kind == "slow":
            self.about.released.wait(20)
        if fault.kind == "status":
            self._send(fault.status, fault.text, fault.headers)
        if fault.kind in ("reset", "status"):
            self.close_connection = fault.kind == "reset"
            return
        status, text, kind = self._answer(parts.path, dict(parse_qsl(parts.query)), body)
        if fault.kind in ("lost", "slow"):
            self.close_connection = True
        else:
            self._send(status, text, {"content-type": kind})

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, str, str]:
        given = self.headers.get("authorization") or ""
        self.about.tokens.append(given)
        if self.about.token and given != f"Bearer {self.about.token}":
            message = f"Unauthenticated: Request header error: {given}"
            return 401, json.dumps({"code": 16, "message": message}), "application/json"
        if log := re.fullmatch("/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", path):
            text = self.about.kubeflow.logs.get(log[1])
            kind = "text/plain" if text is not None else "application/json"
            return (200 if text is not None else 500), text or "{}", kind
        try:
            # What a name may be taken by is one row of a database.
            with self.about.alone:
                document = self.about.kubeflow.answer(self.command, path, query, self._body(body))
            return 200, json.dumps(document), "application/json"
        except Said as e:
            return e.status, json.dumps({"code": 3, "message": e.message}), "application/json"
        except Unpublished as e:
            self.about.broken.append(str(e))
            return 500, "{}", "application/json"

    def _body(self, body: bytes) -> Any:
        kind = self.headers.get("content-type") or ""
        if kind.startswith("multipart/form-data"):
            whole = BytesParser().parsebytes(f"content-type: {kind}\n\n".encode() + body)
            (part,) = whole.get_payload()
            assert part.get_param("name", header="content-disposition") == "uploadfile"
            return part.get_payload(decode=True).decode()
        return json.loads(body) if body else None

    def _send(self, status: int, text: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


@contextmanager
def serving(
    kubeflow: Kubeflow, *, token: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Run a server; an answer of its own that the API does not have fails the test."""
    server = Server("", kubeflow, token)
    listening = _Listening(("127.0.0.1", 0), _Handler)
    listening.about = server
    if tls is not None:
        listening.socket = tls.wrap_socket(listening.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        listening.shutdown()
        thread.join()
        listening.server_close()
    assert server.broken == []


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    about: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep a client that hangs up, which is what tests do, out of the output."""
