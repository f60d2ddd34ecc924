"""The servers of one home: started, filled with versions, watched, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from penstock import storage
from penstock.bundle import write_json
from penstock.endpoint import Endpoint
from penstock.release import Fallback
from penstock.rollout import admin, envoy, kill
from penstock.rollout.access import Access, AccessError
from penstock.rollout.ports import TableError
from penstock.rollout.rotation import rotate
from penstock.rollout.routing import ANSWERING
from penstock.rollout.supervisor import LOCK, check_port, log_of
from penstock.rollout.table import RULES
from penstock.rollout.watching import alive, end_leftover, left_over
from penstock.rollout.written import FIRST
from penstock.workload import UnknownWorkload, load

UP_S = 20.0
DOWN_S = 35.0
"""Longest wait for a supervisor that was asked to end: requests, then slots, have their time."""

KILLED_S = 5.0
POLL_S = 0.02

_STARTED: list[subprocess.Popen[bytes]] = []
"""Supervisors this process started. They outlive it on purpose; until then they are its children
and are collected when they end."""


class PlaneError(TableError):
    """The servers are not as they should be; the text says what to do."""


class SlotFailed(PlaneError):
    """A slot's server did not become ready; the text is its own last line."""


class Servers:
    """Envoy, a supervisor, two slots and one of rules below one home."""

    def __init__(self, home: Path) -> None:
        """Take a home; :meth:`up` and :meth:`attach` make one that runs."""
        self.home = home
        self._folder = home / "serving"

    @classmethod
    def running(cls, home: Path) -> bool:
        """Return whether a supervisor runs for this home."""
        seen = _read(home / "serving" / "observed.json")
        return bool(seen) and alive(seen["supervisor"]["pid"], seen["supervisor"]["start"])

    @classmethod
    def attach(cls, home: Path) -> Self:
        """Return the running plane of a home.

        Raises:
            PlaneError: None runs.
        """
        if not cls.running(home):
            raise PlaneError("no servers are running; start them: penstock up")
        return cls(home)

    @classmethod
    def may_serve(cls, home: Path, *, model: str, port: int) -> bool:
        """Return whether the plane of a home runs; say so early where it could not be used.

        Raises:
            PlaneError: It runs for another model or at another port, or the port is taken.
        """
        if not cls.running(home):
            cls(home).check_port(port)
            return False
        seen = cls(home).status()
        if seen["model"] != model:
            raise PlaneError(
                f"the servers of {home} serve {seen['model']}, not {model}; stop them first: "
                "penstock down"
            )
        if seen["port"] != port:
            raise PlaneError(
                f"the servers of {home} answer at port {seen['port']}, not {port}; leave --port "
                "out, or stop them first: penstock down"
            )
        return True

    @classmethod
    def port(cls, home: Path) -> int | None:
        """Return where the plane of a home answers, None if none runs."""
        return cls(home).status()["port"] if cls.running(home) else None

    def check_port(self, port: int) -> None:
        """Refuse a port in use; an Envoy whose supervisor was killed is ending just now.

        Raises:
            PlaneError: It is; the text says how to choose another.
        """
        note = self._folder / "envoy" / "process.json"
        self._until(lambda: left_over(note) is None, UP_S)
        try:
            check_port(port, Access.load(self._access).listen)
        except (OSError, AccessError) as e:
            raise PlaneError(str(e)) from e

    @classmethod
    def up(
        cls,
        home: Path,
        *,
        model: str,
        port: int,
        access: Access | None = None,
        endpoint: Endpoint | None = None,
    ) -> Self:
        """Return the plane of a home, started if it does not run.

        Args:
            access: Who may ask from now on; None leaves it as it was, which is anybody on this
                machine at first.
            endpoint: What the package to serve promises; None takes what the workload declares.

        Raises:
            PlaneError: It runs for another model or at another port, or cannot start.
            EnvoyError: Envoy refuses what was declared of access; nothing was changed.
        """
        plane = cls(home)
        running = cls.may_serve(home, model=model, port=port)
        if access is not None:
            plane._admit(access, model, port)
        if not running:
            plane._start(model, port, endpoint or load(model).endpoint)
        elif access is not None:
            plane._until_admitted()
        return plane

    @property
    def _routes(self) -> Path:
        return self._folder / "routes" / "table.json"

    @property
    def _admin(self) -> str:
        """Envoy's admin address, empty while it has none."""
        try:
            return (self._folder / "admin-address").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    @property
    def _access(self) -> Path:
        return self._folder / "access.json"

    def _admit(self, access: Access, model: str, port: int) -> None:
        """Remember who may ask, once Envoy has said that it understands it."""
        trial = envoy.Edge(
            folder=self._folder,
            port=port,
            model=model,
            slots=dict.fromkeys(ANSWERING, port),
            access=access,
        )
        envoy.check(trial, FIRST)
        access.save(self._access)

    def _until_admitted(self) -> None:
        """Wait until Envoy uses what was remembered last."""
        changed = self._access.stat().st_mtime_ns
        self._until(lambda: self.status()["access_seen"] == changed, UP_S)
        if said := self.status()["access_error"]:
            raise PlaneError(f"who may ask is as it was: {said}")
        self._until(lambda: admin.admitted(self.status()["admin"], self._folder), UP_S)

    def _start(self, model: str, port: int, promised: Endpoint) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "observed.json").unlink(missing_ok=True)
        slots: dict[str, Any] = dict.fromkeys(ANSWERING)
        if thrown := kill.adopt(self.home, datetime.now(UTC)):
            # Whoever starts the servers need not know that the switch was thrown while they ran.
            slots[thrown.to] = thrown.serving
        desired = {
            "model": model,
            "port": port,
            "timeout_ms": promised.timeout_ms,
            "body_bytes": promised.max_body_bytes,
            "in_flight": promised.max_in_flight,
            "slots": slots,
            "stop": False,
        }
        write_json(self._folder / "desired.json", desired)
        log = log_of(self._folder)
        rotate(log)
        with log.open("ab") as output:
            begins = output.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock.rollout.supervisor", "--home", str(self.home)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _STARTED.append(process)
        try:
            self._until(lambda: process.poll() is not None or self._answers(), UP_S)
        except BaseException:
            process.terminate()
            raise
        if process.poll() is not None:
            said = log.read_bytes()[begins:].decode("utf-8", "replace").strip().splitlines()
            raise PlaneError(
                said[-1] if said else f"the supervisor ended with {process.returncode}"
            )

    def _answers(self) -> bool:
        try:
            admin.in_force(self._admin)
        except (PlaneError, envoy.EnvoyError):
            return False
        # What it says of itself is written a moment later.
        return bool(self._seen().get("admin"))

    @property
    def url(self) -> str:
        """Where users are answered."""
        seen = self.status()
        scheme = "https" if seen["tls"] else "http"
        return f"{scheme}://{seen['host']}:{seen['port']}"

    @property
    def inside(self) -> Path:
        """Socket at which whoever owns this home is answered, without a token."""
        return self._folder / envoy.INSIDE

    def log_folder(self, slot: str) -> Path:
        """Return the folder of a slot's prediction log."""
        return self._folder / slot

    def status(self) -> dict[str, Any]:
        """Return what the supervisor last saw.

        Raises:
            PlaneError: No supervisor runs.
        """
        seen = self._seen()
        if not seen:
            raise PlaneError("no servers are running; start them: penstock up")
        return seen

    def _seen(self) -> dict[str, Any]:
        return _read(self._folder / "observed.json")

    def _desired(self) -> dict[str, Any]:
        return json.loads((self._folder / "desired.json").read_text(encoding="utf-8"))

    def _desire(self, change: Callable[[dict[str, Any]], None]) -> None:
        desired = self._desired()
        change(desired)
        write_json(self._folder / "desired.json", desired)

    def set_slot(
        self,
        slot: str,
        *,
        package: str | Path,
        digest: str,
        version: str,
        fault: Mapping[str, str] | None = None,
    ) -> None:
        """Let a slot serve a package; its server refuses one that has another digest.

        Raises:
            PlaneError: The kill switch sends everybody there, and the version was killed.
        """
        self._check_killed(slot, version)
        here = str(storage.local(package))
        wanted = {"package": here, "digest": digest, "version": version, "fault": fault}
        changed = {slot: wanted}
        desired = self._desired()
        if not desired["slots"].get(RULES) and _falls_back_on_rules(desired["model"]):
            changed[RULES] = {**wanted, "version": RULES, "fault": None}
        self._desire(lambda desired: desired["slots"].update(changed))

    def _check_killed(self, slot: str, version: str) -> None:
        thrown = kill.adopt(self.home, datetime.now(UTC))
        if thrown is not None and slot == thrown.to and version != thrown.version:
            raise PlaneError(
                f"slot {slot} answers everybody while the kill switch is thrown, with version "
                f"{thrown.version}; version {version} can be there when it is cleared: "
                "penstock kill clear."
            )

    def stop_slot(self, slot: str) -> None:
        """Let a slot serve nothing, and wait until its process is gone."""
        self._desire(lambda desired: desired["slots"].update({slot: None}))
        self._until(lambda: self.status()["slots"][slot]["state"] == "stopped", UP_S)

    def slot_of(self, version: str) -> str | None:
        """Return the slot that serves, or is starting to serve, a version."""
        for name, slot in self.status()["slots"].items():
            if slot["version"] == version and slot["state"] not in ("failed", "stopped"):
                return name
        return None

    def ready(self, slot: str) -> bool:
        """Return whether a slot's process is up and ready."""
        return self.status()["slots"][slot]["state"] == "ready"

    def wait_ready(self, slot: str, *, version: str, timeout_s: float) -> float:
        """Wait until a slot serves a version and return its seconds to ready.

        Raises:
            SlotFailed: Its server refused to serve, or was not ready in time.
        """

        def settled() -> bool:
            seen = self.status()["slots"][slot]
            return seen["version"] == version and seen["state"] in ("ready", "failed")

        try:
            self._until(settled, timeout_s)
        except PlaneError as e:
            raise SlotFailed(
                f"slot {slot} was not ready within {timeout_s:.0f} s; see "
                f"{self.log_folder(slot) / 'server.log'}"
            ) from e
        seen = self.status()["slots"][slot]
        if seen["state"] == "failed":
            raise SlotFailed(f"slot {slot} refused to serve: {seen['error']}")
        return float(seen["seconds"] or 0.0)

    def model(self) -> str:
        """Return what is served here, or was last.

        Raises:
            PlaneError: Nothing ever was.
        """
        try:
            return self._desired()["model"]
        except (OSError, ValueError, KeyError) as e:
            raise PlaneError("no servers were ever started here; start them: penstock up") from e

    def down(self) -> None:
        """Stop everything and wait until it is gone; a supervisor that hangs is killed."""
        seen = self._seen()
        if seen:
            self._end(seen["supervisor"]["pid"], seen["supervisor"]["start"])
        self.sweep()
        _STARTED[:] = [process for process in _STARTED if process.poll() is None]

    def _end(self, pid: int, start: str) -> None:
        """End a supervisor; stopped ones are continued, since only then they can act.

        Raises:
            PlaneError: It was killed and does not end.
        """
        endings = ((signal.SIGTERM, DOWN_S), (signal.SIGKILL, KILLED_S))
        for number, wait_s in endings:
            if not alive(pid, start):
                return
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
            with suppress(PlaneError):
                self._until(lambda: not alive(pid, start), wait_s)
        if alive(pid, start):
            raise PlaneError(f"the supervisor, process {pid}, was killed and does not end.")

    def sweep(self) -> int:
        """End what a killed supervisor may have left behind; return how many processes."""
        notes = [n for n in self._folder.glob("*/process.json") if left_over(n) is not None]
        if not notes:
            return 0
        try:
            with FileLock(self._folder / LOCK, timeout=0):
                for note in notes:
                    end_leftover(note)
        except Timeout:
            # Somebody started a supervisor just now: they are its own, or it has ended them.
            return 0
        return len(notes)

    def _until(self, true: Callable[[], bool], timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > end:
                raise PlaneError(f"not so within {timeout_s:.0f} s; see the logs in {self._folder}")
            time.sleep(POLL_S)


def _falls_back_on_rules(model: str) -> bool:
    """Return whether a workload's kill switch leads to its rules; they stand ready then."""
    try:
        return load(model).rollout.kill_to is Fallback.RULES
    except UnknownWorkload:
        return False


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file, or nothing when it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
