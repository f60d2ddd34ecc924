"""Envoy as a process: started, watched, restarted with back-off, its logs kept in pieces."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.rollout import envoy
from penstock.rollout.rotation import ROTATE_BYTES, rotate
from penstock.rollout.watching import HANG_S, BackOff, Pulse, begin, end_group

STOP_S = 3.0


class Proxy:
    """One Envoy."""

    def __init__(self, edge: envoy.Edge, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        """Take what it is to do; :meth:`start` starts it."""
        self.edge = edge
        self._rotate_bytes = rotate_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._pulse: Pulse | None = None
        self._again = BackOff()
        self._error = ""

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

    def watch(self) -> None:
        """Start it again when it ended or fell silent; keep its logs short."""
        if self._process is None:
            if self._again.due:
                self._restart()
            return
        code = self._process.poll()
        if code is not None:
            self._ended(f"ended with {code}")
            return
        self._feel()
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
            end_group(self._process.pid)
            self._process.wait()
            self._ended(f"lived, but answered nothing for {HANG_S:.0f} s")

    def _reopen(self) -> None:
        """Until Envoy opens its log anew it writes into the piece that was renamed."""
        try:
            envoy.ask(self.admin, "POST", "/reopen_logs")
        except envoy.EnvoyError as e:
            self._error = str(e)

    def _ended(self, why: str) -> None:
        self._forget()
        self._error = why
        self._again.ended()

    def _forget(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
        self._process = self._pulse = None

    @property
    def admin(self) -> str:
        """Its admin address on loopback, empty until it has said so."""
        try:
            return self.edge.admin.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def stop(self) -> None:
        """End it; requests in flight have a moment."""
        process = self._process
        self._forget()
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

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
