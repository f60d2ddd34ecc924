"""A server with the predictor's command line and none of its imports, for tests of the plane."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    """Answer ready and infer; say which slot it is and what headers it saw."""
    parser = argparse.ArgumentParser()
    for name in (
        "--bundle",
        "--digest",
        "--model-name",
        "--version",
        "--slot",
        "--log",
        "--fault",
        "--fault-on",
    ):
        parser.add_argument(name)
    parser.add_argument("--fd", type=int)
    given = parser.parse_args()
    if given.bundle.endswith("refuses"):
        print("not serving: the package was altered", file=sys.stderr)
        sys.exit(1)
    seen = Path(given.log) / "seen.jsonl"

    async def infer(request: web.Request) -> web.Response:
        body = await request.read()
        line = {
            "headers": {k.lower(): v for k, v in request.headers.items()},
            "body": body.decode(),
        }
        with seen.open("a") as f:
            f.write(json.dumps(line) + "\n")
        said = {"x-penstock-slot": given.slot, "x-penstock-version": given.version}
        return web.json_response(line["headers"], headers=said)

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"ready": True})

    app = web.Application()
    app.router.add_get("/v2/models/{model}/ready", ready)
    app.router.add_post("/v2/models/{model}/infer", infer)

    async def serve() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.SockSite(runner, socket.socket(fileno=given.fd)).start()
        said = {"pid": os.getpid(), "version": given.version, "seconds": 0.1}
        part = Path(given.log) / "ready.part"
        part.write_text(json.dumps(said))
        part.rename(Path(given.log) / "ready.json")
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
