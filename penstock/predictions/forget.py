"""Forgetting one user: every file is written again without their rows, while servers go on.

A journal that a server holds is asked to end first, by a file beside it that the server looks for
with every flush. What the server writes from then on is in another journal and is not forgotten:
whoever asks to be forgotten is cut off from the service first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow.compute as pc

from penstock.predictions import files
from penstock.predictions.files import JOURNAL, REFUSED, ROLL, SENT
from penstock.predictions.hashing import Hasher
from penstock.predictions.keep import Kept, finish
from penstock.predictions.place import Place

AUDIT = "forgotten.jsonl"
"""One line for everyone who was forgotten, without a trace of who it was."""

WAIT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed."""

    rows: int = 0
    files: int = 0
    """Files that were written again."""


def forget(
    address: str | Path,
    user: str,
    *,
    salt: bytes,
    now: datetime,
    sleep: Callable[[float], None] = time.sleep,
) -> Forgotten:
    """Remove every row of one user below an address.

    Args:
        user: Their id, as the edge names it.
        salt: The secret under which the servers hashed it.

    Raises:
        Busy: A server does not end its journal, or somebody else is at the files; nothing or a
            part was removed, and calling again removes the rest.
        OSError: A file cannot be read or written; the same.
    """
    hashed, place = Hasher(salt).user(user), Place.at(address)
    if not place.local:
        return _rewritten(place, hashed)
    removed = Forgotten()
    for folder in log_folders(Path(place.root)):
        with files.held(folder, wait_s=WAIT_S):
            _end_journals(folder, sleep)
            _finish(folder)
            one = _rewritten(Place.at(folder), hashed)
            _remove_journals(folder)
            lines = _rewrite_refused(folder, hashed)
            _note(folder, one.rows + lines, one.files, now)
        removed = Forgotten(rows=removed.rows + one.rows + lines, files=removed.files + one.files)
    return removed


def log_folders(root: Path) -> list[Path]:
    """Return the folders below one that hold a prediction log."""
    held = {path.parent for path in root.rglob("contract-*.json")}
    return sorted(held)


def _end_journals(folder: Path, sleep: Callable[[float], None]) -> None:
    asked = [journal for journal in files.journals(folder) if files.is_open(journal)]
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


def _finish(folder: Path) -> None:
    kept = Kept()
    finish(folder, kept)
    if kept.problem:
        raise OSError(kept.problem)


def _remove_journals(folder: Path) -> None:
    """Remove journals that are Parquet by now; what follows them goes on there."""
    for parquet in files.parquets(folder):
        parquet.with_suffix(JOURNAL).unlink(missing_ok=True)


def _rewritten(place: Place, hashed: str) -> Forgotten:
    rows = changed = 0
    for path in place.parquets():
        if hashed not in place.read(path, ["user"])["user"].unique().to_pylist():
            continue
        table = place.read(path)
        rest = table.filter(pc.fill_null(pc.not_equal(table["user"], hashed), fill_value=True))
        if place.local:
            # The copy that was sent away is sent again as it is now, however this ends.
            Path(path).with_suffix(SENT).unlink(missing_ok=True)
        place.write(rest, path)
        rows, changed = rows + len(table) - len(rest), changed + 1
    return Forgotten(rows=rows, files=changed)


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
