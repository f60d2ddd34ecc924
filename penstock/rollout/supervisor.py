"""The supervisor: owns Envoy and two slots, keeps them like ``desired.json`` says.

Runs as a process of its own (``python -m penstock.rollout.supervisor --home DIR``). It only reads
``desired.json`` and only writes ``observed.json``; both are replaced whole. Traffic tables go from
the release controller straight to Envoy's route file, so that a rollback needs nobody here.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from penstock.bundle import write_json
from penstock.processes import die_with_parent
from penstock.rollout import envoy
from penstock.rollout.slots import PREDICTOR, Slot, Wanted, alive, this_process
from penstock.rollout.table import SLOTS, TrafficTable

TICK_S = 0.1
HEARTBEAT_S = 1.0
COMMAND_VARIABLE = "PENSTOCK_PREDICTOR"
"""Environment variable: JSON list, the command of a slot; for tests."""


class Supervisor:
    """Keeps processes like the desired state."""

    def __init__(self, home: Path, desired: Mapping[str, Any], command: Sequence[str]) -> None:
        """Reserve the slots' ports; nothing runs yet."""
        self._folder = home / "serving"
        self._desired = desired
        self._slots = {n: Slot(name=n, logs=self._folder, command=command) for n in SLOTS}
        self._edge = envoy.Edge(
            folder=self._folder,
            port=desired["port"],
            model=desired["model"],
            slots={name: slot.port for name, slot in self._slots.items()},
        )
        self._envoy: subprocess.Popen[bytes] | None = None
        self._ended_owner: Mapping[str, Any] | None = None
        self._said: dict[str, Any] = {}
        self._said_at = 0.0
        self.stopping = False

    def start(self) -> None:
        """Start Envoy with everybody on slot a.

        Raises:
            EnvoyError: Its configuration is refused.
            OSError: The port is in use.
        """
        check_port(self._edge.port)
        first = TrafficTable(
            sequence=0, salt="", champion="a", challenger=None, buckets=0, mirror=None
        )
        envoy.prepare(self._edge, first)
        self._start_envoy()

    def _start_envoy(self) -> None:
        with (self._folder / "envoy.log").open("ab") as log:
            self._envoy = subprocess.Popen(
                envoy.command(self._edge),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_at_once,  # noqa: PLW1509 - this process has one thread
            )

    def run(self) -> None:
        """Keep reality like the desired state until told to stop."""
        while not self.stopping:
            self._read()
            self._keep()
            self._say()
            time.sleep(TICK_S)

    def _read(self) -> None:
        try:
            text = (self._folder / "desired.json").read_text(encoding="utf-8")
            self._desired = json.loads(text)
        except (OSError, ValueError) as e:
            print(f"desired.json cannot be read, keeping what is: {e}", file=sys.stderr)
        self.stopping = self.stopping or bool(self._desired["stop"])

    def _keep(self) -> None:
        owner, orphaned = self._desired["owner"], False
        if owner is not None:
            orphaned = not alive(owner["pid"], owner["start"])
            if orphaned and owner != self._ended_owner:
                self._ended_owner = owner
                self._orphaned()
        for name, slot in self._slots.items():
            wanted = self._desired["slots"][name]
            if orphaned and name != self._desired["champion"]:
                wanted = None
            slot.want(None if wanted is None else Wanted(model=self._desired["model"], **wanted))
            slot.watch()
        if self._envoy is not None and self._envoy.poll() is not None and not self.stopping:
            self._start_envoy()

    def _orphaned(self) -> None:
        """The release's process has died: nobody watches the challenger, so nobody may see it."""
        champion = self._desired["champion"]
        if champion is None:
            self.stopping = True
            return
        held = envoy.written(self._edge.routes)
        table = TrafficTable(
            sequence=held.sequence + 1,
            salt=held.salt,
            champion=champion,
            challenger=None,
            buckets=0,
            mirror=None,
        )
        envoy.apply(self._edge.routes, table)

    def _say(self) -> None:
        now = time.monotonic()
        said = self.describe()
        if said != self._said or now - self._said_at > HEARTBEAT_S:
            self._said, self._said_at = said, now
            write_json(self._folder / "observed.json", {**said, "at": time.time()})

    def describe(self) -> dict[str, Any]:
        """Return what is running, as plain values."""
        try:
            admin = self._edge.admin.read_text(encoding="utf-8").strip()
        except OSError:
            admin = ""
        return {
            "supervisor": this_process(),
            "envoy": self._envoy.pid if self._envoy else None,
            "admin": admin,
            "port": self._edge.port,
            "model": self._edge.model,
            "routes": str(self._edge.routes),
            "slots": {name: slot.describe() for name, slot in self._slots.items()},
        }

    def ask_to_stop(self, _number: int, _frame: object) -> None:
        """End the loop after this round; for signals."""
        self.stopping = True

    def stop(self) -> None:
        """Stop users first, then the slots."""
        if self._envoy is not None:
            self._envoy.terminate()
            try:
                self._envoy.wait(3)
            except subprocess.TimeoutExpired:
                self._envoy.kill()
                self._envoy.wait()
        for slot in self._slots.values():
            slot.stop()
        (self._folder / "observed.json").unlink(missing_ok=True)


def _end_at_once() -> None:
    """Envoy without its supervisor routes to nobody knows what."""
    die_with_parent(signal.SIGKILL)


def check_port(port: int) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        OSError: It cannot be had; the text says how to choose another.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as e:
            taken = e.errno == errno.EADDRINUSE
            why = "is in use" if taken else f"cannot be used ({e.strerror})"
            raise OSError(f"port {port} {why}; choose another with --port.") from e


def main(argv: list[str] | None = None) -> int:
    """Run until stopped; 2 when it could not start, with the reason on standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    home: Path = parser.parse_args(argv).home
    folder = home / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / "supervisor.lock")
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{home} has a supervisor already; penstock status shows it.", file=sys.stderr)
        return 2
    command = json.loads(os.environ.get(COMMAND_VARIABLE, "null")) or PREDICTOR
    try:
        desired = json.loads((folder / "desired.json").read_text(encoding="utf-8"))
        supervisor = Supervisor(home, desired, command)
        signal.signal(signal.SIGTERM, supervisor.ask_to_stop)
        signal.signal(signal.SIGINT, supervisor.ask_to_stop)
        supervisor.start()
    except (OSError, ValueError, envoy.EnvoyError) as e:
        print(e, file=sys.stderr)
        return 2
    try:
        supervisor.run()
    finally:
        supervisor.stop()
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
