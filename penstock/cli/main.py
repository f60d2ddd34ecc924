"""The ``penstock`` command."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.bundle import BundleError
from penstock.cli import contract, lineage, register, stages
from penstock.cli import ledger as ledgers
from penstock.cli import run as runs
from penstock.cli.home import DISK_FULL, HomeError, home, locked, run_id
from penstock.cli.retire import retire
from penstock.cli.score import score
from penstock.cli.screen import Screen, coloured, row, terminal
from penstock.datachecks.served import run as run_skew
from penstock.ledger import Actor, KeyFileError, LedgerError, champion
from penstock.online import OnlineError
from penstock.online.served import read_served
from penstock.register.reconcile import try_to_follow
from penstock.register.step import mlflow
from penstock.rollout import step as rollout
from penstock.rollout.plane import Plane, PlaneError
from penstock.stage import Refused
from penstock.verdict import Outcome
from penstock.workload import UnknownWorkload, load, load_data

PORT = 8780

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


class Break(StrEnum):
    """Ways to break a challenger on purpose."""

    LATENCY = "latency"
    ERRORS = "errors"
    ACCURACY = "accuracy"


class BreakOn(StrEnum):
    """Where the fault shows."""

    LIVE = "live"
    ALL = "all"


Workload = Annotated[str, typer.Argument(help="Folder below workloads/.")]
Port = Annotated[
    int | None,
    typer.Option(
        min=1, max=65535, help=f"Where users are answered, on loopback; {PORT}, or where they are.",
        show_default=False,
    ),
]  # fmt: skip


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
    served: Annotated[
        Path | None,
        typer.Option(help="Log of served features; a release begins only if they are not skewed."),
    ] = None,
) -> None:
    """Carry a workload from features to live traffic.

    Example: penstock run digits --seed 7

    Exit codes: 0 serves; 1 failed; 2 wrong call or home in use; 3 rejected by the gate or by the
    promotion contract; 4 data refused; 5 rolled back; 130 interrupted.
    """
    console, held, now = terminal(), home(), datetime.now(UTC)
    load(workload)
    if served is not None:
        read_served(served)
    fault = None
    if break_challenger is not None:
        fault = rollout.Fault(kind=break_challenger, on=break_on)
    with locked(held):
        asked = runs.Request(
            workload=workload,
            seed=seed,
            fault=fault,
            port=port or Plane.port(held.path) or PORT,
            actor=Actor.load(held.key()),
            release=release,
            served=served,
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
    facts.add_row("  report", _shown(record.report))
    if record.url:
        facts.add_row("  answering", record.url)
        facts.add_row("  look around", f"{_command()} status · {_command()} down stops the servers")
    console.print(facts)


def _command() -> str:
    """Return how this command was called, so that what is printed can be typed."""
    return _shown(sys.argv[0]) if "/" in sys.argv[0] else "penstock"


def _shown(path: str | None) -> str:
    """Return a path as seen from here, where that is shorter."""
    if path is None:
        return ""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


@app.command(name="compile")
def compile_(
    workload: Workload,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("pipeline.yaml"),
) -> None:
    """Write the compiled training pipeline, the file that Kubeflow Pipelines takes.

    Example: penstock compile digits --out digits.yaml
    """
    load(workload)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pipelines.local", workload, "--root", scratch]
        subprocess.run([*command, "--compile-only"], check=True, stdout=subprocess.DEVNULL)
        shutil.copy(Path(scratch) / "pipeline.yaml", out)
    typer.echo(f"wrote {out}")


@app.command()
def up(workload: Workload = "digits", port: Port = None) -> None:
    """Start the servers and let the champion answer.

    Example: penstock up digits
    """
    load(workload)
    held = home()
    ledger = held.ledger()
    try:
        if champion(ledger.entries(workload)) is None:
            raise HomeError(f"{workload} has no champion yet; release one: penstock run {workload}")
        at = port or Plane.port(held.path) or PORT
        plane = Plane.up(held.path, model=workload, port=at)
        version = rollout.serve_champion(plane, ledger, workload)
        os.environ.update(held.environment())
        actor, moment = Actor.load(held.key()), datetime.now(UTC)
        aside = try_to_follow(workload, mlflow, ledger, actor=actor, now=moment)
    finally:
        ledger.close()
    if aside:
        typer.echo(f"penstock: {aside}", err=True)
    typer.echo(f"version {version} of {workload} answers at {plane.url}/v2/models/{workload}/infer")


@app.command()
def down() -> None:
    """Stop every server of this home.

    Example: penstock down
    """
    held = home()
    if not Plane.running(held.path):
        typer.echo("nothing is running")
        return
    Plane.attach(held.path).down()
    typer.echo("stopped")


@app.command()
def status() -> None:
    """Show what serves: slots, versions, share of users.

    Example: penstock status
    """
    console, held = terminal(), home()
    if not Plane.running(held.path):
        console.print(f"nothing is running; {_command()} up starts the servers")
        raise typer.Exit(1)
    plane = Plane.attach(held.path)
    table, seen = plane.observe(), plane.status()
    console.print(f"{seen['model']} at {plane.url}, table {table.sequence}")
    for slot, state in seen["slots"].items():
        share = _share(slot, table.champion, table.challenger, table.buckets, table.mirror)
        version = state.get("version")
        line = f"version {version}, {share}, process {state.get('pid')}" if version else "empty"
        restarts = state.get("restarts") or 0
        again = f", restarted {restarts} times" if restarts else ""
        took = state.get("seconds")
        ready = "" if not version or took is None else f", ready after {took:.1f} s"
        console.print(row(f"slot {slot}", None, state["state"], line + ready + again))


def _share(
    slot: str, champion_slot: str, challenger: str | None, buckets: int, mirror: str | None
) -> str:
    percent = 100 * buckets / 64
    if slot == champion_slot:
        return f"{100 - percent:.0f} % of users"
    if slot == challenger:
        return f"{percent:.0f} % of users"
    return "a copy of every request" if slot == mirror else "no users"


EXPECTED = (
    HomeError,
    UnknownWorkload,
    BundleError,
    OnlineError,
    KeyFileError,
    LedgerError,
    PlaneError,
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
