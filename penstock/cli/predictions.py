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

    Exit codes: 0; 1 records were lost, or are being lost; 2 wrong call.
    """
    since = None if minutes is None else datetime.now(UTC) - timedelta(minutes=minutes)
    found, console = summary(Predictions(_address(log)), since=since, version=version), terminal()
    if found.groups:
        console.print(_grouped(found.groups))
    else:
        console.print("no predictions there")
    _say_losses(console, found.losses)


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
    found = covered(Predictions(_address(log)), champion=champion, shadow=shadow, now=now)
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

    Example: penstock predictions forget - < user.txt

    Exit codes: 0 removed, or there was none; 1 a file is held, call again; 2 wrong call.
    """
    who = sys.stdin.read().strip() if user == "-" else user
    secret, removed = read_salt(salt or home().path / "salt"), Forgotten()
    for address in _everywhere(log):
        try:
            one = forget_at(address, who, salt=secret, now=datetime.now(UTC))
        except Busy as e:
            _held(e)
        removed = Forgotten(rows=removed.rows + one.rows, files=removed.files + one.files)
    typer.echo(f"removed {removed.rows} rows from {removed.files} files")


@app.command()
def expire(log: Address = None) -> None:
    """Finish journals that no server holds, copy them away, and remove what is too old.

    Servers do so every hour. How long predictions are kept, the workload's endpoint declares.

    Example: penstock predictions expire

    Exit codes: 0; 1 a disk or a place refused, call again; 2 wrong call.
    """
    address, to = _address(log), os.environ.get(ADDRESS_VARIABLE)
    place, now, done = Place.at(address), time.time(), list[Kept]()
    if place.local:
        away = Place.at(to) if to else None
        try:
            done = [keep(folder, now=now, to=away) for folder in log_folders(Path(address))]
        except Busy as e:
            _held(e)
    else:
        done = [Kept(expired=expire_at(place, now=now))]
    finished, sent, old = (
        sum(getattr(kept, name) for kept in done) for name in ("finished", "sent", "expired")
    )
    typer.echo(f"finished {finished} journals, copied {sent} files, removed {old} old ones")
    problems = [kept.problem for kept in done if kept.problem]
    for problem in problems:
        typer.echo(f"penstock: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


def _held(e: Busy) -> NoReturn:
    typer.echo(f"penstock: {e}", err=True)
    raise typer.Exit(1) from e


def _address(named: str | None) -> str:
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
    here = _address(named)
    return [here, to] if to and to != here else [here]


def _grouped(groups: Sequence[Group]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("version", "slot", "arm"):
        table.add_column(name)
    for name in ("requests", "refused", "errors", "p50", "p99", "stood in", "stale", "newest"):
        table.add_column(name, justify="right")
    for one in groups:
        counts = (one.requests, one.refused, one.errors)
        table.add_row(
            *map(plain, (one.version, one.slot, one.arm)),
            *(f"{count:,}" for count in counts),
            *map(_milliseconds, (one.p50_ms, one.p99_ms)),
            *(f"{count:,}" for count in (one.stood_in, one.stale)),
            f"{one.newest:%Y-%m-%d %H:%M:%S}",
        )
    return table


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def _say_losses(console: Console, losses: Losses) -> None:
    """Say what was lost; end with 1 where anything was."""
    lost = losses.dropped + losses.failed + losses.unreadable
    if not lost and not losses.problems:
        console.print("no record lost, as far as counted", style="green")
        return
    said = (
        f"lost: {losses.dropped:,} dropped, {losses.failed:,} not writable, "
        f"{losses.unreadable:,} unreadable; {losses.written:,} written"
    )
    console.print(plain(said, style="red"), soft_wrap=True)
    for problem in losses.problems:
        console.print(plain(problem, style="red"), soft_wrap=True)
    raise typer.Exit(1)
