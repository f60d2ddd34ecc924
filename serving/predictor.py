"""The predictor: a KServe model server for one package, on loopback, ready only when right.

``python -m serving.predictor --bundle DIR --model-name NAME --version V --slot a --log DIR`` and
either ``--fd N`` (a listening socket inherited from the supervisor) or ``--port P``.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from penstock.bundle import BundleError, write_json
from penstock.workload import UnknownWorkload
from serving.faults import Fault
from serving.hardened import MAX_IN_FLIGHT, Hardened
from serving.logged import Logged
from serving.package import NotServable, Served
from serving.prediction_log import PredictionLog

BEGUN = time.monotonic()


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line, parsed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--slot", default="a")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="a listening socket")
    where.add_argument("--port", type=int)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--fault", default=None)
    parser.add_argument("--fault-on", default="live")
    return parser.parse_args(argv)


def serve(
    given: argparse.Namespace, served: Served, log: PredictionLog, ready: Callable[[], None]
) -> None:
    """Answer requests until told to stop; requests in flight are finished.

    Args:
        ready: Called when everything is loaded and the next thing is to answer.
    """
    # KServe reads the command line when it is imported.
    sys.argv = sys.argv[:1]
    from kserve import ModelRepository, ModelServer  # noqa: PLC0415
    from kserve.model_server import app  # noqa: PLC0415
    from kserve.protocol.rest.server import RESTServer  # noqa: PLC0415

    from serving.model import PackageModel  # noqa: PLC0415

    for name in ("kserve.trace", "uvicorn.access", "kserve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fault = None if given.fault is None else Fault(kind=given.fault, on=given.fault_on)
    model = PackageModel(given.model_name, served, version=given.version, fault=fault)
    server = ModelServer(registered_models=ModelRepository(), enable_grpc=False)
    server.register_model(model)
    rest = RESTServer(
        "kserve.model_server:app", server.dataplane, server.model_repository_extension, http_port=0
    )
    rest.create_application()
    protected = Logged(Hardened(app), log, slot=given.slot, version=given.version)
    ready()
    asyncio.run(_answer(given, protected))


async def _answer(given: argparse.Namespace, app: Logged) -> None:
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
    await uvicorn.Server(configuration).serve(sockets=[listening(given)])


def listening(given: argparse.Namespace) -> socket.socket:
    """Return the inherited socket, or one on the asked loopback port."""
    if given.fd is not None:
        made = socket.socket(fileno=given.fd)
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", given.port))
        made.listen(256)
    # Accepted connections inherit it; without it the body waits 40 ms for the headers' receipt.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _keep_going(_number: int, _frame: object) -> None:
    """Leave the end to the code after the server."""


def main(argv: list[str] | None = None) -> int:
    """Load, warm, check, serve. Ends with 1 and one sentence when the package must not serve."""
    given = arguments(argv)
    given.log.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        served = Served(given.bundle)
        warmth = served.warm()
        golden = served.check_golden()
    except (BundleError, NotServable, UnknownWorkload, KeyError) as e:
        print(f"not serving version {given.version}: {e}", file=sys.stderr)
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
                "version": given.version,
                "golden": golden,
                "seconds": round(time.monotonic() - BEGUN, 2),
                "warmth": [asdict(w) for w in warmth],
            },
        )

    # Uvicorn raises the signal that stopped it once more when it is done; it must not end us
    # before the log is on disk.
    signal.signal(signal.SIGTERM, _keep_going)
    try:
        serve(given, served, log, ready)
    finally:
        log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
