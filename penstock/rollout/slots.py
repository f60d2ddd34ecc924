"""A slot: one long-lived serving process, started, watched, restarted with back-off."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.processes import die_with_parent

PREDICTOR = (sys.executable, "-m", "serving.predictor")
"""Command that serves a package; tests put a stand-in here."""

DRAIN_S = 5.0
BACK_OFF_S = (0.2, 5.0)
"""Wait before the first restart, and the longest wait."""

ROTATE_BYTES = 5_000_000


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a slot should run."""

    package: str
    digest: str
    """Of the package as it was registered; another is not served."""

    version: str
    model: str
    fault: Mapping[str, str] | None = None


def reserve() -> socket.socket:
    """Hold a free loopback port without listening on it.

    Nobody else gets the port while the slot restarts, and a connection to a dead slot is refused
    at once instead of waiting in a queue that nobody reads.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


@dataclass(kw_only=True)
class Slot:
    """One slot of a supervisor."""

    name: str
    logs: Path
    command: Sequence[str] = PREDICTOR
    clock: Callable[[], float] = time.monotonic
    reserved: socket.socket = field(default_factory=reserve)
    wanted: Wanted | None = None
    state: str = "stopped"
    restarts: int = 0
    error: str = ""
    seconds: float | None = None
    _process: subprocess.Popen[bytes] | None = None
    _was_ready: bool = False
    _again_at: float = 0.0

    @property
    def port(self) -> int:
        """The slot's port, the same for its whole life."""
        return self.reserved.getsockname()[1]

    @property
    def folder(self) -> Path:
        """Where the process leaves its prediction log and ``ready.json``."""
        return self.logs / self.name

    def want(self, wanted: Wanted | None) -> None:
        """Run this from now on; a process of another version is stopped first."""
        if wanted == self.wanted:
            return
        self.stop()
        self.wanted, self.restarts, self.error = wanted, 0, ""
        if wanted is not None:
            self._start()

    def watch(self) -> None:
        """Look at the process: ready yet, crashed, time to start it again."""
        if self.wanted is None:
            return
        if self._process is None:
            if self.state == "waiting" and self.clock() >= self._again_at:
                self._start()
            return
        code = self._process.poll()
        if code is not None:
            self._ended(code)
        elif self.state == "starting" and self._is_ready():
            self.state, self._was_ready = "ready", True

    def stop(self) -> None:
        """Let requests in flight finish, then end the process."""
        process, self._process = self._process, None
        self.state, self._was_ready, self.seconds = "stopped", False, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        # A stopped (hanging) process cannot act on a signal before it is continued.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(DRAIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def describe(self) -> dict[str, Any]:
        """Return the slot's state as plain values."""
        return {
            "state": self.state,
            "pid": self._process.pid if self._process else None,
            "port": self.port,
            "version": self.wanted.version if self.wanted else None,
            "restarts": self.restarts,
            "seconds": self.seconds,
            "error": self.error,
            "log": str(self.folder),
        }

    def _start(self) -> None:
        wanted = self.wanted
        if wanted is None:
            raise ValueError(f"slot {self.name} has nothing to start")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "ready.json").unlink(missing_ok=True)
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(256)
        arguments = ["--bundle", wanted.package, "--digest", wanted.digest]
        arguments += ["--model-name", wanted.model]
        arguments += ["--version", wanted.version, "--slot", self.name]
        arguments += ["--fd", str(listening.fileno()), "--log", str(self.folder)]
        if wanted.fault is not None:
            arguments += ["--fault", wanted.fault["kind"], "--fault-on", wanted.fault["on"]]
        output = self.folder / "server.log"
        if output.exists() and output.stat().st_size > ROTATE_BYTES:
            output.replace(output.with_suffix(".log.1"))
        with output.open("ab") as log, listening:
            self._process = subprocess.Popen(
                [*self.command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
                preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        self.state = "starting"

    def _is_ready(self) -> bool:
        try:
            said = json.loads((self.folder / "ready.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if self._process is None or self.wanted is None or said.get("pid") != self._process.pid:
            return False
        self.seconds = said.get("seconds")
        return answers(self.port, f"/v2/models/{self.wanted.model}/ready")

    def _ended(self, code: int) -> None:
        self._process = None
        self.error = _last_line(self.folder / "server.log") or f"ended with {code}"
        if not self._was_ready:
            # It refused to serve; starting it again would refuse again.
            self.state = "failed"
            return
        first, longest = BACK_OFF_S
        self._again_at = self.clock() + min(longest, first * 2**self.restarts)
        self.restarts += 1
        self.state = "waiting"


def answers(port: int, path: str) -> bool:
    """Return whether a loopback server answers a GET with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _last_line(path: Path) -> str:
    try:
        lines = path.read_bytes()[-4000:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def alive(pid: int, started: str) -> bool:
    """Return whether a process still runs, and is not another that got its number."""
    return started_at(pid) == started


def started_at(pid: int) -> str:
    """Return the kernel's start time of a process, or empty when there is none.

    A process that has ended and only waits to be collected counts as ended.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def this_process() -> dict[str, Any]:
    """Return this process's number and start time."""
    return {"pid": os.getpid(), "start": started_at(os.getpid())}
