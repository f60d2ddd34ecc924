"""An ASGI application by hand on uvicorn: it decodes, runs, answers, and checks nothing.

python -m benchmarks.serving.rivals.raw PORT
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
import uvicorn

from benchmarks.serving.rivals.network import Network

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def application(network: Network) -> Any:
    """Return an application that answers v1, v2 JSON and v2 binary."""

    async def answer(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(b"content-type", b"application/json")]
        length = _binary(scope)
        if length is not None:
            data, header = _by_bytes(network, body, length)
            headers.append((b"inference-header-content-length", header))
        else:
            data = orjson.dumps(_by_json(network, orjson.loads(body)), option=_NUMPY)
        headers.append((b"content-length", b"%d" % len(data)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    return answer


_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def _binary(scope: dict[str, Any]) -> int | None:
    for name, value in scope["headers"]:
        if name == b"inference-header-content-length":
            return int(value)
    return None


def _by_json(network: Network, asked: dict[str, Any]) -> dict[str, Any]:
    if "instances" in asked:
        labels, probability_nk = network(asked["instances"])
        rows = zip(labels.tolist(), probability_nk.tolist(), strict=True)
        return {"predictions": [{"label": n, "probability": p} for n, p in rows]}
    tensor = asked["inputs"][0]
    labels, probability_nk = network(np.array(tensor["data"], np.float32).reshape(tensor["shape"]))
    return {"model_name": "m", "outputs": _outputs(labels, probability_nk)}


def _outputs(labels: Any, probability_nk: Any) -> list[dict[str, Any]]:
    n, k = probability_nk.shape
    return [
        {"name": "label", "shape": [n], "datatype": "INT64", "data": labels},
        {
            "name": "probability",
            "shape": [n, k],
            "datatype": "FP32",
            "data": probability_nk.ravel(),
        },
    ]


def _by_bytes(network: Network, body: bytes, length: int) -> tuple[bytes, bytes]:
    tensor = orjson.loads(body[:length])["inputs"][0]
    held = np.frombuffer(body, np.float32, offset=length).reshape(tensor["shape"])
    parts = [(one, one.pop("data").tobytes()) for one in _outputs(*network(held))]
    for one, data in parts:
        one["parameters"] = {"binary_data_size": len(data)}
    header = orjson.dumps({"model_name": "m", "outputs": [one for one, _ in parts]})
    return header + b"".join(data for _, data in parts), b"%d" % len(header)


def main() -> None:
    """Serve on a loopback port."""
    uvicorn.run(
        application(Network()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning",
        access_log=False, loop="uvloop", http="httptools", lifespan="off",
    )  # fmt: skip


if __name__ == "__main__":
    main()
