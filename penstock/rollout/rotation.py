"""Logs of processes that go on running: kept in pieces, a bounded number, no line lost.

A server is started as ``python -m penstock.rollout.rotation MODULE ARGUMENTS``: this process
becomes the module, and on SIGUSR1 opens its log anew. So a log can be renamed while it is written.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

LOG_VARIABLE = "PENSTOCK_SERVER_LOG"
"""Environment variable: the file that standard output and error go to."""

ROTATE_BYTES = 5_000_000
KEPT = 4
"""Pieces kept beside the one that is written."""


def rotate(path: Path, *, longest: int = ROTATE_BYTES) -> bool:
    """Rename a log that has grown too long, and return whether it was; the oldest piece goes.

    Whoever writes it goes on writing into the renamed file until told to open it anew.
    """
    try:
        if path.stat().st_size <= longest:
            return False
    except FileNotFoundError:
        return False
    _shift(path)
    path.replace(piece(path, 1))
    return True


def cut(path: Path, *, longest: int = ROTATE_BYTES) -> bool:
    """Copy and empty a log that has grown too long, and return whether it was.

    For a writer that cannot open its log anew and appends to it; a line that it writes just then
    may be lost. On a full disk the copy is what is lost.
    """
    try:
        if path.stat().st_size <= longest:
            return False
    except FileNotFoundError:
        return False
    _shift(path)
    with suppress(OSError):
        shutil.copyfile(path, piece(path, 1))
    os.truncate(path, 0)
    return True


def _shift(path: Path) -> None:
    for number in range(KEPT, 1, -1):
        older = piece(path, number - 1)
        if older.exists():
            older.replace(piece(path, number))


def piece(path: Path, number: int) -> Path:
    """Return the name of an older piece of a log, 1 being the newest."""
    return path.with_name(f"{path.name}.{number}")


def reopen(path: Path) -> None:
    """Let standard output and error of this process go to the file of this name."""
    opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    os.close(opened)


def main(argv: list[str], environment: Mapping[str, str]) -> None:
    """Become a module that opens its log anew on SIGUSR1."""
    log = environment.get(LOG_VARIABLE)
    if log is not None:
        signal.signal(signal.SIGUSR1, lambda _number, _frame: reopen(Path(log)))
    sys.argv = argv
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
