"""Laws of the data plane, on a real Envoy and real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from penstock.rollout.plane import Plane, PlaneError, SlotFailed
from penstock.rollout.ports import Stale
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.table import TrafficTable, bucket_of
from tests.packages import free_port, running, wait_for

STANDIN = json.dumps([sys.executable, "-m", "penstock.rollout.rotation", "tests.rollout.standin"])
INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module", autouse=True)
def standin() -> Iterator[None]:
    """Slots run the stand-in: the laws of the plane do not depend on what is served."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    yield
    patch.undo()


RELEASE = "digits/2/all/1"


def table(
    plane: Plane, buckets: int, mirror: str | None = None, fallback: str | None = None
) -> TrafficTable:
    """Put a table in force and return it."""
    made = TrafficTable(
        sequence=plane.observe().sequence + 1,
        salt=RELEASE,
        champion="a",
        challenger="b" if buckets else None,
        buckets=buckets,
        mirror=mirror,
        fallback=fallback,
    )
    plane.apply(made)
    plane.wait_applied(made, timeout_s=5)
    return made


def filled(home: Path) -> Plane:
    """Return a running plane with both slots ready."""
    plane = Plane.up(home, model="digits", port=free_port())
    for slot, version in (("a", "1"), ("b", "2")):
        plane.set_slot(slot, package=home, digest="sha256:1", version=version)
    for slot, version in (("a", "1"), ("b", "2")):
        plane.wait_ready(slot, version=version, timeout_s=20)
    wait_for(lambda: all(_answers(plane, slot) for slot in "ab"), 5)
    return plane


def _answers(plane: Plane, slot: str) -> bool:
    return plane.probe(slot, "/v2/models/digits/ready")[0] == 200


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One plane for the tests that leave it as they found it."""
    made = filled(tmp_path_factory.mktemp("plane"))
    yield made
    made.down()


@pytest.fixture
def users(plane: Plane) -> Iterator[httpx.Client]:
    """A client of the edge."""
    with httpx.Client(base_url=plane.url) as client:
        yield client


def test_the_edge_and_the_library_agree_on_every_user(plane: Plane, users: httpx.Client):
    """The bucket that Envoy computes is the library's, for any name a user may have."""
    table(plane, 0)
    names = [f"u-{n}" for n in range(150)] + ["ü", "名前", "x" * 300, "a b", "x" * 46, "x" * 47]

    for name in names:
        seen = users.post(INFER, headers={"x-user-id": name.encode()}).json()

        assert int(seen["x-rollout-bucket"]) == bucket_of(RELEASE, name), name


def test_users_are_sticky_and_only_enter_as_the_share_grows(plane: Plane, users: httpx.Client):
    """Within a step a user has one version; across steps the challenger's users only grow."""
    names = [f"u-{n}" for n in range(100)]
    before: set[str] = set()
    for buckets in (0, 6, 16, 32, 64):
        made = table(plane, buckets)
        on_b = [{n for n in names if _slot(users, n) == "b"} for _ in range(2)]
        assert on_b[0] == on_b[1]
        assert on_b[0] >= before
        expected = {n for n in names if made.slot_for(bucket_of(RELEASE, n)) == "b"}
        assert on_b[0] == expected
        before = on_b[0]
    table(plane, 0)
    assert {n for n in names if _slot(users, n) == "b"} == set()


def _slot(users: httpx.Client, name: str) -> str:
    return users.post(INFER, headers={"x-user-id": name}).headers["x-penstock-slot"]


def test_what_a_client_says_of_its_own_arm_is_ignored(plane: Plane, users: httpx.Client):
    """A client cannot choose its bucket, its arm, or to be taken for a shadow."""
    table(plane, 6)
    name = next(n for n in map(str, range(99)) if bucket_of(RELEASE, n) > 6)
    forged = {"x-rollout-bucket": "0", "x-rollout-arm": "challenger", "x-rollout-shadow": "1"}

    answer = users.post(INFER, headers={"x-user-id": name, **forged})

    assert answer.headers["x-penstock-slot"] == "a"
    assert answer.json()["x-rollout-arm"] == "champion"
    assert "x-rollout-shadow" not in answer.json()


def test_a_probe_reaches_its_slot_whatever_the_table(plane: Plane):
    """Either slot can be asked through the edge while it has no users."""
    table(plane, 0)

    for slot in "ab":
        assert plane.probe(slot, INFER, b"{}")[0] == 200


def test_the_mirror_gets_a_copy_that_no_user_sees(plane: Plane, users: httpx.Client):
    """Copies carry the same body and request id, are marked, and the champion's answer is given."""
    table(plane, 0, mirror="b")
    seen = plane.log_folder("b") / "seen.jsonl"
    for n in range(50):
        answer = users.post(
            INFER,
            content=f"body-{n}",
            headers={"x-request-id": f"mirror-{n}", "x-user-id": str(n)},
        )
        assert answer.headers["x-penstock-slot"] == "a"

    def copies() -> dict[str, dict[str, str]]:
        lines = [json.loads(line) for line in seen.read_text().splitlines()]
        return {
            line["headers"]["x-request-id"]: line
            for line in lines
            if line["headers"]["x-request-id"].startswith("mirror-")
        }

    wait_for(lambda: len(copies()) == 50, 5)
    assert all(line["body"] == f"body-{rid[7:]}" for rid, line in copies().items())
    assert all("-shadow" in line["headers"]["host"] for line in copies().values())
    table(plane, 0)


def test_a_stale_controller_cannot_write(plane: Plane):
    """A table with the sequence in force, or a lower one, is refused and changes nothing."""
    held = table(plane, 16)
    for sequence in (held.sequence, held.sequence - 1):
        stale = TrafficTable.from_dict({**held.to_dict(), "sequence": sequence, "buckets": 64})
        with pytest.raises(Stale, match="read the table"):
            plane.apply(stale)

    assert plane.observe() == held


def test_a_broken_route_file_keeps_the_table(plane: Plane, users: httpx.Client):
    """Garbage where the table should be leaves the last good table in force."""
    held = table(plane, 64)
    routes = Path(plane.status()["routes"])
    good = routes.read_text()
    part = routes.with_name("part")
    part.write_text("{ nonsense")
    part.replace(routes)
    time.sleep(0.5)

    assert _slot(users, "u") == "b"
    assert plane.observe() == held
    part.write_text(good)
    part.replace(routes)
    table(plane, 0)


def test_a_rollback_under_load_fails_nobody(plane: Plane):
    """From the moment the table is confirmed no answer comes from the challenger; none fails."""
    answers: list[tuple[float, int, str]] = []
    stop = threading.Event()

    def load(worker: int) -> None:
        with httpx.Client(base_url=plane.url) as client:
            n = 0
            while not stop.is_set():
                n += 1
                begun = time.monotonic()
                answer = client.post(INFER, headers={"x-user-id": f"{worker}-{n}"})
                answers.append((begun, answer.status_code, answer.headers["x-penstock-slot"]))

    workers = [threading.Thread(target=load, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    confirmed: list[float] = []
    for _ in range(8):
        table(plane, 64)
        time.sleep(0.1)
        table(plane, 0)
        confirmed.append(time.monotonic())
        time.sleep(0.1)
        late = [a for a in answers if confirmed[-1] < a[0]]
        assert {slot for _, _, slot in late} <= {"a"}
    stop.set()
    for worker in workers:
        worker.join()

    assert {status for _, status, _ in answers} == {200}
    assert "b" in {slot for _, _, slot in answers}


def test_a_dead_challenger_costs_its_users_no_error(plane: Plane, users: httpx.Client):
    """Killed under its users, the challenger is replaced by the champion and then comes back."""
    table(plane, 64)
    pid = plane.status()["slots"]["b"]["pid"]
    os.kill(pid, signal.SIGKILL)
    statuses = [users.post(INFER, headers={"x-user-id": str(n)}).status_code for n in range(200)]

    assert set(statuses) == {200}
    wait_for(lambda: plane.ready("b") and plane.status()["slots"]["b"]["pid"] != pid, 10)
    assert plane.status()["slots"]["b"]["restarts"] == 1
    table(plane, 0)


def test_a_package_that_refuses_is_not_started_again(plane: Plane):
    """A server that ends before it was ready fails its slot with its own last line."""
    plane.stop_slot("b")
    plane.set_slot("b", package=Path("/refuses"), digest="sha256:1", version="9")

    with pytest.raises(SlotFailed, match="the package was altered"):
        plane.wait_ready("b", version="9", timeout_s=20)

    plane.set_slot("b", package=plane.home, digest="sha256:1", version="2")
    plane.wait_ready("b", version="2", timeout_s=20)


def test_a_second_supervisor_is_refused(plane: Plane):
    """One home has one supervisor; the second says so and ends."""
    command = [sys.executable, "-m", "penstock.rollout.supervisor", "--home", str(plane.home)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 2
    assert "has a supervisor already" in done.stderr


def test_a_port_in_use_says_what_to_do(tmp_path: Path):
    """Starting on a port that somebody holds names the port and the way out."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(PlaneError, match=rf"port {port} is in use.*--port"):
            Plane.up(tmp_path, model="digits", port=port)

    assert not Plane.running(tmp_path)


def processes(plane: Plane) -> list[int]:
    """Return every process of a plane."""
    seen = plane.status()
    slots = [s["pid"] for s in seen["slots"].values() if s["pid"]]
    return [seen["supervisor"]["pid"], seen["envoy"], *slots]


def test_killing_the_supervisor_leaves_no_process(tmp_path: Path):
    """Even killed outright, the supervisor takes Envoy and both slots with it."""
    plane = filled(tmp_path)
    pids = processes(plane)
    os.kill(pids[0], signal.SIGKILL)

    wait_for(lambda: not any(running(pid) for pid in pids), 10)
    assert not Plane.running(tmp_path)


OWNER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from penstock.rollout.lease import FileLease
FileLease(Path(sys.argv[1]) / "serving").acquire("digits/2/all/1", datetime.now(UTC))
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("champion", ["a", ""], ids=["with a champion", "without"])
def test_a_release_that_dies_returns_everybody(tmp_path: Path, champion: str):
    """When a release's process is killed, users go back to the champion; without one, all stops."""
    plane = filled(tmp_path)
    pids = processes(plane)
    table(plane, 64 if champion else 0)
    if not champion:
        # Of a first version: the slot that tables name is empty until it is ready.
        plane.stop_slot("a")
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    time.sleep(0.3)
    owner.kill()
    owner.wait()
    owner.stdout.close()

    if champion:
        wait_for(lambda: plane.observe().buckets == 0, 5)
        wait_for(lambda: plane.status()["slots"]["b"]["state"] == "stopped", 10)
        assert plane.ready("a")
        plane.down()
    wait_for(lambda: not any(running(pid) for pid in pids), 10)
