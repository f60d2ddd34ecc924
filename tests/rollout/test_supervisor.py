"""Laws of the supervisor: nothing around it ends it, its record stays, its end cuts nobody."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.bundle import write_json
from penstock.rollout import servers
from penstock.rollout.desired import whole
from penstock.rollout.lease import FileLease
from penstock.rollout.plane import Plane
from penstock.rollout.record import UNSAID, Record
from penstock.rollout.rotation import ROTATE_BYTES, piece
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.targets import targets
from penstock.rollout.watching import started_at
from tests.packages import free_port, running, wait_for
from tests.rollout.test_plane import INFER, RELEASE, STANDIN, filled, processes, table

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots run the stand-in."""
    monkeypatch.setenv(COMMAND_VARIABLE, STANDIN)


@pytest.fixture
def full() -> Iterator[int]:
    """A descriptor of a disk without room."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def test_what_a_full_disk_did_not_take_is_said_later(tmp_path: Path, full: int):
    """No word raises; the newest lines are kept, bounded, and written when there is room."""
    record = Record(descriptor=full, clock=lambda: AT)
    for number in range(UNSAID + 5):
        record.say(f"line {number}\nof two")
    with (tmp_path / "log").open("wb") as log:
        os.dup2(log.fileno(), full)
    record.say("room again")

    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "2026-01-02T03:04:05.000Z line 6 of two"
    assert lines[-1].endswith("room again")
    assert len(lines) == UNSAID


def test_what_fails_again_and_again_is_said_once(tmp_path: Path):
    """Any error is kept from its caller, said when it begins and when it is over."""
    with (tmp_path / "log").open("wb") as log:
        record = Record(descriptor=log.fileno(), clock=lambda: AT)
        for key in ("no", "no", "there", "no"):
            record.attempt("not looked up", lambda key=key: {"there": 1}[key])

    said = [line.partition("Z ")[2] for line in (tmp_path / "log").read_text().splitlines()]
    failed = "not looked up: KeyError: 'no'"
    assert said == [failed, "over: not looked up", failed]


def test_a_desired_state_that_lacks_something_is_refused():
    """What every round reads is there, or nothing is taken of it."""
    slot = {"package": "p", "digest": "d", "version": "1", "fault": None}
    good: dict[str, Any] = {
        "slots": {"a": slot, "b": None},
        "model": "digits",
        "stop": False,
    }
    assert whole(good) == good
    bad = [{k: v for k, v in good.items() if k != lacking} for lacking in good]
    bad += [good | {"slots": {"a": {}, "b": None}}, good | {"slots": None}]
    bad.append(good | {"slots": {**good["slots"], "rules": {}}})
    assert whole(good | {"slots": {**good["slots"], "rules": slot}})
    for desired in [*bad, None, [], "text"]:
        with pytest.raises(ValueError, match="Error"):
            whole(desired)


def test_prometheus_is_told_of_what_should_serve():
    """A slot that should serve is asked even while it is down; an empty one is not."""
    slots = {
        "a": {"metrics_port": 7, "version": "1"},
        "b": {"metrics_port": None, "version": None},
    }
    assert targets("digits", slots, "") == [
        {"targets": ["127.0.0.1:7"], "labels": {"job": "penstock", "model": "digits", "slot": "a"}}
    ]
    (_, edge) = targets("digits", slots, "127.0.0.1:9")
    assert (edge["targets"], edge["labels"]["job"]) == (["127.0.0.1:9"], "penstock-edge")


def test_nothing_around_it_ends_it(tmp_path: Path):
    """No room on the disk, nonsense in every file it reads: it goes on, and says so afterwards."""
    plane = filled(tmp_path)
    folder, pids = tmp_path / "serving", processes(plane)
    desired = json.loads((folder / "desired.json").read_text())
    table(plane, 16)
    no_room = (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    before = resource.prlimit(pids[0], resource.RLIMIT_FSIZE, no_room)
    try:
        begun = plane.status()["at"]
        for access in ('{"tokens": null}', '"text"', '{"tokens": {}}'):
            (folder / "access.json").write_text(access)
            for torn in ("{}", "[]", '{"slots": {"a": 1}}', "{ torn"):
                (folder / "desired.json").write_text(torn)
                time.sleep(0.12)
        slots = desired["slots"] | {"b": None}
        write_json(folder / "desired.json", desired | {"slots": slots})
        lease = FileLease(folder)
        lease.acquire(RELEASE, datetime.now(UTC))
        lease.abandon(RELEASE)
        wait_for(lambda: not running(pids[3]), 5)
        assert plane.status()["at"] == begun
        assert [running(pid) for pid in pids[:3]] == [True] * 3
        resource.prlimit(pids[0], resource.RLIMIT_FSIZE, before)
        wait_for(lambda: plane.status()["at"] > begun, 5)
        wait_for(lambda: plane.status()["slots"]["b"]["state"] == "stopped", 5)
        wait_for(lambda: plane.observe().buckets == 0, 5)
        assert plane.written().sequence == 2
        (folder / "access.json").write_text('{"tokens": null}')
        wait_for(lambda: "tokens" in plane.status()["access_error"], 5)
        (folder / "access.json").unlink()
        wait_for(lambda: "is gone" in plane.status()["access_error"], 5)
    finally:
        resource.prlimit(pids[0], resource.RLIMIT_FSIZE, before)
        plane.down()
    log = (folder / "supervisor.log").read_text()
    for said in ("observed.json cannot be", "desired.json cannot be", "access stays as it was"):
        assert f"Z {said}" in log
        assert f"Z over: {said}" in log or said.startswith("access")
    assert "has ended: everybody to slot a" in log


def test_what_happened_can_be_read_afterwards(tmp_path: Path):
    """Every start, end and restart is in the record, with its time, also after the next start."""
    plane = filled(tmp_path)
    folder = tmp_path / "serving"
    try:
        asked = json.loads((folder / "targets.json").read_text())
        ports = {slot: plane.status()["slots"][slot]["metrics_port"] for slot in "ab"}
        _, edge, slot_a, _ = processes(plane)
        os.kill(slot_a, signal.SIGKILL)
        os.kill(edge, signal.SIGKILL)
        wait_for(lambda: plane.status()["slots"]["a"]["restarts"] and plane.ready("a"), 10)
        wait_for(lambda: plane.status()["envoy"] not in (None, edge), 10)
        # As long as five million letters, without writing them.
        os.truncate(folder / "envoy.log", ROTATE_BYTES + 1)
        wait_for(lambda: piece(folder / "envoy.log", 1).exists(), 5)
        assert ports == {s: plane.status()["slots"][s]["metrics_port"] for s in "ab"}
    finally:
        plane.down()
    assert [group["targets"][0] for group in asked[:2]] == [f"127.0.0.1:{ports[s]}" for s in "ab"]
    assert json.loads((folder / "targets.json").read_text()) == []
    Plane.up(tmp_path, model="digits", port=free_port()).down()

    lines = (folder / "supervisor.log").read_text().splitlines()
    assert all(datetime.fromisoformat(line.partition(" ")[0]) for line in lines)
    said = "\n".join(lines)
    for words in (
        f"slot a starts version 1, process {slot_a}",
        "slot a is ready after 0.1 s",
        "slot a ended: ended by SIGKILL; again in",
        f"envoy starts, process {edge}",
        "envoy ended by SIGKILL; again in",
        "slot b is stopped, process",
        "envoy is stopped, process",
    ):
        assert words in said, words
    assert said.count("the supervisor starts, process") == 2
    assert said.count("the supervisor is stopped") == 2


def test_its_end_cuts_nobody(tmp_path: Path):
    """Requests in flight when the servers are stopped are answered."""
    plane = Plane.up(tmp_path, model="digits", port=free_port())
    plane.set_slot("a", package=tmp_path, digest="sha256:1", version="slow-0.5")
    plane.wait_ready("a", version="slow-0.5", timeout_s=20)
    wait_for(lambda: plane.probe("a", "/v2/models/digits/ready")[0] == 200, 5)
    statuses = list[int]()

    def ask() -> None:
        statuses.append(httpx.post(plane.url + INFER, timeout=10).status_code)

    seen = plane.log_folder("a") / "seen.jsonl"
    users = [threading.Thread(target=ask) for _ in range(5)]
    for user in users:
        user.start()
    wait_for(lambda: seen.exists() and len(seen.read_text().splitlines()) == 5, 5)
    plane.down()
    for user in users:
        user.join()

    assert statuses == [200] * 5


def test_a_stopped_supervisor_is_continued_to_end(tmp_path: Path):
    """Whoever was stopped is continued, and then ends as asked, with all it started."""
    plane = filled(tmp_path)
    pids = processes(plane)
    os.kill(pids[0], signal.SIGSTOP)
    plane.down()

    assert not any(running(pid) for pid in pids)
    assert "the supervisor is stopped" in (tmp_path / "serving" / "supervisor.log").read_text()


def test_a_supervisor_that_does_not_heed_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After its time it is ended by its number and start time; a process of that number is not."""
    monkeypatch.setattr(servers, "DOWN_S", 0.1)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    command = [sys.executable, "-c", f"{deaf}; time.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (tmp_path / "serving").mkdir()
        for start in ("1", started_at(process.pid)):
            assert process.poll() is None
            seen = {"supervisor": {"pid": process.pid, "start": start}}
            write_json(tmp_path / "serving" / "observed.json", seen)
            Plane(tmp_path).down()
        assert process.wait(5) == -signal.SIGKILL
