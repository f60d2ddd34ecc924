"""Laws of watched processes: started again later and later, never two of one slot, no line lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rollout.desired import Wanted
from penstock.rollout.plane import Plane
from penstock.rollout.rotation import KEPT, cut, piece, rotate
from penstock.rollout.slots import DRAIN_S, Slot, last_line, reserve
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.watching import (
    BACK_OFF_S,
    HANG_S,
    LATE_S,
    LOOPING,
    STEADY_S,
    BackOff,
    Pulse,
    left_over,
    this_process,
)
from tests.packages import free_port, running, wait_for
from tests.rollout.test_plane import STANDIN, filled, processes

COMMAND = json.loads(STANDIN)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@given(st.lists(st.floats(0, STEADY_S - 1), min_size=1, max_size=12))
def test_each_crash_in_a_row_waits_longer_up_to_a_limit(lived_s: list[float]):
    """The wait never shrinks within a row, never passes the limit, and every crash is counted."""
    clock = Clock()
    again, waits = BackOff(clock=clock), list[float]()
    for s in lived_s:
        again.begun()
        clock.now += s
        again.ended()
        waits.append(round(again.again_at - clock.now, 6))
        assert not again.due
        clock.now = again.again_at
        assert again.due

    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(BACK_OFF_S[0])
    assert waits[-1] <= BACK_OFF_S[1] + 1e-9
    assert again.restarts == len(lived_s)
    assert again.looping == (len(lived_s) >= LOOPING and clock.now - again._begun_at < STEADY_S)


def test_a_night_of_crashes_is_survived():
    """The wait stays at its limit however long the row is."""
    again = BackOff(clock=Clock())
    for _ in range(3000):
        again.begun()
        again.ended()

    assert again.again_at - again.clock() == pytest.approx(BACK_OFF_S[1])


def test_a_process_that_ran_well_begins_a_new_row():
    """After a steady time the next crash waits no longer than a first one; none is forgotten."""
    clock = Clock()
    again = BackOff(clock=clock)
    for lived_s in (0.0, 0.0, 0.0, STEADY_S):
        again.begun()
        clock.now += lived_s
        again.ended()

    assert again.again_at - clock.now == pytest.approx(BACK_OFF_S[0])
    assert (again.restarts, again.looping) == (4, False)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A server that accepts connections, if only in the kernel, and never answers by itself."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


def test_silence_is_noticed_and_an_answer_ends_it(listening: socket.socket):
    """Feeling a pulse never waits; time passes only for who was really silent."""
    clock = Clock()
    pulse = Pulse(port=listening.getsockname()[1], path="/ready", clock=clock)
    for _ in range(int(HANG_S * 10)):
        clock.now += 0.1
        pulse.feel()
    assert pulse.silent_s == pytest.approx(HANG_S)

    accepted, _ = listening.accept()
    accepted.sendall(b"HTTP/1.1 503 not ready\r\n\r\n")
    wait_for(lambda: _felt(pulse, clock), 5)
    pulse.close()
    accepted.close()


def _felt(pulse: Pulse, clock: Clock) -> bool:
    clock.now += 0.001
    pulse.feel()
    return pulse.silent_s == 0


def test_a_watcher_that_slept_blames_nobody(listening: socket.socket):
    """A supervisor that was stopped for a minute has heard nothing, and ends nobody for that."""
    clock = Clock()
    pulse = Pulse(port=listening.getsockname()[1], path="/ready", clock=clock)
    pulse.feel()
    clock.now += 60
    pulse.feel()

    assert pulse.silent_s <= LATE_S < HANG_S
    pulse.close()


@given(st.floats(0.05, 30.0))
def test_slow_rounds_hide_no_hang(round_s: float):
    """However seldom its watcher looks, a silent server is found out in a bounded number."""
    with socket.socket() as never:
        never.bind(("127.0.0.1", 0))
        clock = Clock()
        pulse = Pulse(port=never.getsockname()[1], path="/ready", clock=clock)
        for _ in range(1 + int(HANG_S / min(round_s, LATE_S)) + 1):
            clock.now += round_s
            pulse.feel()
        assert pulse.silent_s > HANG_S
        pulse.close()


def test_two_reserved_ports_differ_and_a_dead_slot_refuses_at_once():
    """Nobody else is given a reserved port, and nobody waits at it."""
    held = [reserve() for _ in range(20)]
    ports = {one.getsockname()[1] for one in held}

    assert len(ports) == 20
    with socket.socket() as asks, pytest.raises(ConnectionRefusedError):
        asks.connect(held[0].getsockname())
    for one in held:
        one.close()


Made = Callable[..., Slot]


@pytest.fixture
def made() -> Iterator[Made]:
    """Makes slots without a supervisor; they are stopped and give their ports back."""
    slots: list[Slot] = []

    def make(logs: Path, **more: Any) -> Slot:
        slots.append(Slot(name="a", logs=logs, **more))
        return slots[-1]

    yield make
    for slot in slots:
        slot.stop()
        slot.reserved.close()
        slot.reserved_metrics.close()


def test_only_a_bounded_number_of_pieces_is_kept(tmp_path: Path):
    """The oldest goes, the order stays."""
    log = tmp_path / "server.log"
    for number in range(KEPT + 3):
        log.write_text(f"piece {number}")
        assert rotate(log, longest=3)
        assert not rotate(log, longest=3)

    assert len(list(tmp_path.iterdir())) == KEPT
    assert [piece(log, n).read_text() for n in (1, KEPT)] == [
        f"piece {KEPT + 2}",
        "piece 3",
    ]


def test_no_line_is_lost_when_a_log_is_renamed_under_its_writer(tmp_path: Path, made: Made):
    """A server that writes all the time: its pieces, one after the other, have every line."""
    slot = made(tmp_path, command=COMMAND, rotate_bytes=20_000)
    log = tmp_path / "a" / "server.log"
    slot.want(Wanted(package="p", digest="d", version="chatty", model="digits"))
    try:
        wait_for(lambda: slot.watch() or piece(log, 2).exists(), 20)
    finally:
        slot.stop()

    pieces = [piece(log, n) for n in range(KEPT, 0, -1)] + [log]
    lines = [line for p in pieces if p.exists() for line in p.read_text().splitlines()]
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] == 0
    assert len(numbers) > 1000


def test_a_server_that_is_never_ready_fails_in_the_end(tmp_path: Path, made: Made):
    """It is killed after its time, with a sentence; it does not stay *starting* for ever."""
    clock = Clock()
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    slot = made(tmp_path, command=sleeps, clock=clock)
    slot.want(Wanted(package="p", digest="d", version="1", model="digits"))
    pid = slot.describe()["pid"]
    slot.watch()
    assert slot.state == "starting"
    clock.now += 1000
    wait_for(lambda: slot.watch() or slot.state == "failed", 5)

    assert not running(pid)
    assert "was not ready within" in slot.error


def test_nobody_waits_for_a_server_that_drains(tmp_path: Path, made: Made):
    """Stopping is seen round by round: asked, given its time, then killed; then the next starts."""
    clock, note = Clock(), tmp_path / "deaf"
    deaf = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(note)!r}).touch(); time.sleep(600)"
    )
    slot = made(tmp_path, command=[sys.executable, "-c", deaf], clock=clock)
    slot.want(Wanted(package="p", digest="d", version="1", model="digits"))
    wait_for(note.exists, 10)
    pid = slot.describe()["pid"]
    slot.want(Wanted(package="p", digest="d", version="2", model="digits"))
    slot.watch()
    assert (slot.state, slot.describe()["pid"], running(pid)) == ("stopping", pid, True)

    clock.now += DRAIN_S + 1
    wait_for(lambda: slot.watch() or slot.state == "starting", 5)
    assert not running(pid)
    assert slot.describe()["pid"] != pid
    slot.want(None)
    clock.now += DRAIN_S + 1
    wait_for(lambda: slot.watch() or slot.state == "stopped", 5)


ANSWERS = """
import socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Yes(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
def given(name): return int(sys.argv[sys.argv.index(name) + 1])
metrics = HTTPServer(("127.0.0.1", given("--metrics-port")), Yes)
users = HTTPServer(("127.0.0.1", 0), Yes, bind_and_activate=False)
users.socket = socket.socket(fileno=given("--fd"))
users.serve_forever()
"""


def test_what_answers_is_ready_and_keeps_its_ports(tmp_path: Path, made: Made):
    """A server that could not write ready.json serves all the same; a new one has its ports."""
    clock, said = Clock(), list[str]()
    slot = made(tmp_path, command=[sys.executable, "-c", ANSWERS], clock=clock, say=said.append)
    slot.want(Wanted(package="p", digest="d", version="1", model="digits"))
    ports = slot.port, slot.metrics_port
    for _ in range(2):
        wait_for(lambda: _passes(slot, clock) or slot.state == "ready", 10)
        assert slot.seconds == pytest.approx(clock.now - slot._begun_at)
        assert (slot.describe()["port"], slot.describe()["metrics_port"]) == ports
        with socket.create_connection(("127.0.0.1", slot.metrics_port), timeout=5):
            os.kill(slot.describe()["pid"], signal.SIGKILL)
        wait_for(lambda: slot.watch() or slot.state == "waiting", 5)
    ended = [line for line in said if "ended by SIGKILL; again in" in line]
    assert len(ended) == 2
    assert sum("starts version 1, process" in line for line in said) == 2


def _passes(slot: Slot, clock: Clock) -> None:
    clock.now += 0.1
    slot.watch()


def test_a_log_is_cut_under_a_writer_that_only_appends(tmp_path: Path):
    """What was written is in the pieces, what is written next in the log, which stays short."""
    log = tmp_path / "envoy.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(KEPT + 2):
            writer.write(f"piece {number}".encode())
            assert cut(log, longest=3)
            assert not cut(log, longest=3)
        writer.write(b"now")

    assert log.read_text() == "now"
    assert [piece(log, n).read_text() for n in (1, KEPT)] == [f"piece {KEPT + 1}", "piece 2"]
    assert len(list(tmp_path.iterdir())) == KEPT + 1


def test_a_disk_that_is_full_is_waited_for(tmp_path: Path, made: Made):
    """A slot that cannot be started now is tried again, and says why it waits."""
    clock = Clock()
    slot = made(tmp_path / "file", command=COMMAND, clock=clock)
    (tmp_path / "file").write_text("a folder cannot be made here")
    slot.want(Wanted(package="p", digest="d", version="1", model="digits"))
    assert (slot.state, slot.describe()["restarts"]) == ("waiting", 1)
    assert "could not be started" in slot.error

    (tmp_path / "file").unlink()
    clock.now += 10
    slot.watch()
    assert slot.state == "starting"
    slot.stop()


def test_what_a_server_started_ends_with_it(tmp_path: Path, made: Made):
    """A helper that outlives a killed server would hold its port; it is ended too."""
    note = tmp_path / "helper"
    starts = (
        "import subprocess, sys, time, pathlib;"
        "p = subprocess.Popen(['sleep', '600']);"
        f"pathlib.Path({str(note)!r}).write_text(str(p.pid));"
        "time.sleep(600)"
    )
    slot = made(tmp_path, command=[sys.executable, "-c", starts])
    slot.want(Wanted(package="p", digest="d", version="1", model="digits"))
    wait_for(lambda: note.exists() and note.read_text(), 10)
    helper, pid = int(note.read_text()), slot.describe()["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: slot.watch() or slot.state == "failed", 10)

    wait_for(lambda: not running(helper), 5)


def test_a_number_that_went_to_somebody_else_is_left_alone(tmp_path: Path):
    """A note whose process has ended names nobody, whoever has its number now."""
    note = tmp_path / "process.json"
    note.write_text(json.dumps({**this_process(), "start": "1"}))
    assert left_over(note) is None
    note.write_text(json.dumps(this_process()))
    assert left_over(note) == os.getpid()
    note.write_text("{")
    assert left_over(note) is None


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots run the stand-in."""
    monkeypatch.setenv(COMMAND_VARIABLE, STANDIN)


@pytest.mark.usefixtures("standin")
@pytest.mark.parametrize("again", [True, False], ids=["started again", "stopped"])
def test_a_hung_server_of_a_killed_supervisor_is_found_and_ended(tmp_path: Path, again: bool):
    """A stopped process cannot die with its supervisor; the next one ends it before it starts."""
    plane = filled(tmp_path)
    old = processes(plane)
    hung = plane.status()["slots"]["b"]["pid"]
    os.kill(hung, signal.SIGSTOP)
    wait_for(lambda: "\nState:\tT" in Path(f"/proc/{hung}/status").read_text(), 5)
    os.kill(old[0], signal.SIGKILL)
    wait_for(lambda: [pid for pid in old if running(pid)] == [hung], 10)

    if not again:
        Plane(tmp_path).down()
        assert not running(hung)
        return
    try:
        plane = filled(tmp_path)
        assert not [pid for pid in old if running(pid)]
        assert all(plane.ready(slot) for slot in "ab")
    finally:
        plane.down()


@pytest.mark.usefixtures("standin")
def test_a_full_disk_or_a_torn_wish_stops_nobody(tmp_path: Path):
    """A desired state that cannot be read changes nothing; the servers go on."""
    plane = Plane.up(tmp_path, model="digits", port=free_port())
    try:
        plane.set_slot("a", package=tmp_path, digest="sha256:1", version="1")
        plane.wait_ready("a", version="1", timeout_s=20)
        (tmp_path / "serving" / "desired.json").write_text("{ torn")
        begun = plane.status()["at"]
        wait_for(lambda: plane.status()["at"] > begun + 1, 10)
        assert plane.ready("a")
    finally:
        plane.down()
    log = (tmp_path / "serving" / "supervisor.log").read_text()
    assert "desired.json cannot be read, keeping what is" in log
    assert last_line(tmp_path / "serving" / "supervisor.log")
    assert time.time() > begun
