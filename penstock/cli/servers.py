"""The verbs around the servers of this machine: up, down, status, logs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.home import Home, HomeError, home, refuse_during_a_run
from penstock.cli.status import asked_for
from penstock.ledger import Actor, champion
from penstock.register.reconcile import try_to_follow
from penstock.register.step import mlflow
from penstock.rollout import kill, killroll, notify
from penstock.rollout import step as rollout
from penstock.rollout.access import Access, read_tokens
from penstock.rollout.plane import Plane
from penstock.workload import load

PORT = 8780

Workload = Annotated[str, typer.Argument(help="Folder below workloads/.")]
Port = Annotated[
    int | None,
    typer.Option(
        min=1, max=65535, help=f"Where users are answered, on loopback; {PORT}, or where they are.",
        show_default=False,
    ),
]  # fmt: skip


def up(
    workload: Workload = "digits",
    port: Port = None,
    token: Annotated[
        Path | None, typer.Option(help="File of lines NAME TOKEN; only these callers may ask.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate of the edge, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM, mode 600.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="Only clients with a certificate of these, PEM.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="Address; others than loopback need all that.")
    ] = None,
    open_to_all: Annotated[
        bool,
        typer.Option("--open", help="Forget what is remembered; only what is named here holds."),
    ] = False,
) -> None:
    """Start the servers and let the champion answer.

    Example: penstock up digits

    Who may ask is remembered. What is named here is changed, also while the servers run, and the
    rest stays; only --open takes a protection away.
    """
    load(workload)
    held = home()
    refuse_during_a_run(held, "up")
    named = Named(token=token, cert=tls_cert, key=tls_key, clients=client_ca, listen=listen)
    access = _access(held, named, open_to_all=open_to_all)
    at = port or Plane.port(held.path) or PORT
    if Plane.running(held.path):
        # Whoever serves another model here is the obstacle, whatever else there may be.
        Plane.may_serve(held.path, model=workload, port=at)
    ledger = held.ledger()
    try:
        entries = ledger.entries(workload)
        killroll.remember(held.path, ledger)
        serving = champion(entries)
        if serving is None:
            raise HomeError(f"{workload} has no champion yet; release one: penstock run {workload}")
        # Before the servers start, which inherit them.
        os.environ.update(held.environment())
        limits = rollout.promised(entries, serving)
        plane = Plane.up(held.path, model=workload, port=at, access=access, endpoint=limits)
        version = rollout.serve_champion(plane, ledger, workload)
        actor, moment = Actor.load(held.key()), datetime.now(UTC)
        with notify.notifying(held.path, ledger.entries):
            kill.reconcile(ledger, actor, home=held.path, workload=workload, now=moment)
        aside = try_to_follow(workload, mlflow, ledger, actor=actor, now=moment)
    finally:
        ledger.close()
    if aside:
        typer.echo(f"penstock: {aside}", err=True)
    typer.echo(f"version {version} of {workload} answers at {plane.url}/v2/models/{workload}/infer")
    typer.echo(f"who may ask: {asked_for(plane.status())}")


@dataclass(frozen=True, kw_only=True)
class Named:
    """What was said about who may ask; None where nothing was."""

    token: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    clients: Path | None = None
    listen: str | None = None

    def changes(self) -> dict[str, Any]:
        """Return the fields of Access that were named.

        Raises:
            AccessError: The token file cannot be used.
        """
        said: dict[str, Any] = {
            "tokens": None if self.token is None else read_tokens(self.token),
            "certificate": _absolute(self.cert),
            "key": _absolute(self.key),
            "clients": _absolute(self.clients),
            "listen": self.listen,
        }
        return {name: value for name, value in said.items() if value is not None}


def _access(held: Home, named: Named, *, open_to_all: bool) -> Access | None:
    """Return who may ask from now on, None when nothing was said about it.

    Raises:
        AccessError: It cannot be used.
    """
    changes = named.changes()
    if open_to_all:
        return Access(**changes)
    return (
        replace(Access.load(held.path / "serving" / "access.json"), **changes) if changes else None
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def down() -> None:
    """Stop every server of this home.

    Example: penstock down
    """
    held = home()
    refuse_during_a_run(held, "down")
    if Plane.running(held.path):
        Plane.attach(held.path).down()
        typer.echo("stopped")
        return
    left = Plane(held.path).sweep()
    typer.echo(
        f"ended {left} processes of a supervisor that died" if left else "nothing is running"
    )
