"""The supervisor: owns Envoy and two slots, keeps them like ``desired.json`` says.

Runs as a process of its own (``python -m penstock.rollout.supervisor --home DIR``). It only reads
``desired.json`` and ``access.json`` and only writes ``observed.json``; all are replaced whole.
Traffic tables go from the release controller straight to Envoy's route file, so that a rollback
needs nobody here.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from penstock.bundle import write_json
from penstock.rollout import envoy
from penstock.rollout.access import LOOPBACK, Access, AccessError
from penstock.rollout.proxy import Proxy
from penstock.rollout.rotation import reopen, rotate
from penstock.rollout.slots import PREDICTOR, Slot, Wanted
from penstock.rollout.table import SLOTS, TrafficTable
from penstock.rollout.watching import alive, end_leftover, this_process

TICK_S = 0.1
HEARTBEAT_S = 1.0
LOCK = "supervisor.lock"
COMMAND_VARIABLE = "PENSTOCK_PREDICTOR"
"""Environment variable: JSON list, the command of a slot; for tests."""


class Supervisor:
    """Keeps processes like the desired state."""

    def __init__(self, home: Path, desired: Mapping[str, Any], command: Sequence[str]) -> None:
        """Reserve the slots' ports; nothing runs yet.

        Raises:
            AccessError: What is remembered of access cannot be used.
        """
        self._folder = home / "serving"
        self._desired = desired
        self._slots = {n: Slot(name=n, logs=self._folder, command=command) for n in SLOTS}
        self._access = self._folder / "access.json"
        self._access_seen = _changed_at(self._access)
        self._access_error = ""
        self._proxy = Proxy(
            envoy.Edge(
                folder=self._folder,
                port=desired["port"],
                model=desired["model"],
                slots={name: slot.port for name, slot in self._slots.items()},
                access=Access.load(self._access),
                timeout_ms=desired["timeout_ms"],
                body_bytes=desired["body_bytes"],
            )
        )
        self._ended_owner: Mapping[str, Any] | None = None
        self._said: dict[str, Any] = {}
        self._said_at = 0.0
        self.stopping = False

    def start(self) -> None:
        """End what a killed supervisor left; start Envoy with everybody on slot a.

        Raises:
            EnvoyError: Its configuration is refused.
            OSError: The port is in use.
        """
        for note in self._folder.glob("*/process.json"):
            end_leftover(note)
        edge = self._proxy.edge
        check_port(edge.port, edge.access.listen)
        first = TrafficTable(
            sequence=0, salt="", champion="a", challenger=None, buckets=0, mirror=None
        )
        envoy.prepare(edge, first)
        self._proxy.start()

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
        if (seen := _changed_at(self._access)) != self._access_seen:
            self._access_seen = seen
            self._admit()

    def _admit(self) -> None:
        """Let in whom ``access.json`` now names; where it cannot be used, nothing changes."""
        try:
            edge = replace(self._proxy.edge, access=Access.load(self._access))
            envoy.admit(edge, envoy.written(edge.routes))
        except (AccessError, envoy.EnvoyError, ValueError) as e:
            self._access_error = str(e)
            print(f"access stays as it was: {e}", file=sys.stderr)
            return
        self._proxy.edge, self._access_error = edge, ""

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
        if not self.stopping:
            self._proxy.watch()
        if rotate(log_of(self._folder)):
            reopen(log_of(self._folder))

    def _orphaned(self) -> None:
        """The release's process has died: nobody watches the challenger, so nobody may see it."""
        champion = self._desired["champion"]
        if champion is None:
            self.stopping = True
            return
        routes = self._proxy.edge.routes
        held = envoy.written(routes)
        table = TrafficTable(
            sequence=held.sequence + 1,
            salt=held.salt,
            champion=champion,
            challenger=None,
            buckets=0,
            mirror=None,
        )
        envoy.apply(routes, table)

    def _say(self) -> None:
        now = time.monotonic()
        said = self.describe()
        if said == self._said and now - self._said_at <= HEARTBEAT_S:
            return
        try:
            write_json(self._folder / "observed.json", {**said, "at": time.time()})
        except OSError as e:
            # A full disk stops nobody from being served.
            print(f"observed.json cannot be written: {e}", file=sys.stderr)
        self._said, self._said_at = said, now

    def describe(self) -> dict[str, Any]:
        """Return what is running, as plain values."""
        edge = self._proxy.edge
        return {
            "supervisor": this_process(),
            **self._proxy.describe(),
            "host": edge.access.listen,
            "port": edge.port,
            "tls": edge.access.tls,
            "clients": edge.access.clients is not None,
            "tokens": sorted(edge.access.tokens),
            "access_seen": self._access_seen,
            "access_error": self._access_error,
            "model": edge.model,
            "routes": str(edge.routes),
            "slots": {name: slot.describe() for name, slot in self._slots.items()},
        }

    def ask_to_stop(self, _number: int, _frame: object) -> None:
        """End the loop after this round; for signals."""
        self.stopping = True

    def stop(self) -> None:
        """Stop users first, then the slots."""
        self._proxy.stop()
        for slot in self._slots.values():
            slot.ask_to_stop()
        for slot in self._slots.values():
            slot.stop()
        (self._folder / "observed.json").unlink(missing_ok=True)


def log_of(folder: Path) -> Path:
    """Return where the supervisor's own words go."""
    return folder / "supervisor.log"


def _changed_at(path: Path) -> int:
    """Return when a file was last replaced, 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def check_port(port: int, host: str = LOOPBACK) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        OSError: It cannot be had; the text says how to choose another.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
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
        lock = FileLock(folder / LOCK)
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
