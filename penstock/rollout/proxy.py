"""Envoy as a process: started, watched, restarted with back-off, its logs kept in pieces."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.rollout import admin, envoy
from penstock.rollout.record import unheard
from penstock.rollout.rotation import ROTATE_BYTES, cut, rotate
from penstock.rollout.watching import HANG_S, BackOff, Pulse, begin, end_group

STOP_S = 3.0
DRAIN_S = 8.0
"""Longest wait at the end for requests in flight, however long the workload lets one take."""

POLL_S = 0.02


class Proxy:
    """One Envoy."""

    def __init__(
        self,
        edge: envoy.Edge,
        *,
        rotate_bytes: int = ROTATE_BYTES,
        say: Callable[[str], None] = unheard,
    ) -> None:
        """Take what it is to do; :meth:`start` starts it."""
        self.edge, self._say = edge, say
        self._rotate_bytes = rotate_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._pulse: Pulse | None = None
        self._again = BackOff()
        self._error = self._killed = ""

    @property
    def log(self) -> Path:
        """Envoy's own words."""
        return self.edge.folder / "envoy.log"

    @property
    def _note(self) -> Path:
        return self.edge.folder / "envoy" / "process.json"

    def start(self) -> None:
        """Start it on the files that are there."""
        self.edge.admin.unlink(missing_ok=True)
        self._note.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                envoy.command(self.edge),
                cwd=self.edge.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_first(self._note),  # noqa: PLW1509 - one thread here
            )
        self._again.begun()
        self._say(f"envoy starts, process {self._process.pid}")

    def watch(self) -> None:
        """Start it again when it ended or fell silent; keep its logs short."""
        if self._process is None:
            if self._again.due:
                self._restart()
            return
        code = self._process.poll()
        if code is not None:
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            self._ended(self._killed or how)
            return
        if self._killed:
            end_group(self._process.pid)
            return
        self._feel()
        cut(self.log, longest=self._rotate_bytes)
        if rotate(self.edge.access_log, longest=self._rotate_bytes):
            self._reopen()

    def _restart(self) -> None:
        try:
            self.start()
        except (OSError, subprocess.SubprocessError) as e:
            self._ended(f"could not be started: {e}")

    def _feel(self) -> None:
        if self._pulse is None:
            _, _, port = self.admin.rpartition(":")
            if port.isdigit():
                self._pulse = Pulse(port=int(port), path="/ready")
            return
        self._pulse.feel()
        if self._pulse.silent_s > HANG_S and self._process is not None:
            self._killed = f"lived, but answered nothing for {HANG_S:.0f} s"
            self._say(f"envoy {self._killed}; process {self._process.pid} is killed")
            end_group(self._process.pid)

    def _reopen(self) -> None:
        """Until Envoy opens its log anew it writes into the piece that was renamed."""
        try:
            admin.ask(self.admin, "POST", "/reopen_logs")
        except envoy.EnvoyError as e:
            self._error = str(e)

    def _ended(self, why: str) -> None:
        self._forget()
        self._error = why
        self._again.ended()
        self._say(f"envoy {why}; again in {self._again.wait_s:.1f} s")

    def _forget(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
        self._process = self._pulse = None
        self._killed = ""

    @property
    def admin(self) -> str:
        """Its admin address on loopback, empty until it has said so."""
        try:
            return self.edge.admin.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def stop(self) -> None:
        """Take no new connections, let requests in flight finish, and end it."""
        process = self._process
        if process is None:
            return
        try:
            self._drain(min(DRAIN_S, self.edge.timeout_ms / 1000 + 1))
        except envoy.EnvoyError as e:
            self._say(f"envoy is ended at once: {e}")
        self._forget()
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            end_group(process.pid)
        self._say(f"envoy is stopped, process {process.pid}")

    def _drain(self, wait_s: float) -> None:
        end = time.monotonic() + wait_s
        # The first lets each answer end its connection, the second closes the door now.
        for how in ("?graceful", ""):
            admin.ask(self.admin, "POST", f"/drain_listeners{how}")
        while (left := self._in_flight()) and time.monotonic() < end:
            time.sleep(POLL_S)
        if left:
            self._say(f"envoy is ended under {left} requests, after {wait_s:.1f} s")

    def _in_flight(self) -> int:
        said = admin.ask(self.admin, "GET", "/stats?filter=downstream_rq_active").decode()
        pairs = [line.rpartition(": ") for line in said.splitlines()]
        return sum(int(n) for name, _, n in pairs if not name.startswith("http.admin."))

    def describe(self) -> dict[str, Any]:
        """Return what it does, as plain values."""
        return {
            "envoy": self._process.pid if self._process else None,
            "admin": self.admin,
            "edge_restarts": self._again.restarts,
            "edge_looping": self._again.looping,
            "edge_error": self._error,
        }


def _first(note: Path) -> Callable[[], None]:
    """Return what Envoy does first: end with us at once, and take as many connections as it may.

    Envoy without its supervisor routes to nobody knows what.
    """
    begun = begin(note, signal.SIGKILL)

    def child() -> None:
        begun()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return child
