"""Forgetting one user: every file is written again without their rows, while servers go on.

A journal that a server holds is asked to end first, by a file beside it that the server looks for
with every flush. What the server writes from then on is in another journal and is not forgotten:
whoever asks to be forgotten is cut off from the service first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow.compute as pc

from penstock.predictions import files
from penstock.predictions.files import JOURNAL, PARQUET, REFUSED, ROLL, SENT
from penstock.predictions.hashing import Hasher
from penstock.predictions.keep import Kept, finish
from penstock.predictions.place import BrokenFileError, Place

AUDIT = "forgotten.jsonl"
"""One line for everyone of whom something was removed, without a trace of who it was."""

SLOTS = "serving"
"""Name of the folder in which a home has its slots."""

WAIT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed."""

    rows: int = 0
    files: int = 0
    """Files that were written again."""


def forget(
    address: str | Path,
    user: bytes,
    *,
    salt: bytes,
    now: datetime,
    copies: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Forgotten:
    """Remove every row of one user of the logs at an address.

    Args:
        user: Their id, byte by byte as requests named it.
        salt: The secret under which the servers hashed it.
        copies: The address is the one to which servers copy finished files.

    Raises:
        ValueError: Nobody is named, or the address is the folder of no log.
        Busy: A server does not end its journal, or somebody else is at the files; nothing or a
            part was removed, and calling again removes the rest.
        OSError: A file cannot be read or written; the same.
    """
    if not user:
        raise ValueError("nobody is named: the id of a user is not empty.")
    hashed, place = Hasher(salt).user(user), Place.at(address)
    broken: list[BrokenFileError] = []
    removed = Forgotten()
    if not place.local:
        removed = _rewritten(place, hashed, broken)
    for folder in log_folders(Path(place.root), copies=copies) if place.local else ():
        with files.held(folder, wait_s=WAIT_S):
            journals = files.journals(folder)
            _end_journals(journals, sleep)
            _finish(folder, journals)
            one = _rewritten(Place.at(folder), hashed, broken)
            _remove_journals(folder)
            lines = _rewrite_refused(folder, hashed)
            if one.rows + lines:
                _note(folder, one.rows + lines, one.files, now)
        removed = Forgotten(rows=removed.rows + one.rows + lines, files=removed.files + one.files)
    if broken:
        raise broken[0]
    return removed


def log_folders(root: Path, *, copies: bool = False) -> list[Path]:
    """Return the logs of a folder: itself where it is a slot's, or the slots of a home.

    Files are rewritten and removed there, so no folder is searched for logs that others may own.

    Args:
        copies: It is the one to which servers copy finished files, a folder a workload.

    Raises:
        ValueError: It is none of these.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not there; is it on a disk that is not mounted?")
    if _holds_log(root):
        return [root]
    if copies or root.resolve().name == SLOTS:
        return sorted(folder for folder in root.iterdir() if folder.is_dir() and _holds_log(folder))
    raise ValueError(
        f"{root} is no log. Name the folder of a slot, as .penstock/{SLOTS}/a, of a home's slots, "
        f"as .penstock/{SLOTS}, or the one that PENSTOCK_PREDICTIONS names."
    )


def _holds_log(folder: Path) -> bool:
    finished = (path for path in files.parquets(folder) if files.name_of(path))
    return any(folder.glob("contract-*.json")) or any(finished)


def _end_journals(journals: Sequence[Path], sleep: Callable[[float], None]) -> None:
    asked = [journal for journal in journals if files.is_open(journal)]
    end = time.monotonic() + WAIT_S
    try:
        for journal in asked:
            journal.with_suffix(ROLL).touch()
        while still := [journal for journal in asked if files.is_open(journal)]:
            if time.monotonic() >= end:
                raise files.Busy(
                    f"{still[0]} is held by a server that does not end it; is it stopped or "
                    "hanging? End it and call again."
                )
            sleep(0.05)
    finally:
        for journal in asked:
            journal.with_suffix(ROLL).unlink(missing_ok=True)


def _finish(folder: Path, journals: Sequence[Path]) -> None:
    """Turn the journals there were into Parquet, each of them: one that stays is not rewritten."""
    kept = Kept()
    finish(folder, kept)
    if kept.problem:
        raise OSError(kept.problem)
    left = [j for j in journals if j.exists() and not j.with_suffix(PARQUET).exists()]
    if left:
        raise files.Busy(f"{left[0]} is held by another process; call again.")


def _remove_journals(folder: Path) -> None:
    """Remove journals that are Parquet by now; what follows them goes on there."""
    for parquet in files.parquets(folder):
        parquet.with_suffix(JOURNAL).unlink(missing_ok=True)


def _rewritten(place: Place, hashed: str, broken: list[BrokenFileError]) -> Forgotten:
    """Go through all files; one that is broken may hold the user, to be said at the end."""
    rows = changed = 0
    for path in place.parquets(below=not place.local):
        try:
            removed = _without(place, path, hashed)
        except BrokenFileError as e:
            broken.append(e)
            continue
        rows, changed = rows + removed, changed + bool(removed)
    return Forgotten(rows=rows, files=changed)


def _without(place: Place, path: str, hashed: str) -> int:
    """Remove a user's rows from one file; return how many there were."""
    if hashed not in place.read(path, ["user"])["user"].unique().to_pylist():
        return 0
    table = place.read(path)
    rest = table.filter(pc.fill_null(pc.not_equal(table["user"], hashed), fill_value=True))
    if place.local:
        # The copy that was sent away is sent again as it is now, however this ends.
        Path(path).with_suffix(SENT).unlink(missing_ok=True)
    place.write(rest, path)
    return len(table) - len(rest)


def _rewrite_refused(folder: Path, hashed: str) -> int:
    removed = 0
    for path in folder.glob(f"{REFUSED}*{JOURNAL}"):
        lines = path.read_bytes().splitlines(keepends=True)
        rest = [line for line in lines if hashed.encode() not in line]
        if len(rest) < len(lines):
            files.replace(path, b"".join(rest))
            removed += len(lines) - len(rest)
    return removed


def _note(folder: Path, rows: int, changed: int, now: datetime) -> None:
    line = {"at": now.astimezone(UTC).isoformat(), "rows": rows, "files": changed}
    with (folder / AUDIT).open("ab") as f:
        f.write(orjson.dumps(line) + b"\n")
