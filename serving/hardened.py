"""Close what the stock server leaves open: repository calls, header echo, pile-ups, leaked errors.

:class:`Hardened` lies around everything and touches no answer, so it costs a hot request next to
nothing. :class:`Mended` lies around KServe's own application alone, and gives its answers the
protocol's form. What concerns bytes and time is the protocol's (:mod:`serving.protocol`): a request
arrives here whole, of an allowed size.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from penstock.endpoint import Endpoint
from serving.seen import id_of

FAILED = "the model failed; the request id finds the reason in the server's log"
"""All a client learns of an exception."""

BUSY = "too many requests at once; try again"
STOPPING = "this server is stopping; try again"
UNKNOWN = "there is no such model, or no such version of it"
RETRY_AFTER_S = 1
BEGUN = "penstock.begun_s"
"""Of a scope: when its request was whole, by ``time.perf_counter``."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

POSTED = re.compile(r"/v1/models/[^/:]+:predict|/v2/models/[^/]+(/versions/[^/]+)?/infer")
GOT = re.compile(
    r"/|/v1/models|/v1/models/[^/:]+"
    r"|/v2|/v2/health/(live|ready)|/v2/models|/v2/models/[^/]+(/versions/[^/]+)?(/ready)?"
)
"""With ``POSTED`` the only paths there are: no repository, ``explain``, docs, metrics."""

LIVE = ("/", "/v2/health/live")
DOCUMENT = "/openapi.json"


class Hardened:
    """Refuses what is not open and what is too much; hands on the rest untouched."""

    def __init__(
        self,
        app: App,
        endpoint: Endpoint,
        *,
        document: Mapping[str, Any] | None = None,
        said: Headers = (),
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the application to protect.

        Args:
            document: What is answered at ``/openapi.json``; without it the path is closed.
            said: Headers of every answer that is given here or by the protocol: who gives it.
            told: Told when no new requests are taken.
        """
        self._app, self.said, self._told = app, tuple(said), told
        self._most = endpoint.max_in_flight
        self._document = None if document is None else json.dumps(document).encode()
        self.draining = False
        self.in_flight = 0
        """Predictions that are worked on."""

        self.refused: Counter[int] = Counter()
        """Requests that were refused here and by the protocol, by status."""

    def drain(self) -> None:
        """Refuse what comes from now on with 503; what is in flight is finished."""
        self.draining = True
        self._most = 0
        self._told()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused; hand on the rest."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served; only HTTP is.")
        if scope["method"] != "POST" or not POSTED.fullmatch(scope["path"]):
            await self._other(scope, receive, send)
            return
        if self.in_flight >= self._most:
            await self._too_much(scope, send)
            return
        self.in_flight += 1
        try:
            await self._app(scope, receive, send)
        except Exception as e:  # noqa: BLE001 - whatever it is, the client learns nothing of it
            await self._failed(scope, send, e)
        finally:
            self.in_flight -= 1

    def _about(self, scope: Scope) -> Headers:
        """Return the headers of an answer to a request: who gives it, and its id if it had one."""
        came = dict(scope["headers"]).get(b"x-request-id")
        return self.said if not came else (*self.said, (b"x-request-id", id_of(came).encode()))

    async def _too_much(self, scope: Scope, send: Send) -> None:
        status, error = (503, STOPPING) if self.draining else (429, BUSY)
        self.refused[status] += 1
        close, more = self.draining, self._about(scope)
        await refuse(send, status, error, retry_after=RETRY_AFTER_S, close=close, more=more)

    async def _failed(self, scope: Scope, send: Send, why: Exception) -> None:
        came = dict(scope["headers"]).get(b"x-request-id")
        said = id_of(came) if came else "without an id"
        logging.getLogger("serving").error("request %s failed", said, exc_info=why)
        await refuse(send, 500, FAILED, more=self._about(scope))

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whatever is no prediction."""
        path, method = scope["path"], scope["method"]
        described = path == DOCUMENT and self._document is not None
        allowed = "GET" if described or GOT.fullmatch(path) else "POST"
        if allowed == "POST" and not POSTED.fullmatch(path):
            await self._refuse(scope, send, 404, "not found")
        elif method not in (allowed, allowed.replace("GET", "HEAD")):
            await self._refuse(scope, send, 405, f"{path} takes {allowed}", allow=allowed)
        elif self.draining and path not in LIVE:
            await self._too_much(scope, send)
        elif described:
            await _answer(send, 200, self._document or b"", self._about(scope))
        else:
            try:
                await self._app({**scope, "method": "GET"}, receive, send)
            except Exception as e:  # noqa: BLE001 - as above
                await self._failed(scope, send, e)

    async def _refuse(
        self, scope: Scope, send: Send, status: int, error: str, *, allow: str = ""
    ) -> None:
        self.refused[status] += 1
        await refuse(send, status, error, allow=allow, more=self._about(scope))


class Mended:
    """Gives every answer of KServe's own application the protocol's form."""

    def __init__(self, app: App, *, said: Headers = ()) -> None:
        """Take KServe's application, and the headers that tell who answers."""
        self._app, self._said = app, tuple(said)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as it does, with one form of errors and without nulls.

        Predictions of a model that there is never come here, and KServe knows no versions.
        """
        if scope["method"] == "POST" or "/versions/" in scope["path"]:
            await refuse(send, 404, UNKNOWN, more=self._said)
            return
        answer = _Answer(self._said)
        await self._app(scope, receive, answer)
        await answer.finish(send)


class _Answer:
    """Holds an answer back until it is whole."""

    def __init__(self, said: Headers) -> None:
        self._said = said
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")

    async def finish(self, send: Send) -> None:
        """Send the answer; a validation error becomes a 400 with one sentence."""
        start = self._start
        if start is None:
            await refuse(send, 500, FAILED, more=self._said)
            return
        headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
        kind = dict(headers).get(b"content-type", b"")
        if kind.startswith(b"application/json") and self._body:
            start["status"], self._body = _mended(start["status"], self._body)
        headers.append((b"content-length", str(len(self._body)).encode()))
        await send({**start, "headers": [*headers, *self._said]})
        await send({"type": "http.response.body", "body": self._body})


def _mended(status: int, body: bytes) -> tuple[int, bytes]:
    """Return status and body with ``{"error": …}`` for every error, and without nulls."""
    try:
        document = json.loads(body)
    except ValueError:
        return status, body
    if status == 500:
        return status, json.dumps({"error": FAILED}).encode()
    if status >= 400 and not document.get("error"):
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
        return "this cannot be answered; /openapi.json says what can"


async def refuse(
    send: Send,
    status: int,
    error: str,
    *,
    retry_after: int | None = None,
    allow: str = "",
    close: bool = False,
    more: Headers = (),
) -> None:
    """Answer with a status and one sentence.

    Args:
        retry_after: Seconds until it may go better.
        allow: The method that the path takes.
        close: Whether the connection ends with this answer.
        more: Headers besides.
    """
    headers = list(more)
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    if allow:
        headers.append((b"allow", allow.encode()))
    if close:
        headers.append((b"connection", b"close"))
    await _answer(send, status, json.dumps({"error": error}).encode(), headers)


async def _answer(send: Send, status: int, body: bytes, headers: Headers) -> None:
    said = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": said})
    await send({"type": "http.response.body", "body": body})
