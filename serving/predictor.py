"""The predictor: a KServe model server for one package, ready only when right.

``python -m serving.predictor --bundle DIR --model-name NAME --version V --slot a --log DIR`` and
either ``--fd N`` (a listening socket inherited from the supervisor) or ``--port P``, on loopback
unless ``--host`` says otherwise. With ``--digest`` it serves the package of this digest and no
other.

``PENSTOCK_ONLINE`` names the online store of features, ``PENSTOCK_SALT`` the file with the salt of
user hashes, ``PENSTOCK_SIGNED_BY`` the public key by which the package must be signed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from penstock.bundle import Bundle, read, write_json
from penstock.online import OnlineError
from penstock.processes import die_with_parent
from serving.batching import Batching
from serving.faults import KINDS
from serving.hardened import UNKNOWN, App, Hardened, Mended, Receive, Scope, Send, refuse
from serving.openapi import document
from serving.package import NotServable, Served
from serving.parts import Parts, answering_of, assembled
from serving.path import Path as LeanPath
from serving.prediction_log import ROLL_S, ROLLED, seconds
from serving.reading import Names, of_instances
from serving.ruling import Ruled
from serving.runtime import DEFAULT, RUNTIMES
from serving.seen import Seen
from serving.server import server
from serving.signature import KEY_VARIABLE
from serving.warming import Unanswered, warm

BEGUN = time.monotonic()
LOOPBACK = "127.0.0.1"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--digest", help="of the package, as it was registered")
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--slot", default="a")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="a listening socket")
    where.add_argument("--port", type=int)
    said = "where to listen, for requests and for Prometheus; 0.0.0.0 in a pod"
    parser.add_argument("--host", default=LOOPBACK, help=said)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--log-roll-s", type=seconds, default=ROLL_S, help=ROLLED)
    parser.add_argument("--runtime", choices=sorted(RUNTIMES), default=DEFAULT)
    parser.add_argument(
        "--rules-only", action="store_true", help="load no model; the package's rules answer"
    )
    parser.add_argument("--metrics-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fault", help=f"a way to be broken: {', '.join(KINDS)}")
    parser.add_argument("--fault-on", choices=("live", "all"), default="live")
    return parser.parse_args(argv)


def serve(
    given: argparse.Namespace, parts: Parts, listens: socket.socket, ready: Callable[[], None]
) -> None:
    """Answer requests until told to stop; requests in flight are finished.

    Args:
        ready: Called when everything is loaded and the next thing is to answer.
    """
    names, name, metrics = parts.names, given.model_name, parts.metrics
    said = parts.answering.headers
    path = LeanPath(
        Mended(kserve(name, parts), said=said),
        names,
        parts.answering,
        parts.batching,
        name=name,
        runtime=given.runtime,
        told=parts.told,
        counted=metrics.observe,
    )
    endpoint = names.contract.endpoint
    described = document(names, name=name, version=given.version)
    hardened = Hardened(path, endpoint, document=described, said=said, told=metrics.draining)
    metrics.watch("in_flight", lambda: hardened.in_flight)
    metrics.refusals(lambda: hardened.refused)
    ready()
    # Not asyncio.run(server.serve()): that would run on asyncio's own loop, whatever is configured.
    server(hardened, hardened, endpoint).run(sockets=[listens])


def kserve(name: str, parts: Parts) -> App:
    """Return KServe's own application for the model: it answers what the lean path does not."""
    # KServe reads the command line when it is imported.
    sys.argv = sys.argv[:1]
    from fastapi.exceptions import FastAPIDeprecationWarning  # noqa: PLC0415
    from kserve import ModelRepository, ModelServer  # noqa: PLC0415
    from kserve.errors import ModelNotFound  # noqa: PLC0415
    from kserve.model_server import app  # noqa: PLC0415
    from kserve.protocol.rest.server import RESTServer  # noqa: PLC0415

    from serving.model import PackageModel, answer_refusal  # noqa: PLC0415

    # Of how KServe writes its answers: nobody who reads our log can do anything about it.
    warnings.simplefilter("ignore", FastAPIDeprecationWarning)
    for logger in ("kserve.trace", "uvicorn.access", "kserve"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    held = ModelServer(registered_models=ModelRepository(), enable_grpc=False)
    held.register_model(PackageModel(name, parts.names, parts.answering))
    rest = RESTServer(
        "kserve.model_server:app", held.dataplane, held.model_repository_extension, http_port=0
    )
    rest.create_application()
    app.add_exception_handler(ModelNotFound, answer_refusal)
    return app


def listening(given: argparse.Namespace) -> socket.socket:
    """Return the inherited socket, or one on the asked port.

    Raises:
        NotServable: The inherited socket would be heard from outside this machine, or the port is
            taken.
    """
    if given.fd is not None:
        made = socket.socket(fileno=given.fd)
        if made.getsockname()[0] != LOOPBACK:
            raise NotServable(f"the socket listens on {made.getsockname()}, not on loopback.")
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(made, given.host, given.port)
        made.listen(256)
    # Accepted connections inherit it; without it the body waits 40 ms for the headers' receipt.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _bind(made: socket.socket, host: str, port: int) -> None:
    try:
        made.bind((host, port))
    except OSError as e:
        made.close()
        raise NotServable(f"port {port} cannot be listened on: {e.strerror}.") from e


def check_digest(package: Bundle, wanted: str | None) -> None:
    """Refuse another package than the one that was registered.

    Raises:
        NotServable: It is another.
    """
    if wanted is not None and package.digest != wanted:
        raise NotServable(
            f"{package.path} has digest {package.digest[7:19]}, registered was {wanted[7:19]}."
        )


def loaded(given: argparse.Namespace) -> tuple[Served | Ruled, int]:
    """Return the package, verified and warm, and how many golden requests it answered right.

    Raises:
        NotServable: It must not serve.
    """
    if given.digest is not None:
        check_digest(read(given.bundle, kind="package"), given.digest)
    named = os.environ.get(KEY_VARIABLE)
    key = None if named is None else Path(named)
    served = (
        Ruled(given.bundle, key=key)
        if given.rules_only
        else Served(given.bundle, runtime=given.runtime, key=key)
    )
    # What is served was read a second time; between the two the folder may have been exchanged.
    check_digest(served.bundle, given.digest)
    if isinstance(served, Served):
        served.warm()
    _check_readable(served)
    golden = served.check_golden()
    _warm_the_way(served, given)
    return served, golden


async def _nowhere(_scope: Scope, _receive: Receive, send: Send) -> None:
    await refuse(send, 404, UNKNOWN)


def _check_readable(served: Served | Ruled) -> None:
    """Read the golden requests as those of clients are read.

    Raises:
        NotServable: The package's own contract refuses one.
    """
    names = Names(served.contract, None)
    for number, request in enumerate(served.instances, start=1):
        try:
            of_instances(names, {"instances": [request]}, Seen({}))
        except ValueError as e:
            raise NotServable(f"golden request {number} breaks the package's contract: {e}") from e


def _warm_the_way(served: Served | Ruled, given: argparse.Namespace) -> None:
    """Let golden requests go the way of clients', told to no log and counted nowhere.

    Raises:
        NotServable: One was refused.
    """
    answering = answering_of(served, version=given.version)
    batching = Batching(answering.run, most=1, timeout_ms=60_000)
    names, name = Names(served.contract, None), given.model_name
    path = LeanPath(_nowhere, names, answering, batching, name=name)
    try:
        warm(path, served.contract, served.instances[:1], name=name)
    except Unanswered as e:
        raise NotServable(str(e)) from e


def _leave(_number: int, _frame: object) -> None:
    """End at once: an exception amid an import would come out of it as another one."""
    os._exit(0)


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def main(argv: list[str] | None = None) -> int:
    """Load, warm, check, serve. Ends with 1 and one sentence when the package must not serve."""
    given = arguments(argv)
    # One loop, one model: torch's threads would wait for each other on cores that others use.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.fd is not None:
        die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    given.log.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        served, golden = loaded(given)
        listens = listening(given)
        parts = assembled(given, served)
        port = parts.metrics.serve(given.metrics_port, host=given.host)
    except (NotServable, OnlineError, ValueError, OSError) as e:
        print(f"not serving version {given.version}: {e}", file=sys.stderr)
        return 1
    except KeyError as e:
        print(f"not serving version {given.version}: its contract lacks {e}", file=sys.stderr)
        return 1
    if given.fault is not None:
        logging.getLogger("serving").warning(
            "REHEARSAL: broken on purpose: %s on %s", given.fault, given.fault_on
        )
    parts.log.start()
    try:
        serve(given, parts, listens, partial(_ready, given, parts, served, golden, listens, port))
    finally:
        parts.close()
    return 0


def _ready(
    given: argparse.Namespace,
    parts: Parts,
    served: Served | Ruled,
    golden: int,
    listens: socket.socket,
    metrics_port: int,
) -> None:
    """Note that requests are answered from now on, and how it came to that."""
    # Uvicorn catches these while it answers and raises them again when it is done: unhandled they
    # would end us before the log is on disk.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    # What was loaded stays: the collector need not walk through it while requests wait.
    gc.collect()
    gc.freeze()
    seconds = round(time.monotonic() - BEGUN, 2)
    parts.metrics.became_ready(seconds, served.warmth)
    said = {
        "pid": os.getpid(),
        "port": listens.getsockname()[1],
        "metrics_port": metrics_port,
        "version": given.version,
        "golden": golden,
        "seconds": seconds,
        "warmth": [asdict(w) for w in served.warmth],
    }
    try:
        write_json(given.log / "ready.json", said)
    except OSError as e:
        _say(f"ready, and ready.json cannot be written: {e}")


def _say(line: str) -> None:
    """Print a line; where the log lies on a full disk too, nobody hears it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
