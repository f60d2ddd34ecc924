"""``penstock monitor`` and ``penstock retrain``: look at what serves, decide whether to train."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from penstock import monitor as monitoring
from penstock import retrain as retraining
from penstock.bundle import read
from penstock.cli.home import Home, called, home, run_id, shown
from penstock.cli.screen import coloured, plain, terminal
from penstock.cli.servers import Workload
from penstock.cli.stages import Readable
from penstock.predictions.place import ADDRESS_VARIABLE
from penstock.stage import verdict_of
from penstock.verdict import Outcome

LOOKS = "watch"
"""Folder of the home that holds looks at champions, one folder each by workload and time."""

EXIT = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 4, Outcome.ERROR: 4}

SAID = 5
"""Checks that are shown of those that did not pass."""

Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder to write; must not exist. In the home by default.", show_default=False
    ),
]


def monitor(
    workload: Workload,
    predictions: Annotated[
        str,
        typer.Option(help="Folder of the log, or s3://bucket/folder; this home's by default."),
    ] = "",
    outcomes: Annotated[
        str, typer.Option(help="File with what became of predictions, JSON lines; may be s3://.")
    ] = "",
    hours: Annotated[int, typer.Option(min=1, help="How far back to look.")] = 24,
    out: Out = None,
) -> None:
    """Look at what the champion answered: is it still right?

    Example: penstock monitor digits --hours 6 --outcomes outcomes.jsonl

    Exit codes: 0 nothing is worse; 1 something moved, fell or broke; 2 wrong call; 3 nobody serves;
    4 too little is known, or the log could not be read.
    """
    held, now = home(), datetime.now(UTC)
    os.environ.update(held.environment())
    here = held.path / "serving"
    address = predictions or os.environ.get(ADDRESS_VARIABLE, "") or str(here)
    folder = _new(out or _looks(held, workload) / run_id(now) / "monitor")
    readable = Readable(sys.stdout)
    with redirect_stdout(readable):  # pyright: ignore[reportArgumentType]
        monitoring.run(
            workload=workload,
            predictions=address,
            outcomes=outcomes,
            hours=hours,
            out=folder,
            now=now,
        )
    readable.flush()
    outcome = _show_checks(terminal(), folder)
    typer.echo(f"report: {shown(str(folder / 'report.html'))}")
    raise typer.Exit(EXIT[outcome])


def retrain(
    workload: Workload,
    look: Annotated[
        Path | None,
        typer.Option(
            "--monitor",
            help="Folder of the monitor's verdict; the newest look by default.",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Decide on a look at the champion: is it worth training again, now?

    Example: penstock retrain digits

    What asked for a training is entered in the ledger, granted or not. Exit codes: 0 decided, the
    last line says what to type; 1 a person looks first; 2 wrong call.
    """
    held, now = home(), datetime.now(UTC)
    os.environ.update(held.environment())
    verdict = look or _newest(held, workload)
    folder = _new(out or verdict.parent / f"retrain-{run_id(now)}")
    readable = Readable(sys.stdout)
    with redirect_stdout(readable):  # pyright: ignore[reportArgumentType]
        act = retraining.run(workload=workload, monitor=verdict, out=folder, now=now)
    readable.flush()
    if act == "train":
        typer.echo(f"{called()} run {workload} --trigger {retraining.trigger_of(folder)}")
    raise typer.Exit(1 if act == "diagnose" else 0)


def _looks(held: Home, workload: str) -> Path:
    return held.path / LOOKS / workload


def _newest(held: Home, workload: str) -> Path:
    """Return the newest verdict of a workload in the home.

    Raises:
        ValueError: There is none.
    """
    found = sorted(_looks(held, workload).glob("*/monitor/manifest.json"))
    if not found:
        raise ValueError(f"nobody has looked yet; type: {called()} monitor {workload}")
    return found[-1].parent


def _new(folder: Path) -> Path:
    if folder.exists():
        raise ValueError(f"{folder} exists; name a folder that does not.")
    return folder


def _show_checks(console: Console, folder: Path) -> Outcome:
    """Show what did not pass, the worst first; return the outcome."""
    verdict = verdict_of(read(folder, kind="monitor"))
    bad = sorted(
        (check for check in verdict.checks if check.outcome is not Outcome.PASS),
        key=lambda check: -list(Outcome).index(check.outcome),
    )
    for check in bad[:SAID]:
        said = Text.assemble("  ", coloured(check.outcome), f"  {check.name}: {check.reason}")
        console.print(said, soft_wrap=True)
    if len(bad) > SAID:
        console.print(plain(f"  and {len(bad) - SAID} more, in the report"))
    return verdict.outcome
