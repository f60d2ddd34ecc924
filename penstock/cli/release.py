"""``penstock release``: begin, carry on, watch and steer the releases of this home."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock import registered
from penstock.cli import approvals, commands, drill, releases
from penstock.cli.home import Home, home, refuse_during_a_run
from penstock.cli.run import EXIT
from penstock.cli.screen import Screen, plain, row, show_release, terminal
from penstock.cli.servers import PORT, Port, Workload
from penstock.ledger import Actor, Ledger
from penstock.register.reconcile import try_to_follow
from penstock.register.step import mlflow
from penstock.release import Trigger
from penstock.rollout import step as rollout
from penstock.rollout.plane import Plane
from penstock.rollout.result import WORST, Branch
from penstock.workload import load

app = typer.Typer(help="Begin, carry on, watch and steer releases.", no_args_is_help=True)

COMMAND = "from penstock.cli.main import main; main()"
"""This command, for a process of this very Python."""

Market = Annotated[str | None, typer.Option(help="One market alone; all of them by default.")]


@app.command()
def start(
    workload: Workload,
    version: Annotated[int, typer.Argument(min=1, help="Number of the version.")],
    market: Market = None,
    trigger: Annotated[
        Trigger | None,
        typer.Option(help="Why it was trained; what its registration says by default."),
    ] = None,
    detach: Annotated[
        bool, typer.Option(help="Return at once; a process of its own carries the release.")
    ] = False,
    queue: Annotated[
        bool,
        typer.Option(
            "--queue", help="Only write down that it is wanted; the controller of a cluster begins."
        ),
    ] = False,
    port: Port = None,
) -> None:
    """Begin a release of a registered version over the users who ask just now.

    Example: penstock release start digits 4 --detach

    Exit codes: 0 promoted, begun with --detach, or queued with --queue; 1 failed; 2 wrong call; 3
    refused; 5 rolled back; 6 waits for its turn.
    """
    held = home()
    load(workload)
    if queue:
        _ask_for(held, workload, version, market, trigger)
        return
    refuse_during_a_run(held, "release start")
    os.environ.update(held.environment())
    ledger, screen = held.ledger(), Screen(terminal())
    try:
        opened = rollout.start(
            workload=workload,
            version=version,
            market=market,
            trigger=trigger or registered.trigger(ledger.entries(workload), version),
            home=held.path,
            ledger=ledger,
            actor=Actor.load(held.key()),
            port=port or Plane.port(held.path) or PORT,
            emit=lambda event: show_release(event, screen),
        )
    finally:
        ledger.close()
    if not opened:
        typer.echo(f"version {version} is queued; its turn comes when its market is free")
        raise typer.Exit(EXIT["waiting"])
    if detach:
        _detached(held, workload, opened)
        return
    run(workload, port=port)


def _ask_for(
    held: Home, workload: str, version: int, market: str | None, trigger: Trigger | None
) -> None:
    ledger = held.ledger()
    try:
        markets = rollout.ask_for(
            workload=workload,
            version=version,
            market=market,
            trigger=trigger or registered.trigger(ledger.entries(workload), version),
            ledger=ledger,
            actor=Actor.load(held.key()),
        )
    finally:
        ledger.close()
    typer.echo(f"version {version} is queued in {', '.join(markets)}; the controller begins it")


def _detached(held: Home, workload: str, opened: Sequence[str]) -> None:
    """Let a process of its own carry the releases; it outlives this one on purpose."""
    log = held.path / "serving" / "release.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "release", "run", workload],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    typer.echo(f"{', '.join(opened)}: carried by process {process.pid}, which writes {log}")


@app.command()
def run(
    workload: Workload,
    port: Port = None,
) -> None:
    """Carry on every release of a workload until each has ended; it stays while a person must act.

    Example: penstock release run digits

    After Ctrl-C or a crash the same command takes them up again; meanwhile the champion answers
    users of shadow and canary. Exit codes: as of start; 6 another process carries it; 130 Ctrl-C.
    """
    held = home()
    refuse_during_a_run(held, "release run")
    load(workload)
    os.environ.update(held.environment())
    console = terminal()
    screen, ledger = Screen(console), held.ledger()
    try:
        branches = rollout.carry_on(
            workload=workload,
            home=held.path,
            ledger=ledger,
            actor=Actor.load(held.key()),
            port=port or Plane.port(held.path) or PORT,
            emit=lambda event: show_release(event, screen),
        )
        aside = _follow(workload, held, ledger)
    except KeyboardInterrupt:
        typer.echo(f"left to whoever carries it on: penstock release run {workload}")
        raise typer.Exit(EXIT["interrupted"]) from None
    finally:
        screen.stop()
        ledger.close()
    for branch in branches:
        console.print(row(branch.id, branch.seconds, branch.outcome, branch.reason))
    if aside:
        console.print(plain(aside))
    raise typer.Exit(_code(branches))


def _follow(workload: str, held: Home, ledger: Ledger) -> str:
    """Let MLflow's aliases follow the ledger; return what to do where they could not."""
    actor = Actor.load(held.key())
    return try_to_follow(workload, mlflow, ledger, actor=actor, now=datetime.now(UTC))


def _code(branches: Sequence[Branch]) -> int:
    outcomes = sorted((b.outcome for b in branches), key=WORST.index)
    return EXIT[outcomes[0]] if outcomes else 0


for verb in (
    releases.status,
    releases.explain,
    releases.timeline,
    approvals.approve,
    approvals.refuse,
    approvals.attach,
    approvals.documents,
    commands.pause,
    commands.resume,
    commands.abort,
    commands.promote,
    commands.rollback,
    drill.drill,
):
    app.command()(verb)
app.command(name="list")(releases.list_)
