"""Writing: an answer as the protocol of its request has it, in JSON or as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.reading import Asked
from serving.seen import PARTS, Seen
from serving.tensors import OUTPUTS

Headers = list[tuple[bytes, bytes]]

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_PARTS = {part: part.encode() for part in PARTS}


def v1_body(asked: Asked) -> bytes:
    """Return the body of a v1 answer."""
    labels, probability_nk = answer_of(asked)
    rows = [{"label": n, "probability": p} for n, p in zip(labels, probability_nk, strict=True)]
    return orjson.dumps({"predictions": rows}, option=_NUMPY)


def v2_body(asked: Asked, *, name: str, version: str) -> tuple[bytes, int | None]:
    """Return the body of a v2 answer, and how many bytes of it are JSON; None when it all is."""
    labels, probability_nk = answer_of(asked)
    wanted, raw = asked.outputs or OUTPUTS, list[bytes]()
    outputs: list[dict[str, Any]] = []
    if "label" in wanted:
        said = {"name": "label", "shape": [len(labels)], "datatype": "INT64", "data": labels}
        outputs.append(said)
        if "label" in asked.binary:
            _as_bytes(said, np.array(labels, "<i8"), raw)
    if "probability" in wanted:
        shape, flat = list(probability_nk.shape), probability_nk.ravel()
        said = {"name": "probability", "shape": shape, "datatype": "FP32", "data": flat}
        outputs.append(said)
        if "probability" in asked.binary:
            _as_bytes(said, flat, raw)
    document = {
        "model_name": name,
        "model_version": version,
        "id": asked.id or asked.seen.request_id,
        "outputs": outputs,
    }
    body = orjson.dumps(document, option=_NUMPY)
    return (b"".join([body, *raw]), len(body)) if raw else (body, None)


def _as_bytes(said: dict[str, Any], held: NDArray[Any], raw: list[bytes]) -> None:
    """Move an output's data behind the document."""
    del said["data"]
    raw.append(held.tobytes())
    said["parameters"] = {"binary_data_size": len(raw[-1])}


def answer_of(asked: Asked) -> tuple[list[int], NDArray[np.float32]]:
    """Return labels and probabilities [n, classes] of a request that was answered."""
    assert asked.labels is not None
    assert asked.probability_nk is not None
    return asked.labels, np.ascontiguousarray(asked.probability_nk, np.float32)


def answer_headers(seen: Seen) -> Headers:
    """Return the headers that tell which request this answers, and what stood in."""
    headers = [(b"x-request-id", seen.request_id.encode("latin-1", "replace"))]
    if seen.fallbacks:
        headers.append((b"x-penstock-fallback", ",".join(seen.fallbacks).encode()))
    if seen.stale:
        headers.append((b"x-penstock-stale", ",".join(seen.stale).encode()))
    return headers


def timing(seen: Seen) -> tuple[bytes, bytes]:
    """Return the header that tells the milliseconds of each part that the request went through."""
    spent_us = seen.spent_us
    parts = [b"%s;dur=%.3f" % (_PARTS[part], us / 1000) for part, us in spent_us.items()]
    return b"server-timing", b", ".join(parts)


def error(sentence: str) -> bytes:
    """Return the body of a refusal."""
    # What a client wrote may hold half a character, which no JSON may.
    return orjson.dumps({"error": sentence.encode("utf-8", "replace").decode()})
