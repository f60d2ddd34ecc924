"""The server of a predictor: uvicorn with our protocol, and an end at which nobody is cut off."""

from __future__ import annotations

import asyncio
import math
import resource
import socket
from typing import Any

import uvicorn

from penstock.endpoint import Endpoint
from serving.hardened import Hardened
from serving.protocol import Limits, protocol

RESERVED_FILES = 256
"""Descriptors that connections leave to logs, stores and metrics."""

MOST_FILES = 1 << 16
SETTLE_S = 0.1
"""How long a stopping server still takes requests: what was on its way is answered."""


class Stopping(uvicorn.Server):
    """Ends by finishing what is in flight, while whoever still comes is asked to come back."""

    def __init__(self, configuration: uvicorn.Config, app: Hardened, *, grace_s: float) -> None:
        """Take what it runs and how long requests in flight may take to finish."""
        super().__init__(configuration)
        self._app, self._grace_s = app, grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what is on its way come in, drain, then close."""
        await asyncio.sleep(SETTLE_S)
        self._app.drain()
        end = asyncio.get_running_loop().time() + self._grace_s
        # An event that is set by the last one out would cost every request.
        while self._app.in_flight and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)


def server(app: Any, hardened: Hardened, endpoint: Endpoint) -> Stopping:
    """Return the server of an application.

    Args:
        app: What is served: ``hardened``, or what lies around it.
    """
    limits = Limits(
        body_bytes=endpoint.max_body_bytes,
        unfinished_bytes=endpoint.max_body_bytes * max(endpoint.max_in_flight, 16),
        connections=open_files() - RESERVED_FILES,
    )
    grace_s = endpoint.timeout_ms / 1000 + 1
    configuration = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        loop="uvloop",
        http=protocol(limits, hardened.refused, hardened.said),
        ws="none",
        lifespan="off",
        server_header=False,
        backlog=4096,
        timeout_graceful_shutdown=math.ceil(grace_s + limits.linger_s),
    )
    return Stopping(configuration, hardened, grace_s=grace_s)


def open_files() -> int:
    """Raise the number of files this process may open to what it is allowed; return it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (MOST_FILES if n == resource.RLIM_INFINITY else n for n in limits)
    most = max(soft, min(hard, MOST_FILES))
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    return most
