"""Send requests of many users at a fixed rate, and report what came of each answer afterwards.

``python -m penstock.rollout.traffic --url … --model … --rows FILE --label NAME --contract FILE
--out DIR``. Users replay real rows, whose true label is known; or, where the workload has
``visitors.py``, they are simulated ones whose outcome depends on the answer. Arrivals are scheduled
beforehand (an open loop): a slow answer delays nobody else's request, and latency counts from the
intended time. ``outcomes.jsonl`` gets the outcomes, ``client.jsonl`` what users saw.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import aiohttp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.processes import die_with_parent
from penstock.request import Contract, Instance, instances, v2_request
from penstock.workload import part, root

FLUSH_S = 0.2
TIMEOUT_S = 5.0


class Visitors(Protocol):
    """Who asks, and what comes of an answer; ``visitors.py`` of a workload may have others."""

    def request(self, number: int) -> tuple[int, Sequence[int]]:
        """Return the user of the n-th request, and its rows."""
        ...

    def outcome(self, number: int, scores_k: Sequence[float]) -> Mapping[str, Any]:
        """Return what came of it, as the outcomes file has it: ``label``, ``row``, or others.

        Args:
            scores_k: Of each row the probability of its last class; empty where it failed.
        """
        ...


@dataclass(frozen=True)
class Rows:
    """Users who ask for one row each, whose label is known whatever is answered."""

    labels: Sequence[int]
    count: int
    seed: int

    def request(self, number: int) -> tuple[int, Sequence[int]]:
        """Return the user of the n-th request, and its row."""
        rng = np.random.default_rng([self.seed, number])
        user = int(rng.integers(self.count))
        return user, [int(rng.integers(len(self.labels)))]

    def outcome(
        self,
        number: int,
        scores_k: Sequence[float],  # noqa: ARG002 - the truth does not hang on the answer
    ) -> Mapping[str, Any]:
        """Return the row's label."""
        _, (row,) = self.request(number)
        return {"label": self.labels[row]}


@dataclass(frozen=True, kw_only=True)
class Users:
    """Who asks for what. Users and rows are drawn by the seed."""

    contract: Contract
    rows: Sequence[Instance]
    visitors: Visitors
    seed: int
    markets: Mapping[str, float] = field(default_factory=dict[str, float])
    """Share of the users in each market; empty names none in requests."""

    def request(self, number: int) -> tuple[str, str, list[Instance]]:
        """Return the request id, the user and the rows of the n-th request."""
        user, rows = self.visitors.request(number)
        return f"{self.seed}-{number:07d}", f"u-{user:05d}", [self.rows[n] for n in rows]

    def market(self, user: str) -> str | None:
        """Return the market of a user, always the same."""
        at = int.from_bytes(hashlib.sha256(user.encode()).digest()[8:12], "big") / 2**32
        for name, share in self.markets.items():
            at -= share
            if at < 0:
                return name
        return None


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
        rid, user, rows = self.users.request(number)
        rid = f"{self.salt}-{rid}"
        body = v2_request(self.users.contract, rows, request_id=rid)
        headers = {"x-user-id": user, "x-request-id": rid}
        seen: dict[str, Any] = {"request_id": rid, "user": user, "status": 0}
        if (market := self.users.market(user)) is not None:
            headers["x-market"] = seen["market"] = market
        scores_k: list[float] = []
        try:
            async with self.session.post(self.url, json=body, headers=headers) as answer:
                document = await answer.read()
                seen["status"] = answer.status
                if answer.status == 200:
                    scores_k = scores(document)
                seen["arm"] = answer.headers.get("x-penstock-arm")
                seen["version"] = answer.headers.get("x-penstock-version")
        except (aiohttp.ClientError, TimeoutError) as e:
            seen["error"] = type(e).__name__
        now = time.time()
        seen |= {"at": now, "latency_ms": round((time.monotonic() - due) * 1000, 2)}
        self._waiting.append((self.client, seen))
        outcome = self.users.visitors.outcome(number, scores_k)
        self._waiting.append((self.outcomes, {"request_id": rid, "at": now, **outcome}))

    def flush(self) -> None:
        """Write what waits, in whole lines."""
        waiting, self._waiting = self._waiting, []
        for target in (self.client, self.outcomes):
            target.write("".join(json.dumps(d) + "\n" for t, d in waiting if t is target))
            target.flush()


def scores(document: bytes) -> list[float]:
    """Return of each row of a v2 answer the probability of its last class."""
    outputs = {one["name"]: one for one in json.loads(document)["outputs"]}
    classes = outputs["probability"]["shape"][1]
    return outputs["probability"]["data"][classes - 1 :: classes]


def visitors(name: str, rows: pa.Table, label: str, *, count: int, seed: int) -> Visitors:
    """Return a workload's own visitors, or users who replay the rows."""
    if (root() / "workloads" / name / "visitors.py").exists():
        return part(name, "visitors").Visitors(rows, count, seed)
    return Rows(rows[label].to_pylist(), count, seed)


def shares(text: str) -> dict[str, float]:
    """Read ``us=0.6,eu=0.4``.

    Raises:
        ValueError: A share is no number from 0 to 1, or they are more than everybody.
    """
    found = {name: float(share) for name, _, share in (o.partition("=") for o in text.split(","))}
    if min(found.values()) < 0 or sum(found.values()) > 1 + 1e-9:
        raise ValueError(f"{text!r}; each share lies from 0 to 1, and they are no more than 1.")
    return found


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
    failed: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        running.discard(task)
        if not task.cancelled() and (why := task.exception()) is not None:
            failed.append(why)

    while not stop.is_set() and not 0 < given.seconds < time.monotonic() - begun:
        due = begun + number / given.rate
        if (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(sender.send(number, due))
        running.add(task)
        task.add_done_callback(ended)
        number += 1
        if time.monotonic() - flushed > FLUSH_S:
            flushed = time.monotonic()
            sender.flush()
        if failed:
            raise failed[0]
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
    parser.add_argument("--users", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=250.0, help="requests per second")
    parser.add_argument("--markets", default="", help="share of users in each: us=0.6,eu=0.4")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until stopped")
    given = parser.parse_args(argv)
    die_with_parent()
    contract = Contract.from_dict(json.loads(given.contract.read_text(encoding="utf-8")))
    rows = pq.read_table(given.rows)
    users = Users(
        contract=contract,
        rows=instances(contract, rows),
        visitors=visitors(given.model, rows, given.label, count=given.users, seed=given.seed),
        seed=given.seed,
        markets=shares(given.markets) if given.markets else {},
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
