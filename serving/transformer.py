"""The transformer: looks features up before the predictor, where a cluster keeps both apart.

``python -m serving.transformer --bundle DIR --model-name NAME --predictor-host HOST[:PORT]``, which
KServe also writes with underscores. ``PENSTOCK_ONLINE`` names the online store. On one machine
nobody needs it: the predictor looks up by itself, for a fraction of the cost.

``PENSTOCK_SALT`` names the file with the salt of user hashes, ``PENSTOCK_SIGNED_BY`` the public key
by which the package must be signed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.bundle import BundleError
from penstock.online import Layout, OnlineError
from penstock.request import Contract, packaged_rules
from penstock.workload import RULES
from serving.features import Features
from serving.forwarding import Forwarding
from serving.hardened import App, Hardened, Mended
from serving.hop import Hop
from serving.instead import Rules, StandIn
from serving.lean import Lean
from serving.metrics import Metrics
from serving.openapi import document
from serving.parts import ONLINE, salt
from serving.prediction_log import ROLL_S, ROLLED, PredictionLog, seconds
from serving.reading import Names
from serving.seen import Seen
from serving.server import server
from serving.signature import KEY_VARIABLE, NotSigned, verified

LOG = logging.getLogger("serving")
BEGUN = time.monotonic()


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
        with verified(path, key) as bundle:
            contract = Contract.from_dict(bundle.json("serving.json"))
            if contract.endpoint.signed and key is None:
                raise NotSigned(f"{path} must be signed; {KEY_VARIABLE} names the public key.")
            held = bundle.manifest["files"]
            layout = bundle.json("online.json") if "online.json" in held else None
            return cls(
                contract=contract,
                layout=None if layout is None else Layout.from_dict(layout),
                rules=packaged_rules(bundle) if RULES in held else None,
            )


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="folder of the package, which it reads in part")
    add("--model-name", "--model_name", required=True, help="as it stands in the routes")
    said = "HOST or HOST:PORT of the predictor; without a port it is 80"
    add("--predictor-host", "--predictor_host", required=True, help=said)
    add("--host", default="127.0.0.1", help="where to listen; 0.0.0.0 in a pod")
    add("--port", "--http_port", type=int, default=8080, help="8080 unless it is said")
    add("--log", type=Path, help="folder of a log of what the predictor did not answer")
    add("--log-roll-s", type=seconds, default=ROLL_S, help=ROLLED)
    add("--version", default="", help="of the package; the records of the log hold it")
    add("--slot", default="a", help="the same, of the slot; a unless it is said")
    said = "where Prometheus finds the numbers; 0 takes a free one; none without it"
    add("--metrics-port", type=int, help=said)
    # KServe adds it to what has none; one process is one event loop here.
    add("--workers", type=int, choices=(1,), default=1, help="KServe says it; there is one")
    given = parser.parse_args(argv)
    if given.log is not None and not given.version:
        parser.error("--log needs --version: whoever reads a record asks which version it was.")
    return given


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What answers requests, and what watches them."""

    names: Names
    forwarding: Forwarding
    features: Features
    metrics: Metrics
    log: PredictionLog | None

    def told(self, seen: Seen, protocol: str) -> None:
        """Put a request on record."""
        if self.log is not None:
            self.log.add(seen)
        self.metrics.observe(seen, protocol)

    def close(self) -> None:
        """Write what waits, and let go of what is held."""
        if self.log is not None:
            self.log.close()
        self.metrics.close()
        self.features.close()


def assembled(given: argparse.Namespace) -> Parts:
    """Return the parts of a transformer, connected.

    Raises:
        BundleError: A file of the package is missing or altered.
        NotSigned: It is not signed as it must be.
        OnlineError: There is no store of its features.
        ValueError: The endpoint declares what is not there; the predictor's address is none.
        OSError: The salt cannot be read.
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
    who = {"slot": given.slot, "version": given.version}
    log = None
    if given.log is not None:
        log = PredictionLog(given.log, contract, **who, salt=salt(), roll_s=given.log_roll_s)
    metrics = Metrics(contract, **who, log=log)
    features = Features.open(described, address, instead=instead, aged=metrics.observe_age)
    metrics.watch("lookups", lambda: features.outcomes)
    metrics.watch("unknown_entities", lambda: features.unknown)
    forwarding = Forwarding(
        contract, hop, name=given.model_name, features=features, instead=instead
    )
    names = Names(contract, described.layout)
    return Parts(names=names, forwarding=forwarding, features=features, metrics=metrics, log=log)


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
    """Return a listening socket.

    Raises:
        OSError: The port is taken, or none of ours.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as e:
        made.close()
        raise OSError(f"port {port} cannot be listened on: {e.strerror}.") from e
    made.listen(256)
    # Accepted connections inherit it; without it the body waits 40 ms for the headers' receipt.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop. Ends with 1 and one sentence when it cannot."""
    given = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        parts = assembled(given)
        listens = listening(given.host, given.port)
        if given.metrics_port is not None:
            port = parts.metrics.serve(given.metrics_port, host=given.host)
            LOG.info("metrics are on port %d", port)
    except (BundleError, NotSigned, OnlineError, ValueError, OSError) as e:
        print(f"not transforming: {e}", file=sys.stderr)
        return 1
    try:
        serve(given, parts, listens)
    finally:
        parts.close()
    return 0


def serve(given: argparse.Namespace, parts: Parts, listens: socket.socket) -> None:
    """Answer requests until told to stop; requests in flight are finished."""
    name, names, metrics = given.model_name, parts.names, parts.metrics
    lean = Lean(
        Mended(kserve(name, names, parts.forwarding)),
        names,
        parts.forwarding,
        name=name,
        told=parts.told,
        version=given.version,
    )
    endpoint = names.contract.endpoint
    described = document(names, name=name, version=given.version)
    hardened = Hardened(lean, endpoint, document=described, told=metrics.draining)
    metrics.watch("in_flight", lambda: hardened.in_flight)
    metrics.refusals(lambda: hardened.refused)
    if parts.log is not None:
        parts.log.start()
    metrics.became_ready(round(time.monotonic() - BEGUN, 2), ())
    running = server(hardened, hardened, endpoint)
    # Uvicorn raises the signal that ended it once more: unhandled it would end us before the log is
    # on disk.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    running.run(sockets=[listens])


def _end(_number: int, _frame: object) -> None:
    """End, after what has to be finished."""
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
