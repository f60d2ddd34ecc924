"""Keeping a log tidy, beside the server: journals to Parquet, copies away, old files removed.

``python -m penstock.predictions.keep FOLDER [ADDRESS]`` does once whatever there is to do. It may
be killed at any point and started again: a file appears whole, a journal goes only after its
Parquet file is on the disk, and a copy is noted only after it is there. Exit code 75: the disk or
the other place refused, try again later.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from penstock.predictions import files
from penstock.predictions.files import JOURNAL, PARQUET, REFUSED, SENT
from penstock.predictions.place import ADDRESS_VARIABLE, BrokenFileError, Place
from penstock.predictions.schema import tabled, write

LINGER_S = 60.0
"""How long a journal stays beside its Parquet file, for whoever reads journals alone."""

TRY_AGAIN = 75
"""Exit code: what could not be done now may be possible later."""

NICEST = 19


@dataclass(kw_only=True)
class Kept:
    """What was done to a folder."""

    finished: int = 0
    """Journals that became Parquet files."""

    sent: int = 0
    expired: int = 0
    refused_lines: int = 0
    problem: str = ""


def keep(folder: Path, *, now: float, to: Place | None = None, linger_s: float = LINGER_S) -> Kept:
    """Finish journals that nobody writes to, remove what is old, copy the rest away.

    Args:
        now: Unix seconds.
        to: Where finished files are copied.

    Raises:
        Busy: Another process is at it.
    """
    with files.held(folder):
        kept = Kept()
        files.clear_parts(folder)
        _remove_finished(folder, now - linger_s)
        _attempt(kept, lambda: finish(folder, kept))
        _attempt(kept, lambda: _expired(folder, kept, now))
        if to is not None:
            _attempt(kept, lambda: _send(folder, kept, to))
            _attempt(kept, lambda: _send_counters(folder, to))
        return kept


def _attempt(kept: Kept, work: Callable[[], None]) -> None:
    """Do one thing; that a disk or a network refuses it must not keep the next from being done."""
    try:
        work()
    except OSError as e:
        kept.problem = kept.problem or str(e)


def finish(folder: Path, kept: Kept) -> None:
    """Turn every journal that nobody writes to into a Parquet file; for who holds the folder.

    Raises:
        OSError: The disk refuses.
    """
    for journal in files.journals(folder):
        if files.is_open(journal) or journal.with_suffix(PARQUET).exists():
            continue
        data = files.whole(journal.read_bytes())
        contract = files.contract_of(journal)
        if not data:
            journal.unlink()
        elif contract is None:
            kept.problem = f"{journal} has no contract beside it; its features cannot be told"
        else:
            table, refused = tabled(data, contract)
            if refused:
                files.replace(refused_of(journal), b"".join(refused))
            write(table, journal.with_suffix(PARQUET))
            kept.finished += 1
            kept.refused_lines += len(refused)


def refused_of(journal: Path) -> Path:
    """Return the file with the lines of a journal that could not be read."""
    return journal.with_name(f"{REFUSED}{journal.stem}{JOURNAL}")


def _remove_finished(folder: Path, before: float) -> None:
    for parquet in files.parquets(folder):
        journal = parquet.with_suffix(JOURNAL)
        if journal.exists() and parquet.stat().st_mtime < before:
            journal.unlink()


def expire(place: Place, *, now: float) -> int:
    """Remove files whose rows are all older than their endpoint keeps them; return how many.

    A file that is broken says nothing of its age; it stays, and keeps no other one.

    Args:
        now: Unix seconds.

    Raises:
        OSError: The place refuses.
    """
    kept_s: dict[str, float] = {}
    expired = 0
    for path in place.parquets(below=not place.local):
        with suppress(BrokenFileError):
            if _is_old(place, path, kept_s, now):
                _remove(place, path)
                expired += 1
    return expired


def _is_old(place: Place, path: str, kept_s: dict[str, float], now: float) -> bool:
    name = files.name_of(path)
    if name is None:
        return False
    if name.contract not in kept_s:
        kept_s[name.contract] = place.contract(path).endpoint.log_kept.total_seconds()
    before = now - kept_s[name.contract]
    # A file's rows are hardly older than its name: most need not be opened.
    return name.begun.timestamp() < before and newest_s(place, path) < before


def _remove(place: Place, path: str) -> None:
    if place.local:
        parquet = Path(path)
        for beside in (
            parquet.with_suffix(JOURNAL),
            refused_of(parquet),
            parquet.with_suffix(SENT),
        ):
            beside.unlink(missing_ok=True)
    place.remove(path)


def _expired(folder: Path, kept: Kept, now: float) -> None:
    kept.expired = expire(Place.at(folder), now=now)


def newest_s(place: Place, path: str) -> float:
    """Return the Unix seconds of a file's newest row; 0 of a file without any."""
    newest = pc.max(place.read(path, ["at"])["at"]).as_py()
    return 0.0 if newest is None else newest.timestamp()


def _send(folder: Path, kept: Kept, to: Place) -> None:
    for parquet in files.parquets(folder):
        note, contract = parquet.with_suffix(SENT), files.contract_of(parquet)
        if contract is not None and not note.exists():
            to.send(parquet, contract.workload)
            note.touch()
            kept.sent += 1


def _send_counters(folder: Path, to: Place) -> None:
    """Copy what the log counts beside its files: whoever reads those must know what they lack."""
    workloads = {c.workload for p in files.parquets(folder) if (c := files.contract_of(p))}
    path = folder / files.COUNTERS
    if path.exists():
        where = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]
        for workload in workloads:
            to.send(path, workload, name=f"{files.COPIED}{socket.gethostname()}-{where}.json")


def main(argv: list[str]) -> int:
    """Keep one folder, after everything that answers users."""
    os.nice(NICEST)
    address = argv[1] if len(argv) > 1 else os.environ.get(ADDRESS_VARIABLE)
    try:
        to = Place.at(address) if address else None
        kept = keep(Path(argv[0]), now=time.time(), to=to)
    except files.Busy:
        return 0
    except (OSError, ValueError) as e:
        print(f"prediction log: {e}", file=sys.stderr)
        return TRY_AGAIN
    if kept.problem:
        print(f"prediction log: {kept.problem}", file=sys.stderr)
    return TRY_AGAIN if kept.problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
