"""Files of a prediction log: how they are named, which one to read, and who may touch them.

A server appends to ``predictions-<UTC begin>-<token>-<contract>.jsonl``, its journal, and holds a
lock on it while it does. A finished journal becomes the ``.parquet`` of the same stem, and is
removed a while later: whoever sees both reads one. ``contract-<contract>.json`` says what the
features are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock.request import Contract

JOURNAL, PARQUET = ".jsonl", ".parquet"
ROLL = ".roll"
"""Ending of a file beside an open journal that asks its server to begin another one."""

SENT = ".sent"
"""Ending of an empty file beside a Parquet file that was copied to where they are kept."""

COUNTERS = "counters.json"
COPIED = "counters-"
"""Beginning of a copy of it where finished files are kept, one for each log."""

REFUSED = "refused-"
"""Beginning of a file with a journal's lines that could not be read."""

MODE = 0o640
"""Of every file with records: its owner's to write and its group's to read, nobody else's."""

COLUMNS = "market"
"""The column that rows got last: files of one key all have the same columns, so that Parquet files
of before are read beside those of now and not in their form."""

_PART = ".part-"
_LOCK = "keeper.lock"


class Busy(RuntimeError):
    """Somebody else is at work on these files; the text says who and what to do."""


@dataclass(frozen=True)
class Name:
    """What a journal's or Parquet file's name says."""

    begun: datetime
    contract: str


def new_stem(contract: str, *, at: float) -> str:
    """Return the name, without its ending, of a journal that begins now; no two are the same.

    Args:
        at: Unix seconds.
    """
    begun = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]
    return f"predictions-{begun}Z-{os.urandom(4).hex()}-{contract}"


def name_of(path: str | Path) -> Name | None:
    """Return what a name says, or None for one that was given by another hand."""
    parts = Path(path).stem.split("-")
    try:
        begun = datetime.strptime(parts[1], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
        return Name(begun, parts[3])
    except (IndexError, ValueError):
        return None


def contract_key(contract: Contract) -> str:
    """Return the short hash by which a contract's file and journals are named."""
    text = json.dumps([COLUMNS, contract.to_dict()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_contract(folder: Path, contract: Contract) -> str:
    """Leave what a reader needs to know of the features; return its key."""
    key = contract_key(contract)
    path = folder / f"contract-{key}.json"
    if not path.exists():
        replace(path, json.dumps(contract.to_dict(), indent=1).encode())
    return key


def contract_of(path: Path) -> Contract | None:
    """Return the contract of a journal, or None where its file is gone or cannot be read."""
    name = name_of(path)
    if name is None:
        return None
    try:
        text = (path.parent / f"contract-{name.contract}.json").read_text(encoding="utf-8")
        return Contract.from_dict(json.loads(text))
    except (OSError, ValueError, KeyError):
        return None


def journals(folder: Path) -> list[Path]:
    """Return a folder's journals, oldest first."""
    return sorted(folder.glob(f"predictions-*{JOURNAL}"))


def parquets(folder: Path) -> list[Path]:
    """Return a folder's finished files, oldest first."""
    return sorted(folder.glob(f"predictions-*{PARQUET}"))


def whole(data: bytes) -> bytes:
    """Return the bytes up to the last newline: a line without one is still being written."""
    return data[: data.rfind(b"\n") + 1]


def replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all.

    Args:
        durable: It outlives a crash of the machine, at the price of waiting for the disk.
    """
    with replacing(path, durable=durable) as part:
        part.write_bytes(data)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path to write to; what was written there is then given its name at once.

    Raises:
        OSError: The disk refuses; what was there before still is.
    """
    part = part_of(path)
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE))
        yield part
        if durable:
            _sync(part)
        part.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Return a name that a file may have before it is whole; no reader looks at it."""
    return path.with_name(f"{_PART}{path.name}-{uuid.uuid4().hex[:8]}")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def clear_parts(folder: Path) -> None:
    """Remove what an interrupted write left; for who holds the folder."""
    for part in folder.glob(f"{_PART}predictions-*"):
        part.unlink(missing_ok=True)


def take(fd: int) -> bool:
    """Lock an open file for this process; return whether nobody else holds it."""
    return _lock(fd, fcntl.LOCK_EX)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_open(journal: Path) -> bool:
    """Return whether a server still appends to a journal; one that was killed does not.

    Whoever else asks at the same time is not taken for a server.
    """
    try:
        fd = os.open(journal, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


@contextmanager
def held(folder: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Be the only one that finishes, rewrites or removes files of a folder.

    Raises:
        Busy: Somebody else is, and was for as long as the caller waits.
    """
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = time.monotonic() + wait_s
        while not take(fd):
            if time.monotonic() >= end:
                raise Busy(f"{folder} is being tidied by another process; try again in a minute.")
            time.sleep(0.02)
        yield
    finally:
        os.close(fd)
