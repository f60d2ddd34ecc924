"""Laws of trouble: what is dead, hung, slow or failing beside the champion costs no user an answer.

Users come at a fixed rate whatever happens. Nothing here looks at the clock: who answered, what was
tried twice and what was ejected is counted, by the users and by Envoy.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from penstock.rollout import admin, watching
from penstock.rollout.plane import Plane
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.watching import HANG_S
from tests.packages import GOLDEN, body, free_port, make_package, running, wait_for
from tests.rollout.test_plane import INFER, STANDIN, table

RATE = 120.0


class Users:
    """Many users at a fixed rate: arrivals are set beforehand, a slow answer delays nobody."""

    def __init__(self, plane: Plane, body: bytes = b"{}") -> None:
        """Ask a plane; every request is another user's."""
        self._url, self._body = plane.url + INFER, body
        self.answers: list[tuple[int, str | None]] = []
        """Status and slot of each request, in no order."""

    def ask(self, count: int, *, halfway: Callable[[], object] = lambda: None) -> Counter[object]:
        """Send so many requests, do something halfway, and count the answers."""
        self.answers = []
        asyncio.run(self._ask(count, halfway))
        return Counter(self.answers)

    async def _ask(self, count: int, halfway: Callable[[], object]) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            begun, asked = time.monotonic(), list[asyncio.Task[None]]()
            for number in range(count):
                await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))
                if number == count // 2:
                    halfway()
                asked.append(asyncio.create_task(self._one(session, number)))
            await asyncio.gather(*asked)

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        headers = {"x-user-id": f"u-{number}", "content-type": "application/json"}
        async with session.post(self._url, data=self._body, headers=headers) as answer:
            await answer.read()
            self.answers.append((answer.status, answer.headers.get("x-penstock-slot")))


def counts(plane: Plane) -> Counter[str]:
    """Return Envoy's counters."""
    text = admin.ask(plane.status()["admin"], "GET", "/stats?usedonly").decode()
    pairs = (line.rpartition(": ") for line in text.splitlines())
    return Counter({name: int(value) for name, _, value in pairs if value.isdigit()})


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One plane of stand-ins, slot a well."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    home = tmp_path_factory.mktemp("chaos")
    made = Plane.up(home, model="digits", port=free_port())
    serve(made, "a", "1")
    yield made
    made.down()
    patch.undo()


def serve(plane: Plane, slot: str, version: str) -> int:
    """Let a slot's stand-in be as its version says; return its process."""
    plane.set_slot(slot, package=plane.home, digest="sha256:1", version=version)
    plane.wait_ready(slot, version=version, timeout_s=20)
    # What Envoy knows may still be of the process before.
    before = checks(plane, slot)
    wait_for(lambda: checks(plane, slot) > before, 10)
    wait_for(lambda: healthy(plane, slot), 20)
    return plane.status()["slots"][slot]["pid"]


def checks(plane: Plane, slot: str) -> int:
    """Return how many health checks a slot's two pools have passed, the slower one's."""
    held = counts(plane)
    return min(held[f"cluster.{name}.health_check.success"] for name in (slot, f"{slot}-shadow"))


def healthy(plane: Plane, slot: str) -> bool:
    """Return whether Envoy would send users to a slot, ejected ones not."""
    held = json.loads(admin.ask(plane.status()["admin"], "GET", "/clusters?format=json"))
    (cluster,) = [c for c in held["cluster_statuses"] if c["name"] == slot]
    states = [one["health_status"] for one in cluster["host_statuses"]]
    return states == [{"eds_health_status": "HEALTHY"}]


def test_a_slow_challenger_is_heard_if_it_is_first(plane: Plane):
    """Slower than usual but within patience: it answers its own users, and nobody else does."""
    serve(plane, "b", "slow-0.1")
    table(plane, 64)

    assert Users(plane).ask(60) == {(200, "b"): 60}


def test_a_killed_challenger_costs_nobody_an_answer(plane: Plane):
    """Killed under its users, each of them is answered; the restart is counted and shown."""
    pid = serve(plane, "b", "2")
    table(plane, 64)

    found = Users(plane).ask(150, halfway=lambda: os.kill(pid, signal.SIGKILL))

    assert {status for status, _ in found.elements()} == {200}
    assert found.keys() == {(200, "a"), (200, "b")}
    wait_for(lambda: plane.ready("b"), 10)
    seen = plane.status()["slots"]["b"]
    assert (seen["restarts"], seen["error"]) == (1, "ended by SIGKILL")


def test_a_body_of_the_longest_kind_is_asked_twice_too(plane: Plane):
    """What was sent to a challenger that failed is still there for the champion, whole."""
    serve(plane, "b", "failing")
    table(plane, 64)
    seen = plane.log_folder("a") / "seen.jsonl"

    found = Users(plane, b"x" * (1 << 20)).ask(5)

    assert found == {(200, "a"): 5}
    bodies = [json.loads(line)["body"] for line in seen.read_text().splitlines()[-5:]]
    assert {len(body) for body in bodies} == {1 << 20}


@pytest.mark.parametrize("version", ["failing", "full", "crashing"])
def test_a_challenger_that_errs_costs_nobody_an_answer(plane: Plane, version: str):
    """What it answers with an error, or dies of, the champion answers; once each, no more."""
    serve(plane, "b", version)
    table(plane, 64)
    before = counts(plane)

    found = Users(plane).ask(60)

    assert found == {(200, "a"): 60}
    retried = counts(plane)["cluster.b-then-a.upstream_rq_retry"]
    assert 0 < retried - before["cluster.b-then-a.upstream_rq_retry"] <= 60


@pytest.mark.parametrize("trouble", ["failing", "crashing", "STOP", "KILL"])
def test_a_shadow_in_trouble_is_noticed_by_nobody(plane: Plane, trouble: str):
    """Every user has the champion's answer; no request of theirs was even tried twice."""
    how = getattr(signal, f"SIG{trouble}", None)
    pid = serve(plane, "b", trouble)
    table(plane, 0, mirror="b")
    before = counts(plane)

    found = Users(plane).ask(90, halfway=lambda: how and os.kill(pid, how))

    after = counts(plane)
    assert found == {(200, "a"): 90}
    assert after["cluster.a.upstream_rq_retry"] == before["cluster.a.upstream_rq_retry"]
    assert (
        after["cluster.b-shadow.upstream_rq_total"] > before["cluster.b-shadow.upstream_rq_total"]
    )


def test_a_hung_shadow_has_few_connections_and_its_own_time(plane: Plane):
    """Its pool is bounded, what does not fit is not sent, and what hangs is given up."""
    serve(plane, "b", "silent")
    table(plane, 0, mirror="b")
    before = counts(plane)

    Users(plane).ask(180)

    assert counts(plane)["cluster.b-shadow.upstream_cx_active"] <= 8
    for name in ("pending_overflow", "max_duration_reached"):
        counted = f"cluster.b-shadow.upstream_rq_{name}"
        wait_for(lambda counted=counted: counts(plane)[counted] > before[counted], 5)


def test_an_ill_champion_is_asked_nevertheless(plane: Plane):
    """Nobody else may answer its users: what looks ill to a health check still gets them."""
    serve(plane, "b", "2")
    table(plane, 0)
    pid = plane.status()["slots"]["a"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: not healthy(plane, "a"), 4)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert Users(plane).ask(20) == {(200, "a"): 20}


def test_a_crash_loop_is_shown(plane: Plane):
    """One that crashes under every request waits longer and longer, and says so."""
    serve(plane, "b", "crashing")
    for _ in range(watching.LOOPING):
        wait_for(lambda: plane.ready("b"), 10)
        restarts = plane.status()["slots"]["b"]["restarts"]
        plane.probe("b", INFER, b"{}")
        wait_for(lambda n=restarts: plane.status()["slots"]["b"]["restarts"] > n, 10)

    assert plane.status()["slots"]["b"]["looping"]


def test_a_challenger_that_never_answers_is_ejected(plane: Plane):
    """It says it is ready and answers nobody: after a few users nobody is sent to it any more."""
    serve(plane, "b", "silent")
    table(plane, 64)
    seen = plane.log_folder("b") / "seen.jsonl"

    found = Users(plane).ask(120)
    wait_for(lambda: not healthy(plane, "b"), 3)
    lines = len(seen.read_text().splitlines())
    later = Users(plane).ask(20)

    assert (found, later) == ({(200, "a"): 120}, {(200, "a"): 20})
    assert counts(plane)["cluster.b.outlier_detection.ejections_enforced_total"] > 0
    assert len(seen.read_text().splitlines()) == lines


def test_a_hung_challenger_costs_nobody_an_answer_and_is_replaced(plane: Plane):
    """Alive and silent: its users are answered by the champion, asked beside it; it is replaced."""
    pid = serve(plane, "b", "3")
    table(plane, 64)
    before = counts(plane)

    found = Users(plane).ask(150, halfway=lambda: os.kill(pid, signal.SIGSTOP))

    assert {status for status, _ in found.elements()} == {200}
    assert (
        counts(plane)["cluster.b-then-a.upstream_rq_retry"]
        > before["cluster.b-then-a.upstream_rq_retry"]
    )
    wait_for(lambda: plane.ready("b") and plane.status()["slots"]["b"]["pid"] != pid, 15)
    assert not running(pid)
    assert f"answered nothing for {HANG_S:.0f} s" in plane.status()["slots"]["b"]["error"]


def test_real_predictors_in_real_trouble(tmp_path: Path):
    """Two real servers and Envoy: whatever happens to the challenger, every user has an answer."""
    packages = {
        slot: make_package(tmp_path / slot, seed=seed) for slot, seed in (("a", 7), ("b", 8))
    }
    plane = Plane.up(tmp_path / "home", model="digits", port=free_port())
    try:
        for slot, package in packages.items():
            plane.set_slot(slot, package=package.path, digest=package.digest, version=slot)
        for slot in packages:
            plane.wait_ready(slot, version=slot, timeout_s=60)
            wait_for(lambda slot=slot: healthy(plane, slot), 10)
        users = Users(plane, body(GOLDEN[:1]))
        for number in (signal.SIGKILL, signal.SIGSTOP):
            wait_for(lambda: plane.ready("b") and healthy(plane, "b"), 60)
            pid = plane.status()["slots"]["b"]["pid"]
            table(plane, 32)
            found = users.ask(150, halfway=lambda pid=pid, number=number: os.kill(pid, number))
            assert {status for status, _ in found.elements()} == {200}, found
            assert {slot for _, slot in found} == {"a", "b"}
    finally:
        plane.down()
