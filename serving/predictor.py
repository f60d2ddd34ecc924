"""The predictor: a KServe model server for one package, on loopback, ready only when right.

``python -m serving.predictor --bundle DIR --model-name NAME --version V --slot a --log DIR`` and
either ``--fd N`` (a listening socket inherited from the supervisor) or ``--port P``. With
``--digest`` it serves the package of this digest and no other.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from penstock.bundle import read, write_json
from penstock.processes import die_with_parent
from serving.faults import KINDS, Fault
from serving.hardened import MAX_IN_FLIGHT, Hardened
from serving.logged import Logged
from serving.package import NotServable, Served
from serving.prediction_log import PredictionLog

BEGUN = time.monotonic()


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
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--fault", choices=KINDS)
    parser.add_argument("--fault-on", choices=("live", "all"), default="live")
    return parser.parse_args(argv)


def serve(
    given: argparse.Namespace,
    served: Served,
    log: PredictionLog,
    listens: socket.socket,
    ready: Callable[[], None],
) -> None:
    """Answer requests until told to stop; requests in flight are finished.

    Args:
        ready: Called when everything is loaded and the next thing is to answer.
    """
    # KServe reads the command line when it is imported.
    sys.argv = sys.argv[:1]
    from kserve import ModelRepository, ModelServer  # noqa: PLC0415
    from kserve.errors import InvalidInput, ModelNotFound  # noqa: PLC0415
    from kserve.model_server import app  # noqa: PLC0415
    from kserve.protocol.rest.server import RESTServer  # noqa: PLC0415

    from serving.model import CarefulDataPlane, PackageModel, answer_refusal  # noqa: PLC0415

    for name in ("kserve.trace", "uvicorn.access", "kserve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fault = None if given.fault is None else Fault(kind=given.fault, on=given.fault_on)
    model = PackageModel(given.model_name, served, version=given.version, fault=fault)
    server = ModelServer(registered_models=ModelRepository(), enable_grpc=False)
    server.register_model(model)
    plane = CarefulDataPlane(model_registry=server.registered_models)
    rest = RESTServer(
        "kserve.model_server:app", plane, server.model_repository_extension, http_port=0
    )
    rest.create_application()
    app.add_exception_handler(InvalidInput, answer_refusal)
    app.add_exception_handler(ModelNotFound, answer_refusal)
    protected = Logged(Hardened(app), log, slot=given.slot, version=given.version)
    ready()
    _answer(protected, listens)


def _answer(app: Logged, listens: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415

    configuration = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        log_config=None,
        access_log=False,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        limit_concurrency=MAX_IN_FLIGHT * 4,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=4,
    )
    # Not asyncio.run(server.serve()): that would run on asyncio's own loop, whatever is configured.
    uvicorn.Server(configuration).run(sockets=[listens])


def listening(given: argparse.Namespace) -> socket.socket:
    """Return the inherited socket, or one on the asked loopback port.

    Raises:
        NotServable: The inherited socket would be heard from outside this machine.
    """
    if given.fd is not None:
        made = socket.socket(fileno=given.fd)
        if made.getsockname()[0] != "127.0.0.1":
            raise NotServable(f"the socket listens on {made.getsockname()}, not on loopback.")
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", given.port))
        made.listen(256)
    # Accepted connections inherit it; without it the body waits 40 ms for the headers' receipt.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def check_digest(package: Path, wanted: str | None) -> None:
    """Refuse another package than the one that was registered.

    Raises:
        BundleError: A file is missing or altered.
        NotServable: It is whole, and another.
    """
    if wanted is None:
        return
    found = read(package, kind="package").digest
    if found != wanted:
        raise NotServable(f"{package} has digest {found[7:19]}, registered was {wanted[7:19]}.")


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def main(argv: list[str] | None = None) -> int:
    """Load, warm, check, serve. Ends with 1 and one sentence when the package must not serve."""
    given = arguments(argv)
    if given.fd is not None:
        die_with_parent()
    # While it loads, a signal ends the process at once. Uvicorn catches it while it answers and
    # raises it again when it is done: unhandled it would end us before the log is on disk.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    given.log.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        check_digest(given.bundle, given.digest)
        served = Served(given.bundle)
        warmth = served.warm()
        golden = served.check_golden()
        listens = listening(given)
    except (NotServable, ValueError, OSError) as e:
        print(f"not serving version {given.version}: {e}", file=sys.stderr)
        return 1
    except KeyError as e:
        print(f"not serving version {given.version}: its contract lacks {e}", file=sys.stderr)
        return 1
    if given.fault is not None:
        logging.getLogger("serving").warning(
            "REHEARSAL: broken on purpose: %s on %s", given.fault, given.fault_on
        )
    log = PredictionLog(given.log / f"predictions-{os.getpid()}.jsonl")
    log.start()

    def ready() -> None:
        write_json(
            given.log / "ready.json",
            {
                "pid": os.getpid(),
                "port": listens.getsockname()[1],
                "version": given.version,
                "golden": golden,
                "seconds": round(time.monotonic() - BEGUN, 2),
                "warmth": [asdict(w) for w in warmth],
            },
        )

    try:
        serve(given, served, log, listens, ready)
    finally:
        log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
