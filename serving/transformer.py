"""The transformer: looks features up before the predictor, where a cluster keeps both apart.

``python -m serving.transformer --bundle DIR --model-name NAME --predictor-host HOST[:PORT]``, which
KServe also writes with underscores. ``PENSTOCK_ONLINE`` names the online store. On one machine
nobody needs it: the predictor looks up by itself, for a fraction of the cost.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from penstock.bundle import BundleError, read
from penstock.online import Layout, OnlineError
from penstock.request import Contract, packaged_rules
from penstock.workload import RULES
from serving.features import Features
from serving.forwarding import Forwarding, Outcome
from serving.hardened import RETRY_AFTER_S, App, Hardened, Mended, Receive, Scope, Send
from serving.hop import Hop
from serving.instead import Rules, StandIn
from serving.reading import Asked, Names, read_v1, read_v2_binary, read_v2_json
from serving.seen import Seen
from serving.server import server
from serving.signature import KEY_VARIABLE, NotSigned, verify
from serving.writing import Headers, answer_headers, error, timing, v1_body, v2_body

LENGTH = b"inference-header-content-length"
JSON, BYTES = (b"content-type", b"application/json"), (b"content-type", b"application/octet-stream")
ONLINE = "PENSTOCK_ONLINE"

LOG = logging.getLogger("serving")


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a transformer needs of a package: everything but the model."""

    contract: Contract
    layout: Layout | None
    rules: Rules | None

    @classmethod
    def of(cls, path: Path, *, key: Path | None) -> Described:
        """Read a package.

        Raises:
            BundleError: A file is missing or altered.
            NotSigned: It has no valid signature by the key, or asks for one and no key is given.
        """
        if key is not None:
            verify(path, key)
        bundle = read(path, kind="package")
        contract = Contract.from_dict(bundle.json("serving.json"))
        if contract.endpoint.signed and key is None:
            raise NotSigned(f"{path} must be signed; {KEY_VARIABLE} names the public key.")
        held = bundle.manifest["files"]
        return cls(
            contract=contract,
            layout=Layout.from_dict(bundle.json("online.json")) if "online.json" in held else None,
            rules=packaged_rules(bundle) if RULES in held else None,
        )


class Lean:
    """Answers the hot routes; whether it is ready is for the predictor to say."""

    def __init__(self, app: App, names: Names, forwarding: Forwarding, *, name: str) -> None:
        """Take the parts.

        Args:
            app: What answers all other routes.
        """
        self._app, self._names, self._forwarding, self._name = app, names, forwarding, name
        self._v1, self._v2 = f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"
        self._ready = {"/v2/health/ready", f"/v2/models/{name}/ready", f"/v1/models/{name}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot route; hand on the rest."""
        path, method = scope["path"], scope["method"]
        if method == "POST" and path in (self._v1, self._v2):
            await self._infer(scope, receive, send)
        elif method == "GET" and path in self._ready:
            ready = await self._forwarding.ready()
            said = orjson.dumps({"name": self._name, "ready": ready})
            await _send(send, 200 if ready else 503, said, [JSON])
        else:
            await self._app(scope, receive, send)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        begun_s, seen = time.perf_counter(), Seen(headers)
        message = await receive()
        if message["type"] != "http.request":
            return
        outcome = Outcome([])
        try:
            asked = self._read(scope["path"], message["body"], headers, seen)
        except ValueError as e:
            asked, refusal = None, (400, str(e))
        else:
            asked.begun_s = begun_s
            seen.spent_us["read"] = (time.perf_counter() - begun_s) * 1e6
            outcome = await self._forwarding.answer(asked, headers)
            refusal = asked.refusal
        if asked is None or refusal is not None:
            assert refusal is not None
            await self._refuse(send, seen, outcome, *refusal)
        else:
            await self._write(send, asked, outcome)

    def _read(self, path: str, body: bytes, headers: dict[bytes, bytes], seen: Seen) -> Asked:
        if path == self._v1:
            return read_v1(self._names, body, seen)
        if LENGTH in headers:
            return read_v2_binary(self._names, body, headers[LENGTH], seen)
        return read_v2_json(self._names, body, seen)

    async def _write(self, send: Send, asked: Asked, outcome: Outcome) -> None:
        kind, rest = JSON, [*outcome.headers, *answer_headers(asked.seen), timing(asked.seen)]
        if asked.protocol == "v1":
            body = v1_body(asked)
        else:
            body, of_json = v2_body(asked, name=self._name, version=outcome.version)
            if of_json is not None:
                kind = BYTES
                rest.append((LENGTH, b"%d" % of_json))
        await _send(send, 200, body, [kind, *rest])

    async def _refuse(
        self, send: Send, seen: Seen, outcome: Outcome, status: int, sentence: str
    ) -> None:
        headers = [JSON, *outcome.headers, *answer_headers(seen)]
        if status in (429, 503):
            headers.append((b"retry-after", outcome.retry_after or b"%d" % RETRY_AFTER_S))
        await _send(send, status, error(sentence), headers)


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--model-name", "--model_name", required=True)
    parser.add_argument("--predictor-host", "--predictor_host", required=True)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a pod")
    parser.add_argument("--port", "--http_port", type=int, default=8080)
    # KServe adds it to what has none; one process is one event loop here.
    parser.add_argument("--workers", type=int, choices=(1,), default=1)
    return parser.parse_args(argv)


def assembled(given: argparse.Namespace) -> tuple[Names, Forwarding, Callable[[], None]]:
    """Return the parts of a transformer, connected, and what lets go of them.

    Raises:
        BundleError: A file of the package is missing or altered.
        NotSigned: It is not signed as it must be.
        OnlineError: There is no store of its features.
        ValueError: The endpoint declares what is not there; the predictor's address is none.
    """
    key = os.environ.get(KEY_VARIABLE)
    described = Described.of(given.bundle, key=None if key is None else Path(key))
    contract, instead = described.contract, StandIn.of(described)
    address = os.environ.get(ONLINE)
    if not address:
        raise ValueError(f"{ONLINE} is not set; it names the store that features are looked up in.")
    host, port = predictor_address(given.predictor_host)
    hop = Hop(
        host,
        port,
        connections=contract.endpoint.max_in_flight,
        timeout_s=contract.endpoint.timeout_ms / 1000,
    )
    features = Features.open(described, address, instead=instead)
    forwarding = Forwarding(
        contract, hop, name=given.model_name, features=features, instead=instead
    )
    return Names(contract, described.layout), forwarding, features.close


def predictor_address(text: str) -> tuple[str, int]:
    """Return host and port of the predictor; without a port it is 80, as KServe means it.

    Raises:
        ValueError: The port is no number.

    >>> predictor_address("digits-predictor.default"), predictor_address("127.0.0.1:8081")
    (('digits-predictor.default', 80), ('127.0.0.1', 8081))
    """
    host, colon, port = text.partition(":")
    if not host or (colon and not port.isdigit()):
        raise ValueError(f"--predictor-host is {text!r}; HOST or HOST:PORT was wanted.")
    return host, int(port) if colon else 80


def kserve(name: str, names: Names, forwarding: Forwarding) -> App:
    """Return KServe's own application for the model: it answers what the lean routes do not."""
    # KServe reads the command line when it is imported.
    sys.argv = sys.argv[:1]
    from kserve import ModelRepository, ModelServer  # noqa: PLC0415
    from kserve.errors import ModelNotFound  # noqa: PLC0415
    from kserve.model_server import app  # noqa: PLC0415
    from kserve.protocol.rest.server import RESTServer  # noqa: PLC0415

    from serving.model import answer_refusal  # noqa: PLC0415
    from serving.transformer_model import TransformerModel  # noqa: PLC0415

    for logger in ("kserve.trace", "uvicorn.access", "kserve"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    held = ModelServer(registered_models=ModelRepository(), enable_grpc=False)
    held.register_model(TransformerModel(name, names, forwarding))
    rest = RESTServer(
        "kserve.model_server:app", held.dataplane, held.model_repository_extension, http_port=0
    )
    rest.create_application()
    app.add_exception_handler(ModelNotFound, answer_refusal)
    return app


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    made.listen(256)
    # Accepted connections inherit it; without it the body waits 40 ms for the headers' receipt.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop. Ends with 1 and one sentence when it cannot."""
    given = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        names, forwarding, close = assembled(given)
        listens = listening(given.host, given.port)
    except (BundleError, NotSigned, OnlineError, ValueError, OSError) as e:
        print(f"not transforming: {e}", file=sys.stderr)
        return 1
    rest = Mended(kserve(given.model_name, names, forwarding))
    endpoint = names.contract.endpoint
    hardened = Hardened(Lean(rest, names, forwarding, name=given.model_name), endpoint)
    try:
        server(hardened, hardened, endpoint).run(sockets=[listens])
    finally:
        close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
