"""The ``penstock`` command."""

from __future__ import annotations

import errno
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.bundle import BundleError
from penstock.cli import contract, kill, lineage, predictions, register, release, servers, stages
from penstock.cli import ledger as ledgers
from penstock.cli import run as runs
from penstock.cli.compiling import compile_
from penstock.cli.controller import controller
from penstock.cli.home import DISK_FULL, HomeError, called, home, locked, run_id, shown
from penstock.cli.latency import latency
from penstock.cli.logs import logs
from penstock.cli.manifests import manifests
from penstock.cli.retire import retire
from penstock.cli.score import score
from penstock.cli.screen import Screen, coloured, terminal
from penstock.cli.servers import PORT, Port, Workload
from penstock.cli.status import status
from penstock.cli.submit import submit
from penstock.cli.triton import triton
from penstock.cli.watch import monitor, retrain
from penstock.datachecks.served import run as run_skew
from penstock.ledger import Actor, KeyFileError, LedgerError
from penstock.online import OnlineError
from penstock.online.served import read_served
from penstock.release import Trigger
from penstock.rollout import step as rollout
from penstock.rollout.envoy import EnvoyError
from penstock.rollout.plane import Plane, PlaneError
from penstock.stage import Refused
from penstock.verdict import Outcome
from penstock.workload import UnknownWorkload, load, load_data

app = typer.Typer(
    help="Carries a model from features to live traffic through gates, and back when it must.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
registering = typer.Typer()
registering.command()(register.reconcile)
stages.add_to(app, register=registering)

EVIDENCE = "What is known of a version"
app.add_typer(lineage.app, name="lineage", rich_help_panel=EVIDENCE)
app.add_typer(contract.app, name="contract", rich_help_panel=EVIDENCE)
for verb in (lineage.reproduce, score, retire):
    app.command(rich_help_panel=EVIDENCE)(verb)
app.add_typer(ledgers.app, name="ledger")

RELEASED = "How a version reaches users"
app.add_typer(release.app, name="release", rich_help_panel=RELEASED)
app.add_typer(kill.app, name="kill", rich_help_panel=RELEASED)
app.command(rich_help_panel=RELEASED)(controller)

SERVED = "What was served"
app.add_typer(predictions.app, name="predictions", rich_help_panel=SERVED)
for verb in (monitor, retrain, latency, triton):
    app.command(rich_help_panel=SERVED)(verb)


class Break(StrEnum):
    """Ways to break a challenger on purpose."""

    LATENCY = "latency"
    ERRORS = "errors"
    ACCURACY = "accuracy"


class BreakOn(StrEnum):
    """Where the fault shows."""

    LIVE = "live"
    ALL = "all"


@app.command()
def run(
    workload: Workload,
    seed: Annotated[int, typer.Option(help="Training seed; 0 is the declared one.")] = 0,
    break_challenger: Annotated[
        Break | None, typer.Option(help="Break the new version on purpose; it must come back.")
    ] = None,
    break_on: Annotated[
        BreakOn, typer.Option(help="live: only users see the fault; all: shadow sees it too.")
    ] = BreakOn.LIVE,
    port: Port = None,
    release: Annotated[bool, typer.Option(help="Stop after registering.")] = True,
    fault: Annotated[
        str, typer.Option(help="A longer fault in place of --break-challenger: errors:share=0.1.")
    ] = "",
    trigger: Annotated[
        Trigger, typer.Option(help="Why it is trained; the policy may ask for an approval.")
    ] = Trigger.MANUAL,
    markets: Annotated[
        str, typer.Option(help="Share of the replayed users in each market: us=0.6,eu=0.4.")
    ] = "",
    served: Annotated[
        Path | None,
        typer.Option(help="Log of served features; a release begins only if they are not skewed."),
    ] = None,
) -> None:
    """Carry a workload from features to live traffic.

    Example: penstock run digits --seed 7

    Exit codes: 0 serves; 1 failed; 2 wrong call or home in use; 3 rejected by the gate or by the
    promotion contract; 4 data refused; 5 rolled back; 6 waits for a person; 130 interrupted.
    """
    console, held, now = terminal(), home(), datetime.now(UTC)
    load(workload)
    if served is not None:
        read_served(served)
    kind = fault or break_challenger
    broken = None if not kind else rollout.Fault(kind=str(kind), on=str(break_on))
    with locked(held):
        asked = runs.Request(
            workload=workload,
            seed=seed,
            fault=broken,
            port=port or Plane.port(held.path) or PORT,
            actor=Actor.load(held.key()),
            release=release,
            served=served,
            trigger=trigger,
            markets=markets,
        )
        if release:
            # What could not serve in the end is said before minutes of work.
            Plane.may_serve(held.path, model=workload, port=asked.port)
        record = runs.carry(asked, held, run_id(now), Screen(console), now=now)
    _summary(console, record)
    raise typer.Exit(runs.EXIT.get(record.outcome, 1))


@app.command()
def skew(
    workload: Workload,
    snapshot: Annotated[Path, typer.Option(help="Folder of the snapshot it was trained on.")],
    served: Annotated[Path, typer.Option(help="Log of served features.")],
    out: Annotated[Path, typer.Option(help="Folder for the verdict; must not exist.")],
) -> None:
    """Hold features as they were served against the training rows.

    Example: penstock skew digits --snapshot SNAPSHOT --served served.jsonl --out skew

    Exit codes: 0 no skew; 2 wrong call; 4 skewed, or too few look-ups to tell.
    """
    load_data(workload)
    if out.exists():
        raise ValueError(f"{out} exists; name a folder that does not.")
    bundle = run_skew(
        workload=workload, snapshot=snapshot, served=served, out=out, now=datetime.now(UTC)
    )
    outcome, line = bundle.summary.outcome, bundle.summary.line
    console = terminal()
    console.print(Text.assemble(coloured(outcome), f": {line}"))
    console.print(f"every check: {out / 'verdict.json'}", style="dim", soft_wrap=True)
    if outcome != Outcome.PASS:
        raise typer.Exit(runs.EXIT["data refused"])


def _summary(console: Console, record: runs.Record) -> None:
    """Print the outcome, its reason, and where to look next."""
    console.print()
    console.print(Text.assemble("  ", coloured(record.outcome), f": {record.reason}"), style="bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    if record.version is not None:
        others = record.champion not in (None, record.version)
        over = f" over version {record.champion}" if others else ""
        facts.add_row("  version", f"{record.version}{over}")
    release = record.release or {}
    if release.get("rollback_ms") is not None:
        noticed = f"{release['detected_s']} s after its step began"
        facts.add_row("  noticed", f"{noticed}; users back in {release['rollback_ms']} ms")
    facts.add_row("  took", f"{record.seconds:.0f} s")
    facts.add_row("  report", shown(record.report))
    if record.url:
        facts.add_row("  answering", record.url)
        facts.add_row("  look around", f"{called()} status · {called()} down stops the servers")
    console.print(facts)


app.command(name="compile")(compile_)
app.command()(submit)
app.command()(manifests)
for server in (servers.up, servers.down, status, logs):
    app.command()(server)


EXPECTED = (
    HomeError,
    UnknownWorkload,
    BundleError,
    OnlineError,
    KeyFileError,
    LedgerError,
    PlaneError,
    EnvoyError,
    Refused,
    OSError,
    LookupError,
    ValueError,
)
"""Errors that are a person's to mend: the sentence is shown, not the traceback."""


def main() -> None:
    """Run the command; turn expected errors into one sentence and exit code 2."""
    try:
        app()
    except UnknownWorkload as e:
        typer.echo(f"penstock: {e}", err=True)
        sys.exit(2)
    except Refused as e:
        typer.echo(f"penstock: {e}", err=True)
        sys.exit(3)
    except EXPECTED as e:
        full = isinstance(e, OSError) and e.errno == errno.ENOSPC
        typer.echo(f"penstock: {DISK_FULL if full else e}", err=True)
        sys.exit(2)
