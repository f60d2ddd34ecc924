"""Close what the stock server leaves open: repository calls, header echo, endless bodies, pile-ups.

A pure ASGI layer around KServe's application.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MAX_BODY = 1 << 20
MAX_IN_FLIGHT = 64
FAILED = "the model failed; the request id finds the reason in the server's log"
"""All a client learns of an exception."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = re.compile(
    r"/|/metrics|/v1/models|/v1/models/[^/:]+(:predict)?"
    r"|/v2|/v2/health/(live|ready)|/v2/models|/v2/models/[^/]+(/ready|/infer)?"
)
"""The only paths there are: no repository, no ``explain``, no versions, no docs."""


class _TooLarge(Exception):
    """The body passed the limit while it was read."""


class _Body:
    """Reads a body up to the limit, whatever the client said of its length."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen = 0

    @property
    def too_large(self) -> bool:
        """Whether the limit was passed; the application may have made something else of it."""
        return self._seen > MAX_BODY

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self.too_large:
            raise _TooLarge
        return message


class Hardened:
    """Wraps an application."""

    def __init__(self, app: App) -> None:
        """Take the application to protect."""
        self._app = app
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused; hand on the rest."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not OPEN.fullmatch(scope["path"]):
            await refuse(send, 404, "not found")
            return
        length = _length(scope)
        if length is None:
            await refuse(send, 400, "content-length is not a number")
        elif length > MAX_BODY:
            await refuse(send, 413, f"the body has {length} bytes, at most {MAX_BODY} are taken")
        elif self._in_flight >= MAX_IN_FLIGHT and scope["method"] == "POST":
            await refuse(send, 503, "too many requests at once; try again", retry_after=1)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        counted = scope["method"] == "POST"
        self._in_flight += counted
        answer, body = _Answer(send), _Body(receive)
        try:
            await self._app(_as_json(scope), body, answer)
        except Exception:
            if not body.too_large:
                request_id = dict(scope["headers"]).get(b"x-request-id", b"without an id")
                logging.getLogger("serving").exception(
                    "request %s failed", request_id.decode("latin-1")
                )
        finally:
            self._in_flight -= counted
        if body.too_large:
            await refuse(send, 413, f"the body is larger than {MAX_BODY} bytes")
        else:
            await answer.finish()


class _Answer:
    """Holds a JSON answer back until it is whole, to give every error one form."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")

    async def finish(self) -> None:
        """Send the answer; a validation error becomes a 400 with one sentence."""
        start = self._start
        if start is None:
            await refuse(self._send, 500, FAILED)
            return
        headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
        kind = dict(headers).get(b"content-type", b"")
        if kind.startswith(b"application/json") and self._body:
            start["status"], self._body = _mended(start["status"], self._body)
        headers.append((b"content-length", str(len(self._body)).encode()))
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": self._body})


def _mended(status: int, body: bytes) -> tuple[int, bytes]:
    """Return status and body with ``{"error": …}`` for every error, and without nulls."""
    try:
        document = json.loads(body)
    except ValueError:
        return status, body
    if status == 500:
        return status, json.dumps({"error": FAILED}).encode()
    if status >= 400 and "error" not in document:
        return 400 if status == 422 else status, json.dumps({"error": _sentence(document)}).encode()
    return status, json.dumps(_without_nulls(document), separators=(",", ":")).encode()


def _without_nulls(document: Any) -> Any:
    """Return a v2 answer without its null fields, which the protocol's schemas do not allow."""
    if isinstance(document, dict):
        return {k: _without_nulls(v) for k, v in document.items() if v is not None}
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return [_without_nulls(v) for v in document]
    return document


def _sentence(document: Any) -> str:
    if isinstance(document.get("detail"), str):
        return document["detail"]
    try:
        first = document["detail"][0]
        where = ".".join(
            str(part) for part in first["loc"] if isinstance(part, str) and part != "body"
        )
        return f"{where or 'body'}: {first['msg']}"
    except (KeyError, IndexError, TypeError):
        return "the body is not an inference request"


def _length(scope: Scope) -> int | None:
    text = dict(scope["headers"]).get(b"content-length", b"0")
    return int(text) if text.isdigit() else None


def _as_json(scope: Scope) -> Scope:
    """Name the body JSON unless it says it is binary; clients write the type in many ways."""
    names = {k for k, _ in scope["headers"]}
    if scope["method"] != "POST" or b"inference-header-content-length" in names:
        return scope
    others = [(k, v) for k, v in scope["headers"] if k != b"content-type"]
    return {**scope, "headers": [*others, (b"content-type", b"application/json")]}


async def refuse(send: Send, status: int, error: str, *, retry_after: int | None = None) -> None:
    """Answer with a status and one sentence."""
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
