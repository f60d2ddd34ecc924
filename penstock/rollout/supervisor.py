"""The supervisor: owns Envoy and two slots, keeps them like ``desired.json`` says.

Runs as a process of its own (``python -m penstock.rollout.supervisor --home DIR``). It only reads
``desired.json`` and ``access.json`` and only writes ``observed.json`` and ``targets.json``; all are
replaced whole.
Traffic tables go from the release controller straight to Envoy's route file, so that a rollback
needs nobody here.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from penstock.bundle import write_json
from penstock.rollout import envoy, switch, unfinished, written
from penstock.rollout.access import LOOPBACK, Access, AccessError
from penstock.rollout.desired import Wanted, whole
from penstock.rollout.killkeeper import KillKeeper
from penstock.rollout.lease import Held, leases_of
from penstock.rollout.proxy import Proxy
from penstock.rollout.record import Record
from penstock.rollout.rotation import reopen, rotate
from penstock.rollout.routing import ANSWERING
from penstock.rollout.slots import PREDICTOR, Slot
from penstock.rollout.table import RULES
from penstock.rollout.targets import file_of, targets
from penstock.rollout.watchdog import Watchdog, asked, exposed, returned
from penstock.rollout.watching import end_leftover, this_process

TICK_S = 0.1
HEARTBEAT_S = 1.0
ADMIT_AGAIN_S = 5.0
"""After a disk refused what is needed to change who may ask."""

LOCK = "supervisor.lock"
COMMAND_VARIABLE = "PENSTOCK_PREDICTOR"
"""Environment variable: JSON list, the command of a slot; for tests."""


class Supervisor:
    """Keeps processes like the desired state."""

    def __init__(self, home: Path, desired: Mapping[str, Any], command: Sequence[str]) -> None:
        """Reserve the slots' ports; nothing runs yet.

        Raises:
            AccessError: What is remembered of access cannot be used.
            ValueError: The desired state lacks something.
        """
        self._folder = home / "serving"
        self._desired = whole(desired)
        self._record = Record()
        say = self._record.say
        self._slots = {
            n: Slot(name=n, logs=self._folder, command=command, say=say) for n in ANSWERING
        }
        self._access = self._folder / "access.json"
        self._access_seen = _changed_at(self._access)
        self._access_error, self._admit_again_at = "", math.inf
        self._proxy = Proxy(
            envoy.Edge(
                folder=self._folder,
                port=desired["port"],
                model=desired["model"],
                slots={name: slot.port for name, slot in self._slots.items()},
                access=remembered(self._access),
                timeout_ms=desired["timeout_ms"],
                body_bytes=desired["body_bytes"],
                in_flight=desired["in_flight"],
            ),
            say=say,
        )
        self._hearing = KillKeeper(home, say=say)
        self._watchdog = Watchdog(leases=leases_of(self._folder))
        self._unasked = frozenset[str]()
        self._targets: object = None
        self._said: dict[str, Any] = {}
        self._said_at = 0.0
        self.stopping = False

    def start(self) -> None:
        """End what a killed supervisor left; start Envoy with everybody at a champion's.

        Who that is the tables of before say: whoever was tried out then is no longer asked.

        Raises:
            EnvoyError: Its configuration is refused.
            OSError: The port is in use.
        """
        for note in self._folder.glob("*/process.json"):
            end_leftover(note)
        edge = self._proxy.edge
        check_port(edge.port, edge.access.listen)
        me = this_process()["pid"]
        self._record.say(f"the supervisor starts, process {me}: {_admits(edge.access, edge.port)}")
        envoy.prepare(edge, written.first(edge.routes))
        self._proxy.start()

    def run(self) -> None:
        """Keep reality like the desired state until told to stop.

        Each part is tried for itself: what one cannot do, on a full disk say, no other waits for.
        """
        attempt = self._record.attempt
        while not self.stopping:
            attempt("desired.json cannot be read, keeping what is", self._read)
            attempt("access stays as it was", self._see_access)
            attempt("the end of the release's process could not be heeded", self._see_owner)
            for name in self._slots:
                attempt(f"slot {name} could not be looked at", partial(self._keep, name))
            if not self.stopping:
                attempt("envoy could not be looked at", self._proxy.watch)
            attempt("a rehearsal that died goes on", self._see_rehearsal)
            attempt("the kill switch is not heard over HTTP", self._hearing.watch)
            attempt("observed.json cannot be written", self._say)
            attempt("targets.json cannot be written", self._tell_targets)
            attempt("supervisor.log could not be rotated", self._rotate)
            self._record.flush()
            time.sleep(TICK_S)

    def _read(self) -> None:
        text = (self._folder / "desired.json").read_text(encoding="utf-8")
        self._desired = whole(json.loads(text))
        self.stopping = self.stopping or bool(self._desired["stop"])

    def _see_access(self) -> None:
        seen, now = _changed_at(self._access), time.monotonic()
        if seen == self._access_seen and now < self._admit_again_at:
            return
        self._access_seen, self._admit_again_at = seen, math.inf
        self._admit()

    def _admit(self) -> None:
        """Let in whom ``access.json`` now names; where it cannot be used, nothing changes."""
        try:
            if not self._access.exists():
                raise AccessError(f"{self._access} is gone; say again who may ask: penstock up")
            edge = replace(self._proxy.edge, access=remembered(self._access))
            envoy.admit(edge, written.written(edge.routes))
        except Exception as e:  # noqa: BLE001 - whatever is wrong with the file, users go on
            self._access_error = str(e)
            self._record.say(f"access stays as it was: {type(e).__name__}: {e}")
            if isinstance(e, OSError):
                self._admit_again_at = time.monotonic() + ADMIT_AGAIN_S
            return
        self._proxy.edge, self._access_error = edge, ""
        self._record.say(f"access is changed: {_admits(edge.access, edge.port)}")

    def _see_owner(self) -> None:
        """Send users home whose release nobody carries, unless its holder said to leave them."""
        self._watchdog.look()
        loose = [held for held in self._watchdog.ended() if not held.freeze]
        self._unasked = frozenset()
        if not loose:
            return
        for held in loose:
            self._end_release(held)
        if self._watchdog.carried():
            return
        tables = written.tables(self._proxy.edge.routes).values()
        needed = {RULES, switch.thrown_to(self._folder)}.union(*map(asked, tables))
        self._unasked = frozenset(self._slots) - needed
        wanted = {name for name, one in self._desired["slots"].items() if one is not None}
        if not self.stopping and not wanted & needed:
            self._record.say("nobody carries the release, and nobody else serves: all stops")
            self.stopping = True

    def _keep(self, name: str) -> None:
        slot, wanted = self._slots[name], self._desired["slots"].get(name)
        if name in self._unasked:
            wanted = None
        slot.want(None if wanted is None else Wanted(model=self._desired["model"], **wanted))
        slot.watch()

    def _end_release(self, held: Held) -> None:
        """Nobody watches the challenger, so nobody may see it."""
        table = written.written(self._proxy.edge.routes, held.market)
        # The lease of a release that has ended may be left; the one after it is carried.
        if table.salt != held.release or not exposed(table):
            return
        written.apply(self._proxy.edge.routes, returned(table))
        ended = "is silent" if held.lives() else "has ended"
        self._record.say(
            f"the process {held.pid} of release {held.release} {ended}: "
            f"everybody to slot {table.champion}"
        )

    def _see_rehearsal(self) -> None:
        if said := unfinished.finish(self._folder):
            self._record.say(said)

    def _say(self) -> None:
        now = time.monotonic()
        said = self.describe()
        if said == self._said and now - self._said_at <= HEARTBEAT_S:
            return
        write_json(self._folder / "observed.json", {**said, "at": time.time()})
        self._said, self._said_at = said, now

    def _tell_targets(self) -> None:
        slots = {name: slot.describe() for name, slot in self._slots.items()}
        found = targets(self._proxy.edge.model, slots, self._proxy.admin)
        if found != self._targets:
            write_json(file_of(self._folder), found)
            self._targets = found

    def _rotate(self) -> None:
        log = log_of(self._folder)
        if rotate(log) or not log.exists():
            reopen(log)

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
        attempt = self._record.attempt
        attempt("envoy could not be stopped", self._proxy.stop)
        for name, slot in self._slots.items():
            attempt(f"slot {name} could not be told to stop", partial(slot.want, None))
        for name, slot in self._slots.items():
            attempt(f"slot {name} could not be stopped", slot.stop)
        attempt("the kill server could not be stopped", self._hearing.stop)
        attempt("targets.json stays", partial(write_json, file_of(self._folder), []))
        self._record.say("the supervisor is stopped")
        observed = self._folder / "observed.json"
        attempt("observed.json stays", partial(observed.unlink, missing_ok=True))


def remembered(path: Path) -> Access:
    """Return who may ask; what is no set of tokens is never taken for *anybody*.

    Raises:
        AccessError: It cannot be used.
    """
    access = Access.load(path)
    if not isinstance(access.tokens, dict):
        raise AccessError(f"{path} holds no tokens by name; give them again: penstock up --token")
    return access


def _admits(access: Access, port: int) -> str:
    tokens = f"tokens of {', '.join(sorted(access.tokens))}" if access.tokens else "no token"
    tls = "TLS" if access.tls else "no TLS"
    clients = ", client certificates" if access.clients is not None else ""
    return f"{access.listen}:{port}, {tls}{clients}, {tokens}"


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
