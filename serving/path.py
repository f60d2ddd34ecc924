"""Path: the lean way of an inference request, beside KServe's own application.

Predictions, and the routes that say what and how we are, are answered here; all else goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import orjson

from serving.answering import Answering
from serving.batching import Batching
from serving.hardened import BEGUN, RETRY_AFTER_S, App, Receive, Scope, Send
from serving.metadata import states
from serving.reading import Asked, Names, Protocol, read_v1, read_v2_binary, read_v2_json
from serving.runtime import DEFAULT
from serving.seen import Seen, id_of
from serving.writing import Headers, answer_headers, error, timing, v1_body, v2_body

LENGTH = b"inference-header-content-length"
JSON, BYTES = (b"content-type", b"application/json"), (b"content-type", b"application/octet-stream")
SERVICE_UNAVAILABLE = 503
ENCODED = "content-encoding: a compressed body came; bodies are read as they are, send it plain"


class Path:
    """Answers the hot routes of one model. A body has passed the protocol's limits before."""

    def __init__(
        self,
        app: App,
        names: Names,
        answering: Answering,
        batching: Batching,
        *,
        name: str,
        runtime: str = DEFAULT,
        told: Sequence[Callable[[Seen], None]] = (),
        counted: Callable[[Seen, Protocol], None] | None = None,
    ) -> None:
        """Take the parts.

        Args:
            app: What answers all other routes.
            name: Of the model, as it stands in its routes.
            runtime: What runs the model; the metadata name it.
            told: Told of every inference request when its answer was sent; must not wait or raise.
            counted: The same, with the protocol.
        """
        self._app, self._names, self._answering, self._batching = app, names, answering, batching
        self._name, self._told, self._counted = name, tuple(told), counted
        self._hot: dict[str, Protocol] = {
            f"/v1/models/{name}:predict": "v1",
            f"/v2/models/{name}/infer": "v2",
            f"/v2/models/{name}/versions/{answering.version}/infer": "v2",
        }
        said = states(names, name=name, version=answering.version, runtime=runtime)
        self._said = {path: orjson.dumps(one) for path, one in said.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route; hand on the rest."""
        path = scope["path"]
        if path in self._hot and scope["method"] == "POST":
            await self._infer(self._hot[path], scope, receive, send)
        elif path in self._said and scope["method"] == "GET":
            await _send(send, 200, self._said[path], [JSON, *self._answering.headers])
        else:
            await self._app(scope, receive, send)

    async def _infer(self, protocol: Protocol, scope: Scope, receive: Receive, send: Send) -> None:
        begun_s = scope.get(BEGUN) or time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        seen = Seen(headers)
        body = await _body(receive)
        if body is None:
            return
        try:
            await self._respond(protocol, body, headers, seen, begun_s, send)
        except BaseException:
            seen.status = 500
            raise
        finally:
            seen.latency_ms = (time.perf_counter() - begun_s) * 1000
            for told in self._told:
                told(seen)
            if self._counted is not None:
                self._counted(seen, protocol)

    async def _respond(
        self,
        protocol: Protocol,
        body: bytes,
        headers: dict[bytes, bytes],
        seen: Seen,
        begun_s: float,
        send: Send,
    ) -> None:
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            await self._refuse(send, seen, 415, ENCODED)
            return
        try:
            asked = self._read(protocol, body, headers, seen, begun_s)
        except ValueError as e:
            await self._refuse(send, seen, 400, str(e))
            return
        await self._answer(asked)
        if asked.refusal is None:
            await self._write(send, asked)
        else:
            await self._refuse(send, seen, *asked.refusal)

    def _read(
        self,
        protocol: Protocol,
        body: bytes,
        headers: dict[bytes, bytes],
        seen: Seen,
        came_s: float,
    ) -> Asked:
        begun_s = time.perf_counter()
        if protocol == "v1":
            asked = read_v1(self._names, body, seen)
        elif LENGTH in headers:
            asked = read_v2_binary(self._names, body, headers[LENGTH], seen)
        else:
            asked = read_v2_json(self._names, body, seen)
        if asked.id and b"x-request-id" not in headers:
            seen.request_id = id_of(asked.id.encode())
        asked.begun_s = came_s
        seen.spent_us["read"] = (time.perf_counter() - begun_s) * 1e6
        return asked

    async def _answer(self, asked: Asked) -> None:
        if self._answering.fault is not None:
            await self._answering.rehearse(asked)
        if asked.refusal is not None:
            return
        begun_s, spent_us = time.perf_counter(), asked.seen.spent_us
        await self._batching.answer(asked)
        waited_us = (time.perf_counter() - begun_s) * 1e6
        worked_us = spent_us.get("features", 0.0) + spent_us.get("inference", 0.0)
        spent_us["queue"] = max(0.0, waited_us - worked_us)

    async def _write(self, send: Send, asked: Asked) -> None:
        begun_s, seen = time.perf_counter(), asked.seen
        kind, rest = JSON, answer_headers(seen)
        if asked.protocol == "v1":
            body = v1_body(asked)
        else:
            body, of_json = v2_body(asked, name=self._name, version=self._answering.version)
            if of_json is not None:
                kind = BYTES
                rest.append((LENGTH, b"%d" % of_json))
        seen.spent_us["write"] = (time.perf_counter() - begun_s) * 1e6
        seen.status = 200
        await _send(send, 200, body, [kind, *self._answering.headers, *rest, timing(seen)])

    async def _refuse(self, send: Send, seen: Seen, status: int, sentence: str) -> None:
        seen.status = status
        headers = [JSON, *self._answering.headers, *answer_headers(seen)]
        if status == SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        await _send(send, status, error(sentence), headers)


async def _body(receive: Receive) -> bytes | None:
    """Return a request's body, None of one that was cut off."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body if message["type"] == "http.request" else None


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
