"""``penstock logs``: the words of the servers, of Envoy and of the supervisor."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from penstock.cli.home import Home, HomeError, called, home
from penstock.cli.screen import plain
from penstock.rollout.plane import Plane
from penstock.rollout.rotation import piece

POLL_S = 0.2


class Log(StrEnum):
    """Whose words."""

    A = "a"
    B = "b"
    EDGE = "envoy"
    SUPERVISOR = "supervisor"
    ACCESS = "access"


FILES = {
    Log.A: "a/server.log",
    Log.B: "b/server.log",
    Log.EDGE: "envoy.log",
    Log.SUPERVISOR: "supervisor.log",
    Log.ACCESS: "access.jsonl",
}


def logs(
    whose: Annotated[
        Log | None, typer.Argument(help="All but access by default.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Of each, the last.")] = 20,
) -> None:
    """Show the last words of the servers, of Envoy and of the supervisor.

    Example: penstock logs a --follow
    """
    held = home()
    found = _files(held, whose)
    if not Plane.running(held.path):
        typer.echo(f"nothing is running; these were the last words ({called()} up)", err=True)
    begins = {log: "" if whose else f"{log.value:10} | " for log in found}
    for log, path in found.items():
        for line in last(path, lines):
            typer.echo(plain(begins[log] + line).plain)
    if follow:
        followed = {log: following(path) for log, path in found.items()}
        _follow(followed, lambda log, line: typer.echo(plain(begins[log] + line).plain))


def _files(held: Home, whose: Log | None) -> dict[Log, Path]:
    asked = [whose] if whose else [log for log in Log if log is not Log.ACCESS]
    found = {log: held.path / "serving" / FILES[log] for log in asked}
    there = {log: path for log, path in found.items() if path.exists()}
    if not there:
        what = f"{whose.value} has written nothing" if whose else "nothing was written"
        raise HomeError(f"{what} in {held.path}; the servers start with: {called()} up")
    return there


def last(path: Path, count: int) -> list[str]:
    """Return the last lines of a log, some from its older piece where the newest is short."""
    kept: deque[str] = deque(maxlen=count)
    for part in (piece(path, 1), path):
        if part.exists():
            kept.extend(part.read_text(encoding="utf-8", errors="replace").splitlines())
    return list(kept)


def following(path: Path) -> Generator[list[str]]:
    """Yield the lines that a log gets from now on, again and again, also when it is renamed."""
    log: TextIO | None = path.open(encoding="utf-8", errors="replace") if path.exists() else None
    if log is not None:
        log.seek(0, os.SEEK_END)
    rest = ""
    try:
        while True:
            rest += "" if log is None else log.read()
            *whole, rest = rest.split("\n")
            yield whole
            if path.exists() and (log is None or not os.path.samestat(path.stat(), _stat(log))):
                if log is not None:
                    rest += log.read()
                    log.close()
                log = path.open(encoding="utf-8", errors="replace")
    finally:
        if log is not None:
            log.close()


def _stat(log: TextIO) -> os.stat_result:
    return os.fstat(log.fileno())


def _follow(followed: Mapping[Log, Iterator[list[str]]], say: Callable[[Log, str], None]) -> None:
    try:
        while True:
            for log, lines in followed.items():
                for line in next(lines):
                    say(log, line)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        return
