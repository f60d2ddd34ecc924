"""A slot: one long-lived serving process, started, watched, restarted with back-off."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.rollout.desired import Wanted
from penstock.rollout.record import unheard
from penstock.rollout.rotation import LOG_VARIABLE, ROTATE_BYTES, rotate
from penstock.rollout.table import RULES
from penstock.rollout.watching import (
    GONE_S,
    HANG_S,
    BackOff,
    Pulse,
    begin,
    end_group,
    end_leftover,
)

PREDICTOR = (sys.executable, "-m", "penstock.rollout.rotation", "serving.predictor")
"""Command that serves a package; tests put a stand-in here. It takes SIGUSR1 as a call to open its
log anew."""

DRAIN_S = 8.0
START_S = 120.0
"""A server that is not ready after this long never will be."""

ASK_S = 0.1
"""How often a starting server is asked whether it is ready."""

LEFT_S = 0.5
"""Longest wait for a process of an earlier start; the other slot is watched by the same loop."""


def reserve() -> socket.socket:
    """Hold a free loopback port without listening on it.

    Nobody else gets the port while the slot restarts, and a connection to a dead slot is refused
    at once instead of waiting in a queue that nobody reads.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Whoever listens there without being handed a socket asks for this one only.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


@dataclass(kw_only=True)
class Slot:
    """One slot of a supervisor."""

    name: str
    logs: Path
    command: Sequence[str] = PREDICTOR
    clock: Callable[[], float] = time.monotonic
    rotate_bytes: int = ROTATE_BYTES
    say: Callable[[str], None] = unheard
    reserved: socket.socket = field(default_factory=reserve)
    reserved_metrics: socket.socket = field(default_factory=reserve)
    wanted: Wanted | None = None
    state: str = "stopped"
    error: str = ""
    seconds: float | None = None
    _process: subprocess.Popen[bytes] | None = None
    _pulse: Pulse | None = None
    _was_ready: bool = False
    _killed: str = ""
    _begun_at: float = 0.0
    _drained_at: float = 0.0
    _again: BackOff = field(init=False)

    def __post_init__(self) -> None:
        self._again = BackOff(clock=self.clock)

    @property
    def port(self) -> int:
        """The slot's port, the same for its whole life."""
        return self.reserved.getsockname()[1]

    @property
    def metrics_port(self) -> int:
        """Where its metrics are read, the same for its whole life too."""
        return self.reserved_metrics.getsockname()[1]

    @property
    def folder(self) -> Path:
        """Where the process leaves its prediction log and ``ready.json``."""
        return self.logs / self.name

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    @property
    def _note(self) -> Path:
        return self.folder / "process.json"

    def want(self, wanted: Wanted | None) -> None:
        """Run this from now on; a process of another version is stopped first, by :meth:`watch`."""
        if wanted == self.wanted:
            return
        self.wanted, self.error, self._again = wanted, "", BackOff(clock=self.clock)
        if self._process is not None:
            self._begin_to_stop(self._process)
        elif wanted is not None:
            self._start()
        else:
            self._rest()

    def watch(self) -> None:
        """Look at the process: ready yet, crashed, silent, gone, time to start it again."""
        if self._process is None:
            if self.state == "waiting" and self._again.due:
                self._start()
            return
        code = self._process.poll()
        if self.state == "stopping":
            self._see_stopped(self._process, code)
        elif code is not None:
            self._ended(self._killed or self._last_words(code))
        elif self._killed:
            end_group(self._process.pid)
        elif self.state == "starting":
            self._see_ready()
        else:
            self._feel()

    def _see_ready(self) -> None:
        """Take its port's word: a full disk keeps ``ready.json`` from being written, not users."""
        if self._pulse is None:
            return
        self._pulse.feel()
        if self._pulse.status == 200:
            self.state, self._was_ready, self.seconds = "ready", True, self._seconds_to_ready()
            self._pulse.close()
            self._pulse = Pulse(port=self.port, path=self._ready_path, clock=self.clock)
            self.say(f"slot {self.name} is ready after {self.seconds:.1f} s")
        elif self.clock() - self._begun_at > START_S:
            self._kill(f"was not ready within {START_S:.0f} s")

    def _feel(self) -> None:
        """Check that a ready server answers; keep its log short."""
        if self._pulse is None or self._process is None:
            return
        self._pulse.feel()
        if self._pulse.silent_s > HANG_S:
            self._kill(f"lived, but answered nothing for {HANG_S:.0f} s")
        elif rotate(self._log, longest=self.rotate_bytes):
            self._process.send_signal(signal.SIGUSR1)

    def _kill(self, why: str) -> None:
        """Kill it; that it is gone is seen when it is."""
        if self._process is not None:
            self.say(f"slot {self.name} {why}; process {self._process.pid} is killed")
            self._killed = why
            end_group(self._process.pid)

    def _begin_to_stop(self, process: subprocess.Popen[bytes]) -> None:
        if self.state == "stopping":
            return
        self.state, self._drained_at = "stopping", self.clock() + DRAIN_S
        self.say(f"slot {self.name} is stopped, process {process.pid}")
        process.send_signal(signal.SIGTERM)
        # A stopped (hanging) process cannot act on a signal before it is continued.
        process.send_signal(signal.SIGCONT)

    def _see_stopped(self, process: subprocess.Popen[bytes], code: int | None) -> None:
        """Let requests in flight finish, then end the process and what it has started."""
        if code is None:
            if self.clock() > self._drained_at:
                end_group(process.pid)
            return
        end_group(process.pid)
        self._forget()
        self._rest()
        if self.wanted is not None:
            self._start()

    def _rest(self) -> None:
        self.state, self._was_ready, self.seconds = "stopped", False, None

    def stop(self) -> None:
        """Run nothing, and return when nothing runs, or does not end although it was killed."""
        self.want(None)
        end = time.monotonic() + DRAIN_S + GONE_S
        while self._process is not None and time.monotonic() < end:
            self.watch()
            time.sleep(0.01)

    def describe(self) -> dict[str, Any]:
        """Return the slot's state as plain values."""
        return {
            "state": self.state,
            "pid": self._process.pid if self._process else None,
            "port": self.port,
            "metrics_port": self.metrics_port if self.wanted else None,
            "version": self.wanted.version if self.wanted else None,
            "restarts": self._again.restarts,
            "looping": self._again.looping,
            "seconds": self.seconds,
            "error": self.error,
            "log": str(self.folder),
        }

    @property
    def _ready_path(self) -> str:
        return f"/v2/models/{self.wanted.model if self.wanted else ''}/ready"

    def _start(self) -> None:
        wanted = self.wanted
        if wanted is None:
            raise ValueError(f"slot {self.name} has nothing to start")
        self._again.begun()
        self._begun_at = self.clock()
        try:
            self._launch(wanted)
        except (OSError, subprocess.SubprocessError) as e:
            # A full disk, no memory: it may go as it came.
            self.error, self.state = f"could not be started: {e}", "waiting"
            self._again.ended()
            self.say(f"slot {self.name} {self.error}; again in {self._again.wait_s:.1f} s")
            return
        self.state, self._killed = "starting", ""
        self._pulse = Pulse(port=self.port, path=self._ready_path, clock=self.clock, every_s=ASK_S)
        pid = self._process.pid if self._process else None
        self.say(f"slot {self.name} starts version {wanted.version}, process {pid}")

    def _launch(self, wanted: Wanted) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Of a supervisor that was killed while its server hung: such a one cannot heed its end.
        end_leftover(self._note, wait_s=LEFT_S)
        (self.folder / "ready.json").unlink(missing_ok=True)
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(256)
        rotate(self._log, longest=self.rotate_bytes)
        with self._log.open("ab") as log, listening:
            self._process = subprocess.Popen(
                [*self.command, *self._arguments(wanted, listening.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
                env={**os.environ, LOG_VARIABLE: str(self._log)},
                start_new_session=True,
                preexec_fn=begin(self._note, signal.SIGTERM),  # noqa: PLW1509 - one thread here
            )

    def _arguments(self, wanted: Wanted, descriptor: int) -> list[str]:
        arguments = ["--bundle", wanted.package, "--digest", wanted.digest]
        arguments += ["--model-name", wanted.model]
        arguments += ["--version", wanted.version, "--slot", self.name]
        arguments += ["--fd", str(descriptor), "--log", str(self.folder)]
        arguments += ["--metrics-port", str(self.metrics_port)]
        if self.name == RULES:
            arguments.append("--rules-only")
        if wanted.fault is not None:
            arguments += ["--fault", wanted.fault["kind"], "--fault-on", wanted.fault["on"]]
        return arguments

    def _seconds_to_ready(self) -> float:
        """Return its own word, ours where it could not write it."""
        try:
            said = json.loads((self.folder / "ready.json").read_text(encoding="utf-8"))
            if self._process is not None and said["pid"] == self._process.pid:
                return float(said["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return self.clock() - self._begun_at

    def _last_words(self, code: int) -> str:
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return last_line(self._log) or f"ended with {code}"

    def _ended(self, why: str) -> None:
        process = self._process
        self._forget()
        if process is not None:
            # What it started holds its port, and must not answer in its place.
            end_group(process.pid)
        self.error = why
        if not self._was_ready:
            # It refused to serve; starting it again would refuse again.
            self.state = "failed"
            self.say(f"slot {self.name} refused to serve: {why}")
            return
        self._again.ended()
        self.state = "waiting"
        self.say(f"slot {self.name} ended: {why}; again in {self._again.wait_s:.1f} s")

    def _forget(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
        self._process = self._pulse = None
        self._killed = ""


def last_line(path: Path) -> str:
    """Return the last line of a log, empty where there is none."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, path.stat().st_size - 4000))
            lines = f.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
