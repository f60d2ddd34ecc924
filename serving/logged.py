"""Every inference request is measured here and becomes one record of the prediction log."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import pyarrow as pa

from serving.hardened import App, Message, Receive, Scope, Send
from serving.prediction_log import PredictionLog

LONGEST = 200
"""Characters of a header that are kept."""


class Seen:
    """What is known of one request while it is answered."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Read what the edge says of it."""
        self.at = time.time()
        self.request_id = headers.get("x-request-id", "")[:LONGEST] or os.urandom(8).hex()
        self.user = _kept(headers.get("x-user-id"))
        bucket = headers.get("x-rollout-bucket", "")
        self.bucket = int(bucket) if re.fullmatch("[0-9]{1,9}", bucket) else None
        self.arm = _kept(headers.get("x-rollout-arm"))
        shadow = headers.get("x-rollout-shadow") == "1"
        self.mirrored = shadow or headers.get("host", "").split(":")[0].endswith("-shadow")
        self.features: pa.Table | None = None
        self.label: list[int] | None = None
        self.probability: list[float] | None = None

    def record(self, status: int, latency_ms: float, slot: str, version: str) -> dict[str, Any]:
        """Return the line of the prediction log."""
        return {
            **vars(self),
            "slot": slot,
            "version": version,
            "status": status,
            "latency_ms": round(latency_ms, 3),
        }


def _kept(text: str | None) -> str | None:
    return None if text is None else text[:LONGEST]


CURRENT: ContextVar[Seen | None] = ContextVar("request", default=None)
"""The request that is being answered."""


class Logged:
    """Measures every inference request, and hands its record to the prediction log."""

    def __init__(self, app: App, log: PredictionLog, *, slot: str, version: str) -> None:
        """Wrap an application that leaves what it finds in :data:`CURRENT`."""
        self._app, self._log, self._slot, self._version = app, log, slot, version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then record."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.endswith(("/infer", ":predict")):
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        seen = Seen(headers)
        token = CURRENT.set(seen)
        begun, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(seen)]
            await send(message)

        try:
            await self._app(_named(scope, seen.request_id), receive, noting)
        finally:
            CURRENT.reset(token)
            milliseconds = (time.perf_counter() - begun) * 1000
            self._log.add(seen.record(status, milliseconds, self._slot, self._version))

    def _headers(self, seen: Seen) -> list[tuple[bytes, bytes]]:
        said = {
            "x-penstock-version": self._version,
            "x-penstock-slot": self._slot,
            "x-request-id": seen.request_id,
        }
        return [(k.encode(), v.encode("latin-1", "replace")) for k, v in said.items()]


def _named(scope: Scope, request_id: str) -> Scope:
    """Return the request with its id, given or made, where everything behind can read it."""
    others = [(k, v) for k, v in scope["headers"] if k != b"x-request-id"]
    return {**scope, "headers": [*others, (b"x-request-id", request_id.encode("latin-1"))]}
