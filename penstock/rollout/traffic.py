"""Replay real rows as many users, at a fixed rate, and report each one's true label afterwards.

``python -m penstock.rollout.traffic --url … --model … --rows FILE --label NAME --contract FILE
--out DIR``. Arrivals are scheduled beforehand (an open loop): a slow answer delays nobody else's
request, and latency counts from the intended time. ``outcomes.jsonl`` gets the labels,
``client.jsonl`` what users saw.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import numpy as np
import pyarrow.parquet as pq

from penstock.processes import die_with_parent
from penstock.request import Contract, Instance, instances, v2_request

FLUSH_S = 0.2
TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Users:
    """Who asks for what. Users and rows are drawn by the seed."""

    contract: Contract
    rows: Sequence[Instance]
    labels: Sequence[int]
    count: int
    seed: int

    def request(self, number: int) -> tuple[str, str, int]:
        """Return the request id, the user and the row of the n-th request."""
        rng = np.random.default_rng([self.seed, number])
        user = int(rng.integers(self.count))
        row = int(rng.integers(len(self.labels)))
        return f"{self.seed}-{number:07d}", f"u-{user:04d}", row


@dataclass(kw_only=True)
class Replay:
    """Sends requests and keeps what came back."""

    session: aiohttp.ClientSession
    url: str
    users: Users
    outcomes: TextIO
    client: TextIO
    salt: str
    _waiting: list[tuple[TextIO, Mapping[str, Any]]] = field(
        default_factory=list[tuple[TextIO, Mapping[str, Any]]]
    )

    async def send(self, number: int, due: float) -> None:
        """Send one request, then write its outcome and what the user saw."""
        rid, user, row = self.users.request(number)
        rid = f"{self.salt}-{rid}"
        body = v2_request(self.users.contract, [self.users.rows[row]], request_id=rid)
        headers = {"x-user-id": user, "x-request-id": rid}
        seen: dict[str, Any] = {"request_id": rid, "user": user, "status": 0}
        try:
            async with self.session.post(self.url, json=body, headers=headers) as answer:
                await answer.read()
                seen["status"] = answer.status
                seen["arm"] = answer.headers.get("x-penstock-arm")
                seen["version"] = answer.headers.get("x-penstock-version")
        except (aiohttp.ClientError, TimeoutError) as e:
            seen["error"] = type(e).__name__
        now = time.time()
        seen |= {"at": now, "latency_ms": round((time.monotonic() - due) * 1000, 2)}
        self._waiting.append((self.client, seen))
        label = {"request_id": rid, "label": self.users.labels[row], "at": now}
        self._waiting.append((self.outcomes, label))

    def flush(self) -> None:
        """Write what waits, in whole lines."""
        waiting, self._waiting = self._waiting, []
        for target in (self.client, self.outcomes):
            target.write("".join(json.dumps(d) + "\n" for t, d in waiting if t is target))
            target.flush()


async def replay(given: argparse.Namespace, users: Users, stop: asyncio.Event) -> int:
    """Send until stopped and return how many requests were sent."""
    url = f"{given.url}/v2/models/{given.model}/infer"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = _connector(given.socket)
    with (
        (given.out / "outcomes.jsonl").open("a", encoding="utf-8") as outcomes,
        (given.out / "client.jsonl").open("a", encoding="utf-8") as client,
    ):
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            sender = Replay(
                session=session,
                url=url,
                users=users,
                outcomes=outcomes,
                client=client,
                salt=f"{int(time.time()):x}",
            )
            return await _run(given, sender, stop)


def _connector(inside: Path | None) -> aiohttp.BaseConnector:
    """Return how to reach the edge: as users do, or by the socket file of its owner."""
    if inside is None:
        return aiohttp.TCPConnector(limit=256)
    # A socket's name has at most 107 characters, so its folder is named by a number.
    folder = os.open(inside.parent, os.O_RDONLY | os.O_DIRECTORY)
    return aiohttp.UnixConnector(f"/proc/self/fd/{folder}/{inside.name}", limit=256)


async def _run(given: argparse.Namespace, sender: Replay, stop: asyncio.Event) -> int:
    begun = flushed = time.monotonic()
    number, running = 0, set[asyncio.Task[None]]()
    while not stop.is_set() and not 0 < given.seconds < time.monotonic() - begun:
        due = begun + number / given.rate
        if (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(sender.send(number, due))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        if time.monotonic() - flushed > FLUSH_S:
            flushed = time.monotonic()
            sender.flush()
    if running:
        await asyncio.wait(running, timeout=TIMEOUT_S)
    sender.flush()
    return number


def main(argv: list[str] | None = None) -> int:
    """Replay until stopped by SIGTERM, by the parent's end, or after ``--seconds``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--socket", type=Path, help="the edge's own socket, which asks no token")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=Path, required=True, help="Parquet of a snapshot's rows")
    parser.add_argument("--label", required=True, help="the column that holds the label")
    parser.add_argument("--contract", type=Path, required=True, help="a package's serving.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--rate", type=float, default=150.0, help="requests per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until stopped")
    given = parser.parse_args(argv)
    die_with_parent()
    contract = Contract.from_dict(json.loads(given.contract.read_text(encoding="utf-8")))
    rows = pq.read_table(given.rows, columns=[*contract.names, given.label])
    users = Users(
        contract=contract,
        rows=instances(contract, rows),
        labels=rows[given.label].to_pylist(),
        count=given.users,
        seed=given.seed,
    )
    given.out.mkdir(parents=True, exist_ok=True)

    async def go() -> int:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        return await replay(given, users, stop)

    print(f"{asyncio.run(go())} requests sent")
    return 0


if __name__ == "__main__":
    sys.exit(main())
