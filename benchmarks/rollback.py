"""How long a rollback takes, and the kill switch, under load: from the decision to the last answer.

``python -m benchmarks.rollback [--trials 100] [--kills 30] [--rate 300] [--out FILE]``. Two real
predictors of a small package behind the real Envoy, real requests at a fixed rate (open loop). Each
trial puts half or all of the users on the challenger, decides at a random moment, and goes on
asking. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from penstock.ledger import Ledger
from penstock.rollout import kill, switch
from penstock.rollout.plane import Plane
from penstock.rollout.table import TrafficTable
from tests.packages import GOLDEN, body, free_port, make_package, wait_for
from tests.people import person

SPREAD_S = (0.15, 0.35)
"""How long users are on the challenger before somebody decides; and how long is asked after."""

AFTER_S = 0.4


@dataclass(frozen=True)
class Answer:
    """One request, in monotonic seconds."""

    sent_s: float
    came_s: float
    status: int
    slot: str


@dataclass
class Users:
    """Ask at a fixed rate until told to end."""

    url: str
    rate: float
    answers: list[Answer] = field(default_factory=list[Answer])

    async def ask(self, over: asyncio.Event) -> None:
        """Ask, each request as a new user."""
        data, number, begun = body(GOLDEN[:1]), 0, time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not over.is_set():
                number += 1
                await asyncio.sleep(max(0.0, begun + number / self.rate - time.monotonic()))
                task = asyncio.create_task(self._one(session, data, number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _one(self, session: aiohttp.ClientSession, data: bytes, number: int) -> None:
        headers = {"x-user-id": f"u{number}", "content-type": "application/json"}
        sent = time.monotonic()
        try:
            async with session.post(self.url, data=data, headers=headers) as answer:
                await answer.read()
                status, slot = answer.status, answer.headers.get("x-penstock-slot", "")
        except aiohttp.ClientError:
            status, slot = 0, ""
        self.answers.append(Answer(sent, time.monotonic(), status, slot))


@dataclass(frozen=True)
class Trial:
    """One decision, in milliseconds from it."""

    in_force_ms: float
    last_ms: float
    """The last answer of the version that was left."""

    first_ms: float
    """The first answer of whom users were sent to, to a request sent after the decision."""

    late: int
    """Requests sent after the table was read back that the version that was left answered."""

    failed: int
    requests: int


@asynccontextmanager
async def asking(plane: Plane, rate: float) -> AsyncIterator[Users]:
    """Let users ask while the block runs."""
    users = Users(f"{plane.url}/v2/models/digits/infer", rate)
    over = asyncio.Event()
    task = asyncio.create_task(users.ask(over))
    try:
        yield users
    finally:
        over.set()
        await task


async def trial(
    plane: Plane, users: Users, buckets: int, act: Callable[[], None], rng: random.Random
) -> Trial:
    """Put users on the challenger, then act; return what followed."""
    held = plane.written()
    exposed = replace(held, sequence=held.sequence + 1, challenger="b", buckets=buckets)
    plane.apply(exposed)
    plane.wait_applied(exposed, timeout_s=5)
    await asyncio.sleep(rng.uniform(*SPREAD_S))
    begun, decided = len(users.answers), time.monotonic()
    await asyncio.to_thread(act)
    known = time.monotonic()
    await asyncio.sleep(AFTER_S)
    seen = users.answers[begun:]
    left = [a for a in seen if a.slot == "b"]
    safe = [a.came_s for a in seen if a.slot != "b" and a.sent_s > decided]
    return Trial(
        in_force_ms=(known - decided) * 1000,
        last_ms=max((a.came_s - decided) * 1000 for a in left) if left else 0.0,
        first_ms=(min(safe) - decided) * 1000,
        late=sum(a.sent_s > known for a in left),
        failed=sum(a.status != 200 for a in seen),
        requests=len(seen),
    )


def served(folder: Path) -> Plane:
    """Return a plane with two real servers of a small package."""
    plane = Plane.up(folder / "home", model="digits", port=free_port())
    for slot, seed in (("a", 1), ("b", 2)):
        package = make_package(folder / slot, seed=seed)
        plane.set_slot(slot, package=package.path, digest=package.digest, version=str(seed))
    for slot, version in (("a", "1"), ("b", "2")):
        plane.wait_ready(slot, version=version, timeout_s=60)
        wait_for(lambda s=slot: plane.verify_slot(s) == "", 10)  # type: ignore[misc]
    return plane


def rolled_back(plane: Plane) -> None:
    """Do what a controller does: the prepared table, read back."""
    held = plane.written()
    table = TrafficTable(
        sequence=held.sequence + 1, salt=held.salt, champion="a", challenger=None, buckets=0,
        mirror=None,
    )  # fmt: skip
    plane.apply(table)
    plane.wait_applied(table, timeout_s=5)


def thrown(plane: Plane) -> None:
    """Throw the kill switch, and see it in force."""
    kill.throw(plane.home, person(), reason="measured", to="a", now=datetime.now(UTC))
    while plane.switch_in_force() != "a":
        time.sleep(0.001)


def off(plane: Plane) -> None:
    """Turn the switch off, as only a measurement may."""
    switch.turn(plane.home / "serving", switch.OFF)
    while plane.switch_in_force() is not None:
        time.sleep(0.005)
    for kept in (plane.home / "serving" / "runtime").glob("kill-*.json"):
        kept.unlink()


async def measured(
    plane: Plane, trials: int, kills: int, rate: float
) -> tuple[list[Trial], list[Trial]]:
    """Return the trials of both."""
    rng = random.Random(1)  # noqa: S311 - when to decide is no secret
    rolled: list[Trial] = []
    killed: list[Trial] = []
    async with asking(plane, rate) as users:
        await asyncio.sleep(1)
        for n in range(trials):
            buckets = 64 if n % 2 else 32
            rolled.append(await trial(plane, users, buckets, lambda: rolled_back(plane), rng))
        for n in range(kills):
            buckets = 64 if n % 2 else 32
            killed.append(await trial(plane, users, buckets, lambda: thrown(plane), rng))
            off(plane)
    return rolled, killed


def row(name: str, values: Sequence[float]) -> str:
    """Return a line of the table."""
    ordered = sorted(values)
    p90 = ordered[int(0.9 * (len(ordered) - 1))]
    return f"| {name} | {statistics.median(ordered):.0f} | {p90:.0f} | {ordered[-1]:.0f} |"


def markdown(rolled: Sequence[Trial], killed: Sequence[Trial], rate: float) -> str:
    """Return both as a page."""
    lines = [
        "# Rollback and kill switch under load",
        "",
        f"`python -m benchmarks.rollback --trials {len(rolled)} --kills {len(killed)}`: two real",
        f"servers behind the real Envoy, {rate:.0f} requests a second (open loop), half of the",
        "users or all of them on the challenger, decided at a random moment. Two shared x86-64",
        "cores, which also make the load, and other work beside it.",
    ]
    for name, trials in (("Rollback", rolled), ("Kill switch", killed)):
        if not trials:
            continue
        requests, failed = sum(t.requests for t in trials), sum(t.failed for t in trials)
        lines += [
            "",
            f"## {name}, {len(trials)} trials",
            "",
            "| milliseconds from the decision | median | p90 | most |",
            "|---|---|---|---|",
            row("until Envoy said that it is in force", [t.in_force_ms for t in trials]),
            row("until the first answer to a request sent since", [t.first_ms for t in trials]),
            row("until the last answer of the version that was left", [t.last_ms for t in trials]),
            "",
            f"{requests} requests around the decisions, {failed} failed. Sent after it was read",
            f"back and answered by the version that was left: {sum(t.late for t in trials)}.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plane = served(Path(folder))
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        try:
            ledger.append(
                workload="digits", version=1, kind="note", body={}, actor=person(),
                now=datetime.now(UTC),
            )  # fmt: skip
            kill.remember(plane.home, ledger)
            found = asyncio.run(measured(plane, given.trials, given.kills, given.rate))
        finally:
            ledger.close()
            plane.down()
    text = markdown(*found, given.rate)
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
