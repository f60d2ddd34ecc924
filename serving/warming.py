"""Warming: a few requests of every form go the whole way before the first client's does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from penstock.request import Contract, Instance, v1_request, v2_request
from serving.hardened import App, Message

ROUNDS = 5
"""After so many of each form, the next are no quicker."""

Form = tuple[str, bytes, list[tuple[bytes, bytes]]]
"""Path, body and headers of a request."""


class Unanswered(RuntimeError):
    """A request that must be answered was refused; the text says how."""


def warm(app: App, contract: Contract, rows: Sequence[Instance], *, name: str) -> None:
    """Ask with known rows, in every form that there is.

    Raises:
        Unanswered: One was refused.
    """

    async def ask_all() -> None:
        for path, body, headers in _forms(contract, rows, name):
            for _ in range(ROUNDS):
                await _ask(app, path, body, headers)

    asyncio.run(ask_all())


async def _ask(app: App, path: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    if sent[0]["status"] != 200:
        raise Unanswered(f"{path} answered golden requests with {sent[1]['body'].decode()}.")


def _forms(contract: Contract, rows: Sequence[Instance], name: str) -> Iterator[Form]:
    one, two = v1_request(contract, rows), v2_request(contract, rows)
    infer = f"/v2/models/{name}/infer"
    yield f"/v1/models/{name}:predict", orjson.dumps(one), []
    yield infer, orjson.dumps(two), []
    document, raw = _framed(two)
    yield infer, document + raw, [(b"inference-header-content-length", b"%d" % len(document))]


def _framed(two: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return a v2 document whose numbers follow it as bytes, and those."""
    inputs, raw = list[dict[str, Any]](), list[bytes]()
    for tensor in two["inputs"]:
        kind = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}[tensor["datatype"]]
        raw.append(np.array(tensor["data"], kind).tobytes())
        rest = {key: held for key, held in tensor.items() if key != "data"}
        inputs.append({**rest, "parameters": {"binary_data_size": len(raw[-1])}})
    said = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    return orjson.dumps(said), b"".join(raw)
