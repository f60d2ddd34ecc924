"""Home: the one folder where runs, registry, ledger and servers of this machine live."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from penstock.bundle import STORE_VARIABLE
from penstock.ledger import Ledger
from penstock.ledger.actors import KEY_VARIABLE, Actor
from penstock.ledger.anchor import HEAD_VARIABLE, anchor_of

VARIABLE = "PENSTOCK_HOME"
RUN_VARIABLE = "PENSTOCK_RUN"
SALT_VARIABLE = "PENSTOCK_SALT"
"""Environment variable: the file that servers hash users with."""

FREE_BYTES = 500_000_000
"""Least free disk space a run is started with."""

LOCK, NOTE = "run.lock", "run.pid"
"""Files of the home: held by the run that uses it, and who that is."""

LOOKING_S = 0.2
"""Longest that a run waits for who only looks whether one is going on."""

DISK_FULL = "the disk is full; free some space and run again: finished stages are reused"


class HomeError(RuntimeError):
    """The home cannot be used now; the text says why and what to do."""


@dataclass(frozen=True)
class Home:
    """Paths below one folder."""

    path: Path

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return os.environ.get("PENSTOCK_LEDGER") or f"sqlite:///{self.path / 'ledger.db'}"

    @property
    def head(self) -> Path:
        """The file in which the end of the ledger is noted; beside the file of a SQLite ledger.

        A database server keeps no file of its own here, so the home keeps one for it.
        """
        return anchor_of(self.ledger_url).path or self.path / "ledger.head"

    def ledger(self, *, looking: bool = False) -> Ledger:
        """Open the ledger, or create it; the caller closes it.

        Args:
            looking: Only look, at one that may be broken; none is created.
        """
        return Ledger(self.ledger_url, head=self.head, looking=looking)

    def key(self) -> Path:
        """Return the key file of whoever acts here: ``PENSTOCK_KEY``, or the home's own.

        The home's own is made on first use and bears the name of the machine's user.
        """
        named = os.environ.get(KEY_VARIABLE)
        if named:
            return Path(named)
        own = self.path / "actor.pem"
        if not own.exists():
            # Another process may have been faster; then its key is the home's.
            with suppress(FileExistsError):
                Actor.create(own, name=_user())
        return own

    def salt(self) -> Path:
        """Return the file of the secret that hashes users, made once, for its owner's eyes.

        Whoever replaces it makes every user somebody new to the prediction log.
        """
        own = self.path / "salt"
        if not own.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            part = self.path / f".salt-{os.getpid()}"
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                f.write(secrets.token_hex(32))
            # Another process may have been faster; then its salt is the home's.
            with suppress(FileExistsError):
                os.link(part, own)
            part.unlink()
        return own

    def runs(self) -> Path:
        """Folder of all runs."""
        return self.path / "runs"

    def environment(self, *, run_id: str = "") -> dict[str, str]:
        """Return the variables that steps read, where the caller's environment sets none."""
        own = {
            VARIABLE: str(self.path),
            STORE_VARIABLE: str(self.path / "store"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.path / 'mlflow.db'}",
            "PENSTOCK_LEDGER": self.ledger_url,
            KEY_VARIABLE: str(self.key()),
            SALT_VARIABLE: str(self.salt()),
            # The steps of a run must not phone anyone, nor draw progress bars into a log.
            "FEAST_USAGE": "False",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONHASHSEED": "0",
        }
        if anchor_of(self.ledger_url).path is None:
            own[HEAD_VARIABLE] = str(self.head)
        return {**own, **os.environ, RUN_VARIABLE: run_id}


def _user() -> str:
    """Return the name of the machine's user; a container may run as a number without one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "home"


def home() -> Home:
    """Return the home that ``PENSTOCK_HOME`` names, ``.penstock`` here by default."""
    return Home(Path(os.environ.get(VARIABLE) or ".penstock").resolve())


def run_id(now: datetime) -> str:
    """Return a run's name: its UTC start to the second."""
    return now.strftime("%Y%m%d-%H%M%S")


@contextmanager
def locked(held: Home) -> Iterator[None]:
    """Let one run use the home at a time, and clear what a crashed one left half-written.

    Raises:
        HomeError: Another run holds it, it cannot be written, or the disk is nearly full.
    """
    try:
        held.runs().mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise HomeError(
            f"{held.path} cannot be used: {e}; set {VARIABLE} to a folder of yours."
        ) from e
    free = shutil.disk_usage(held.path).free
    if free < FREE_BYTES:
        raise HomeError(
            f"{held.path} has {free // 1_000_000} MB of free disk, {FREE_BYTES // 1_000_000} are "
            f"needed; free some or set {VARIABLE} to another disk."
        )
    note, lock = held.path / NOTE, FileLock(held.path / LOCK)
    try:
        lock.acquire(timeout=LOOKING_S)
    except Timeout:
        raise HomeError(
            f"another run is using {held.path} (process {_noted(held) or 'unknown'}); wait for "
            f"it, or set {VARIABLE} to another folder."
        ) from None
    try:
        note.write_text(str(os.getpid()))
        clear_parts(held.path / "store")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def carrying(held: Home) -> int | None:
    """Return the process of the run that uses the home now, None where none does.

    The lock says so: a process id that a killed run left behind may be somebody else's by now.
    """
    if not (held.path / LOCK).exists():
        return None
    try:
        with FileLock(held.path / LOCK, timeout=0):
            return None
    except Timeout:
        return _noted(held)


def _noted(held: Home) -> int:
    try:
        return int((held.path / NOTE).read_text())
    except (OSError, ValueError):
        return 0


def refuse_during_a_run(held: Home, what: str) -> None:
    """Refuse what would take a run its servers.

    Raises:
        HomeError: A run is going on; the text says what to do.
    """
    process = carrying(held)
    if process is not None:
        raise HomeError(
            f"a run is using {held.path} (process {process or 'unknown'}), and {what} would "
            f"disturb it; wait for it, or stop it{f': kill -INT {process}' if process else ''}."
        )


def clear_parts(store: Path) -> None:
    """Remove what interrupted writes left in the store; nothing reads it."""
    for part in store.glob("*/.part-*"):
        shutil.rmtree(part, ignore_errors=True)


def called() -> str:
    """Return how this command was called, so that what is printed can be typed."""
    return shown(sys.argv[0]) if "/" in sys.argv[0] else "penstock"


def shown(path: str | None) -> str:
    """Return a path as seen from here, where that is shorter."""
    if path is None:
        return ""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
