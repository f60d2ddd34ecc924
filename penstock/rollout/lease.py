"""The lease of a release: which process carries it, as a file on the one machine that serves.

It keeps two controllers from working on the same release, and tells a watchdog when none does. It
is not what keeps them from acting both: that is the ledger, which takes an intent from one of them.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from penstock.bundle import write_json
from penstock.rollout.watching import alive, started_at

LEASE_TIMEOUT_S = 30.0
"""A lease that was not renewed for this long has ended, though its holder may still run."""

RENEW_SHARE = 0.1
"""Of the timeout, after which a lease is written anew; sooner only when something of it changes."""

LOCKED_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a lease's file says."""

    release: str
    market: str
    holder: str
    """Random name; one process may hold leases for several controllers."""

    pid: int
    start: str
    """Of the holder's process, by which another one of its number is known to be another."""

    freeze: bool
    """Whether traffic stays as it is when the lease ends; else it goes back to the champion."""

    renewed_at: str
    """ISO 8601, by the holder's clock."""

    timeout_s: float
    beat: int = 0
    """Counts the renewals."""

    def lives(self) -> bool:
        """Return whether the holder's process still runs."""
        return bool(self.start) and alive(self.pid, self.start)


def leases_of(serving: Path) -> Path:
    """Return the folder of a home's leases."""
    return serving / "leases"


def read(path: Path) -> Held | None:
    """Return what a lease's file says, None where there is none that can be read."""
    try:
        return Held(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class FileLease:
    """Leases of one controller; each release has a file of its own."""

    def __init__(
        self,
        serving: Path,
        *,
        timeout_s: float = LEASE_TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold nothing yet.

        Args:
            serving: Folder of the home's servers, whose supervisor is the watchdog.
        """
        self._folder, self._timeout_s = leases_of(serving), timeout_s
        self._monotonic = monotonic
        self._me = uuid.uuid4().hex
        self._written_s: dict[str, float] = {}

    def acquire(self, release: str, now: datetime) -> bool:
        """Take the lease, or say that another one holds it.

        One whose holder has ended is free at once; one whose holder only does not renew it, after
        its timeout.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._alone(release):
            held = read(self._path(release))
            if held is not None and held.holder != self._me and not _over(held, now):
                return False
            # Until the new holder says otherwise, a watchdog does what the last one had said.
            frozen = held is not None and held.freeze
            self._write(self._mine(release, now, freeze=frozen))
        return True

    def renew(self, release: str, now: datetime, *, freeze: bool) -> bool:
        """Keep it; return False when it was lost.

        Args:
            freeze: A watchdog leaves the traffic as it is, instead of giving it to the champion.
        """
        held = read(self._path(release))
        if held is None or held.holder != self._me:
            return False
        if held.freeze == freeze and not self._due(release):
            return True
        with self._alone(release):
            held = read(self._path(release))
            if held is None or held.holder != self._me:
                return False
            self._write(
                replace(held, freeze=freeze, renewed_at=now.isoformat(), beat=held.beat + 1)
            )
        return True

    def release(self, release: str) -> None:
        """Give it back: nobody need carry the release any more."""
        self._written_s.pop(release, None)
        if not self._folder.is_dir():
            return
        with self._alone(release):
            held = read(self._path(release))
            if held is not None and held.holder == self._me:
                self._path(release).unlink()

    def known(self) -> list[str]:
        """Return the releases of which there is a lease, whoever holds it."""
        held = [read(path) for path in sorted(self._folder.glob("*.json"))]
        return [one.release for one in held if one is not None]

    def drop(self, release: str) -> None:
        """Remove the lease of a release that has ended, whoever held it last."""
        with self._alone(release):
            self._path(release).unlink(missing_ok=True)

    def abandon(self, release: str) -> None:
        """Carry it no further, though it goes on: the watchdog acts, and anybody may take it."""
        if not self._folder.is_dir():
            return
        with self._alone(release):
            held = read(self._path(release))
            if held is not None and held.holder == self._me:
                self._write(replace(held, start="", beat=held.beat + 1))

    def _mine(self, release: str, now: datetime, *, freeze: bool) -> Held:
        return Held(
            release=release,
            market=release.split("/")[2],
            holder=self._me,
            pid=os.getpid(),
            start=started_at(os.getpid()),
            freeze=freeze,
            renewed_at=now.isoformat(),
            timeout_s=self._timeout_s,
        )

    def _due(self, release: str) -> bool:
        written_s = self._written_s.get(release, float("-inf"))
        return self._monotonic() - written_s >= RENEW_SHARE * self._timeout_s

    def _write(self, held: Held) -> None:
        write_json(self._path(held.release), asdict(held))
        self._written_s[held.release] = self._monotonic()

    def _path(self, release: str) -> Path:
        return self._folder / f"{release.replace('/', '-')}.json"

    def _alone(self, release: str) -> FileLock:
        return FileLock(self._path(release).with_suffix(".lock"), timeout=LOCKED_S)


def _over(held: Held, now: datetime) -> bool:
    """Return whether somebody else may take a lease."""
    if not held.lives():
        return True
    silent = now - datetime.fromisoformat(held.renewed_at)
    return silent.total_seconds() > held.timeout_s
