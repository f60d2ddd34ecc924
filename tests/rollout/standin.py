"""A server with the predictor's command line and none of its imports, for tests of the plane.

What it does is steered by the slot's version: ``slow-0.2`` answers after 0.2 s, ``silent`` is ready
and answers no inference, ``failing`` answers 500, ``full`` 429, ``refusing`` 422, ``narrow`` 429 to
more than 64 requests at once, ``crashing`` ends at every request, ``chatty`` writes a numbered line
into its log every millisecond.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

MAX_BODY = 1 << 22
IN_FLIGHT = 64


class Server:
    """Answers ready and infer; says which slot it is and what headers it saw."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Take the command line."""
        self._given = given
        self._seen = Path(given.log) / "seen.jsonl"
        self._in_flight = 0

    async def infer(self, request: web.Request) -> web.Response:
        """Echo the headers, as ill as the version says."""
        body = await request.read()
        headers = {k.lower(): v for k, v in request.headers.items()}
        with self._seen.open("a") as f:
            f.write(json.dumps({"headers": headers, "body": body.decode()}) + "\n")
        kind, _, how = self._given.version.partition("-")
        if kind == "crashing":
            os._exit(3)
        if kind == "silent":
            await asyncio.Event().wait()
        if kind == "slow":
            await asyncio.sleep(float(how))
        status = {"failing": 500, "full": 429, "refusing": 422}.get(kind, 200)
        if kind == "narrow":
            status = await self._narrow()
        said = {"x-penstock-slot": self._given.slot, "x-penstock-version": self._given.version}
        return web.json_response(headers, status=status, headers=said)

    async def _narrow(self) -> int:
        """Work on 64 requests at once and refuse one more, as servers do."""
        if self._in_flight >= IN_FLIGHT:
            return 429
        self._in_flight += 1
        await asyncio.sleep(0.02)
        self._in_flight -= 1
        return 200

    async def ready(self, _: web.Request) -> web.Response:
        """Say yes."""
        said = {"x-penstock-slot": self._given.slot, "x-penstock-version": self._given.version}
        return web.json_response({"ready": True}, headers=said)

    async def chat(self) -> None:
        """Write numbered lines as fast as a log is ever written."""
        number = 0
        while True:
            for _ in range(50):
                print(f"line {number}", file=sys.stderr)
                number += 1
            await asyncio.sleep(0.005)

    async def serve(self) -> None:
        """Answer until killed."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get("/v2/models/{model}/ready", self.ready)
        app.router.add_get("/v2/health/{what}", self.ready)
        app.router.add_post("/v2/models/{model}/infer", self.infer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.SockSite(runner, socket.socket(fileno=self._given.fd)).start()
        said: dict[str, Any] = {"pid": os.getpid(), "version": self._given.version, "seconds": 0.1}
        part = Path(self._given.log) / "ready.part"
        part.write_text(json.dumps({**said, "metrics_port": 9}))
        part.rename(Path(self._given.log) / "ready.json")
        await (self.chat() if self._given.version == "chatty" else asyncio.Event().wait())


def main() -> None:
    """Read the predictor's command line and serve."""
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
        "--metrics-port",
    ):
        parser.add_argument(name)
    parser.add_argument("--fd", type=int)
    parser.add_argument("--rules-only", action="store_true")
    given = parser.parse_args()
    if given.bundle.endswith("refuses"):
        print("not serving: the package was altered", file=sys.stderr)
        sys.exit(1)
    asyncio.run(Server(given).serve())


if __name__ == "__main__":
    main()
