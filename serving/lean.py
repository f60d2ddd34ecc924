"""Lean: the hot routes of a transformer, beside KServe's own application."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson

from serving.forwarding import LENGTH, Forwarding, Outcome
from serving.hardened import RETRY_AFTER_S, App, Receive, Scope, Send
from serving.path import ENCODED
from serving.reading import Asked, Names, read_v1, read_v2_binary, read_v2_json
from serving.seen import Seen
from serving.writing import Headers, answer_headers, error, timing, v1_body, v2_body

JSON, BYTES = (b"content-type", b"application/json"), (b"content-type", b"application/octet-stream")


class Lean:
    """Answers the hot routes; whether it is ready is for the predictor to say."""

    def __init__(
        self,
        app: App,
        names: Names,
        forwarding: Forwarding,
        *,
        name: str,
        told: Callable[[Seen, str], None],
        version: str = "",
    ) -> None:
        """Take the parts.

        Args:
            version: Of the package that features are looked up for; a predictor of another one is
                none to be ready with. Empty where nobody said it.
            app: What answers all other routes.
            told: Told, with its protocol, of every request that the predictor did not answer,
                and so has not on record; must not wait or raise.
        """
        self._app, self._names, self._forwarding, self._name = app, names, forwarding, name
        self._told, self._version = told, version
        self._v1, self._v2 = f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"
        self._ready = {"/v2/health/ready", f"/v2/models/{name}/ready", f"/v1/models/{name}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route; hand on the rest."""
        path, method = scope["path"], scope["method"]
        if method == "POST" and path in (self._v1, self._v2):
            await self._infer(scope, receive, send)
        elif method == "GET" and path in self._ready:
            await self._say_ready(send)
        else:
            await self._app(scope, receive, send)

    async def _say_ready(self, send: Send) -> None:
        """Answer as who the predictor says it is: whoever asks wants to know who answers users."""
        ready, who = await self._forwarding.standing()
        version = dict(who).get(b"x-penstock-version", b"").decode("latin-1")
        ready = ready and self._version in ("", version)
        said = orjson.dumps({"name": self._name, "ready": ready})
        await _send(send, 200 if ready else 503, said, [JSON, *who])

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        begun_s, seen, outcome = time.perf_counter(), Seen(headers), Outcome([])
        message = await receive()
        if message["type"] != "http.request":
            return
        try:
            asked = self._read(scope["path"], message["body"], headers, seen)
            asked.begun_s = begun_s
            seen.spent_us["read"] = (time.perf_counter() - begun_s) * 1e6
            outcome = await self._forwarding.answer(asked, headers)
            await self._respond(send, asked, outcome)
        except _Refused as e:
            await self._refuse(send, seen, outcome, e.status, str(e))
        finally:
            if not outcome.answered:
                seen.latency_ms = (time.perf_counter() - begun_s) * 1000
                self._told(seen, "v1" if scope["path"] == self._v1 else "v2")

    def _read(self, path: str, body: bytes, headers: dict[bytes, bytes], seen: Seen) -> Asked:
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _Refused(415, ENCODED)
        try:
            if path == self._v1:
                return read_v1(self._names, body, seen)
            if LENGTH in headers:
                return read_v2_binary(self._names, body, headers[LENGTH], seen)
            return read_v2_json(self._names, body, seen)
        except ValueError as e:
            raise _Refused(400, str(e)) from e

    async def _respond(self, send: Send, asked: Asked, outcome: Outcome) -> None:
        if asked.refusal is not None:
            raise _Refused(*asked.refusal)
        await self._write(send, asked, outcome)

    async def _write(self, send: Send, asked: Asked, outcome: Outcome) -> None:
        kind, rest = JSON, [*outcome.headers, *answer_headers(asked.seen), timing(asked.seen)]
        if asked.protocol == "v1":
            body = v1_body(asked)
        else:
            body, of_json = v2_body(asked, name=self._name, version=outcome.version)
            if of_json is not None:
                kind = BYTES
                rest.append((LENGTH, b"%d" % of_json))
        asked.seen.status = 200
        await _send(send, 200, body, [kind, *rest])

    async def _refuse(
        self, send: Send, seen: Seen, outcome: Outcome, status: int, sentence: str
    ) -> None:
        seen.status = status
        headers = [JSON, *outcome.headers, *answer_headers(seen)]
        if status in (429, 503):
            headers.append((b"retry-after", outcome.retry_after or b"%d" % RETRY_AFTER_S))
        await _send(send, status, error(sentence), headers)


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Refused(Exception):
    """What is said instead of an answer."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
