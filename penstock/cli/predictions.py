"""The ``penstock predictions`` verbs: what is in the log, and what may not stay in it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from penstock.cli.home import home
from penstock.cli.screen import plain, terminal
from penstock.predictions.coverage import coverage as covered
from penstock.predictions.files import Busy
from penstock.predictions.forget import Forgotten, log_folders
from penstock.predictions.forget import forget as forget_at
from penstock.predictions.hashing import read_salt
from penstock.predictions.keep import Kept, keep
from penstock.predictions.keep import expire as expire_at
from penstock.predictions.log import Losses, Predictions
from penstock.predictions.place import ADDRESS_VARIABLE, Place
from penstock.predictions.summary import Group, summary

SALT_VARIABLE = "PENSTOCK_SALT"

app = typer.Typer(
    help="Look into the prediction log, and remove what may not stay in it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Address = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="Folder of the log, or s3://bucket/folder; this home's servers by default.",
        show_default=False,
    ),
]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Only the last so many minutes.", show_default=False)
]


@app.command()
def show(
    log: Address = None,
    minutes: Minutes = None,
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
) -> None:
    """Show who answered how many requests, how fast, and what was lost.

    Example: penstock predictions show --minutes 10

    Exit codes: 0; 1 records were lost, or are being lost, or the version named has no
    predictions there; 2 wrong call.
    """
    since = None if minutes is None else datetime.now(UTC) - timedelta(minutes=minutes)
    held, console = Predictions(address_of(log)), terminal()
    found = summary(held, since=since, version=version)
    if found.groups:
        for table in _grouped(found.groups):
            console.print(table)
    else:
        of = "" if version is None else f" of version {version}"
        console.print(plain(f"no predictions{of} there{_last(minutes)}"))
    lost = _say_losses(console, found.losses)
    if lost or (version is not None and not found.groups):
        raise typer.Exit(1)


@app.command()
def coverage(
    champion: Annotated[str, typer.Argument(help="Version that answered the users.")],
    shadow: Annotated[str, typer.Argument(help="Version that got copies.")],
    log: Address = None,
) -> None:
    """Show how many of the mirrored requests a shadow answered, and what became of the others.

    Example: penstock predictions coverage 1 2

    Exit codes: 0; 1 there is no copy to judge; 2 wrong call.
    """
    now = datetime.now(UTC)
    found = covered(Predictions(address_of(log)), champion=champion, shadow=shadow, now=now)
    if found.share is None:
        typer.echo(f"version {shadow} has no copies of version {champion}'s requests")
        raise typer.Exit(1)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    reasons = {
        "mirrored": found.mirrored,
        "answered by both": found.joined,
        "refused by the shadow": found.refused,
        "failed by the shadow": found.failed,
        "too recent to tell": found.recent,
        "no copy in the log": found.missing,
        "lost by the logs": found.lost_by_log,
        "copies without an original": found.unmatched,
    }
    for name, count in reasons.items():
        table.add_row(name, f"{count:,}")
    terminal().print(table)
    terminal().print(f"coverage {found.share:.2%}")


@app.command()
def forget(
    user: Annotated[str, typer.Argument(help="Their id; - reads it from standard input.")],
    log: Address = None,
    salt: Annotated[
        Path | None,
        typer.Option(envvar=SALT_VARIABLE, help="File with the salt of user hashes."),
    ] = None,
) -> None:
    """Remove every row of one user, here and where copies are kept; servers go on.

    The id is compared byte by byte with what requests named; what came in another encoding than
    this terminal's is given by standard input.

    Example: penstock predictions forget - < user.txt

    Exit codes: 0 removed, or there was none; 1 a file is held, call again; 2 wrong call.
    """
    who = sys.stdin.buffer.read().strip() if user == "-" else os.fsencode(user).strip()
    secret, removed = read_salt(salt or home().path / "salt"), Forgotten()
    for address in _everywhere(log):
        try:
            one = forget_at(
                address, who, salt=secret, now=datetime.now(UTC), copies=_is_copies(address)
            )
        except Busy as e:
            _held(e)
        removed = Forgotten(rows=removed.rows + one.rows, files=removed.files + one.files)
    if removed.rows:
        typer.echo(
            f"removed {_counted(removed.rows, 'row')} from {_counted(removed.files, 'file')}"
        )
    else:
        typer.echo("nothing removed: nobody of this id is there, as hashed with this salt")


@app.command()
def expire(log: Address = None) -> None:
    """Finish journals that no server holds, copy them away, and remove what is too old.

    Servers do so every hour. How long predictions are kept, the workload's endpoint declares.
    Only a slot's log, a home's slots, and where copies are kept are touched.

    Example: penstock predictions expire

    Exit codes: 0; 1 a disk or a place refused, call again; 2 wrong call.
    """
    address, to = address_of(log), os.environ.get(ADDRESS_VARIABLE)
    place, now, done = Place.at(address), time.time(), list[Kept]()
    if place.local:
        away = Place.at(to) if to else None
        try:
            folders = log_folders(Path(address), copies=_is_copies(address))
            done = [keep(folder, now=now, to=away) for folder in folders]
        except Busy as e:
            _held(e)
    else:
        done = [Kept(expired=expire_at(place, now=now))]
    finished, sent, old = (
        sum(getattr(kept, name) for kept in done) for name in ("finished", "sent", "expired")
    )
    typer.echo(
        f"finished {_counted(finished, 'journal')}, copied {_counted(sent, 'file')}, "
        f"removed {_counted(old, 'old file')}"
    )
    problems = [kept.problem for kept in done if kept.problem]
    for problem in problems:
        typer.echo(f"penstock: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


def _held(e: Busy) -> NoReturn:
    typer.echo(f"penstock: {e}", err=True)
    raise typer.Exit(1) from e


def address_of(named: str | None) -> str:
    """Return the address that was named, or the folder of this home's servers.

    Raises:
        ValueError: There is no such folder.
    """
    address = named or str(home().path / "serving")
    place = Place.at(address)
    if place.local and not Path(place.root).is_dir():
        raise ValueError(f"{address} is not there; name the folder of the log with --log.")
    return address


def _everywhere(named: str | None) -> list[str]:
    """Return the address, and where its finished files are copied to."""
    to = os.environ.get(ADDRESS_VARIABLE)
    here = address_of(named)
    return [here, to] if to and to != here else [here]


def _is_copies(address: str) -> bool:
    return address == os.environ.get(ADDRESS_VARIABLE)


def _counted(count: int, what: str) -> str:
    """Return a count with its noun.

    >>> _counted(1, "file"), _counted(1000, "file")
    ('1 file', '1,000 files')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _last(minutes: float | None) -> str:
    return "" if minutes is None else f" in the last {minutes:g} minutes"


def _grouped(groups: Sequence[Group]) -> tuple[Table, Table]:
    """Return what was answered and how well: two tables, as one is wider than a terminal."""
    answered = _table("requests", "refused", "errors", "p50 ms", "p99 ms")
    known = _table("stood in", "stale", "newest")
    for one in groups:
        who = [plain(name) for name in (one.version, one.slot, one.arm)]
        counts = [f"{count:,}" for count in (one.requests, one.refused, one.errors)]
        answered.add_row(*who, *counts, *map(_milliseconds, (one.p50_ms, one.p99_ms)))
        counts = [f"{count:,}" for count in (one.stood_in, one.stale)]
        known.add_row(*who, *counts, f"{one.newest.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    return answered, known


def _table(*numbers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("version", "slot", "arm"):
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _say_losses(console: Console, losses: Losses) -> bool:
    """Say what was lost; return whether anything was."""
    lost = losses.dropped + losses.failed + losses.unreadable
    if not lost and not losses.problems:
        console.print("no record lost, as far as counted", style="green")
        return False
    said = (
        f"lost: {losses.dropped:,} dropped, {losses.failed:,} not writable, "
        f"{losses.unreadable:,} unreadable; {losses.written:,} written"
    )
    console.print(plain(said, style="red"), soft_wrap=True)
    for problem in losses.problems:
        console.print(plain(problem, style="red"), soft_wrap=True)
    return True
