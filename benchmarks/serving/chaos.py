"""What trouble beside the champion costs its users: p50, p99 and errors, with and without, in turn.

``python -m benchmarks.serving.chaos [--rounds 3] [--seconds 8] [--rate 150]``. Two real predictors
of a small package behind the real Envoy; each round measures every trouble once, beside a calm
stretch of its own, so that a noisy machine is noisy for both. Arrivals are fixed beforehand (open
loop) and latency counts from the intended time. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from penstock.bundle import read
from penstock.rollout.plane import Plane
from penstock.rollout.table import TrafficTable, bucket_of
from tests.packages import GOLDEN, body, free_port, make_package, wait_for

SALT, SHARE = "chaos", 32


@dataclass
class Answers:
    """Of the users of one arm."""

    latencies_ms: list[float] = field(default_factory=list[float])
    errors: int = 0

    def quantile_ms(self, q: float) -> float:
        """Return a quantile of the latencies."""
        return sorted(self.latencies_ms)[int(q * (len(self.latencies_ms) - 1))]


async def ask(url: str, rate: float, seconds: float, halfway: Callable[[], object]) -> Answers:
    """Ask as users of the champion's buckets at a fixed rate; do something after a fifth."""
    names = [n for n in map(str, range(4000)) if bucket_of(SALT, n) >= SHARE]
    answers, data = Answers(), body(GOLDEN[:1])
    connector = aiohttp.TCPConnector(limit=0)

    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int, due: float) -> None:
            headers = {"x-user-id": names[number % len(names)], "content-type": "application/json"}
            async with session.post(url, data=data, headers=headers) as answer:
                await answer.read()
                answers.errors += answer.status != 200
            answers.latencies_ms.append((time.monotonic() - due) * 1000)

        begun, asked = time.monotonic() + 0.1, list[asyncio.Task[None]]()
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if number == int(rate * seconds / 5):
                halfway()
            asked.append(asyncio.create_task(one(number, due)))
        await asyncio.gather(*asked)
    return answers


@contextmanager
def served(folder: Path) -> Iterator[Plane]:
    """Run a plane with two real predictors."""
    packages = {slot: make_package(folder / slot, seed=n) for n, slot in enumerate("ab")}
    plane = Plane.up(folder / "home", model="digits", port=free_port())
    try:
        for slot, package in packages.items():
            plane.set_slot(slot, package=package.path, digest=package.digest, version=slot)
        yield plane
    finally:
        plane.down()


def trouble(plane: Plane, kind: str, *, shadow: bool) -> Callable[[], None]:
    """Put slot b in place as challenger or shadow, and return what breaks it."""
    package = read(plane.home.parent / "b", kind="package")
    slow = {"kind": "latency", "on": "all"} if kind == "slow" else None
    version = f"b-{kind}"
    plane.set_slot("b", package=package.path, digest=package.digest, version=version, fault=slow)
    plane.wait_ready("b", version=version, timeout_s=60)
    now = plane.observe()
    table = TrafficTable(
        sequence=now.sequence + 1,
        salt=SALT,
        champion="a",
        challenger=None if shadow else "b",
        buckets=0 if shadow else SHARE,
        mirror="b" if shadow else None,
    )
    plane.apply(table)
    plane.wait_applied(table, timeout_s=5)
    wait_for(lambda: plane.probe("b", "/v2/models/digits/ready")[0] == 200, 10)
    number = {"killed": signal.SIGKILL, "hung": signal.SIGSTOP}.get(kind)
    return lambda: number and os.kill(plane.status()["slots"]["b"]["pid"], number)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=150.0)
    given = parser.parse_args()
    titles = ("slot b is", "trouble", "requests", "errors", "p50 ms, calm → trouble")
    print(f"| {' | '.join(titles)} | p99 ms, calm → trouble |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as plane:
        plane.wait_ready("a", version="a", timeout_s=60)
        for shadow in (True, False):
            for kind in ("killed", "hung", "slow"):
                print(_measured(plane, kind, given, shadow=shadow), flush=True)


def _measured(plane: Plane, kind: str, given: argparse.Namespace, *, shadow: bool) -> str:
    url = f"{plane.url}/v2/models/digits/infer"
    calm, ill = list[Answers](), list[Answers]()
    for _ in range(given.rounds):
        trouble(plane, "calm", shadow=shadow)
        calm.append(asyncio.run(ask(url, given.rate, given.seconds, lambda: None)))
        breaks = trouble(plane, kind, shadow=shadow)
        ill.append(asyncio.run(ask(url, given.rate, given.seconds, breaks)))
    asked = sum(len(a.latencies_ms) for a in ill)
    errors = sum(a.errors for a in ill)

    def both(q: float) -> str:
        one, other = (statistics.median(a.quantile_ms(q) for a in arm) for arm in (calm, ill))
        return f"{one:.1f} → {other:.1f}"

    role = "shadow" if shadow else "challenger"
    return f"| {role} | {kind} | {asked} | {errors} | {both(0.5)} | {both(0.99)} |"


if __name__ == "__main__":
    main()
