"""The verbs around the servers of this machine: up, down, status, logs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.home import HomeError, home
from penstock.cli.screen import plain, row, terminal
from penstock.ledger import Actor, champion
from penstock.register.reconcile import try_to_follow
from penstock.register.step import mlflow
from penstock.rollout import step as rollout
from penstock.rollout.access import LOOPBACK, Access, AccessError, read_tokens
from penstock.rollout.plane import Plane
from penstock.rollout.table import BUCKETS, TrafficTable
from penstock.workload import load

PORT = 8780
STALE_S = 5.0
"""What was seen longer ago is no news: the supervisor looks ten times a second."""

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
    listen: Annotated[str, typer.Option(help="Address; others than loopback need all that.")] = (
        LOOPBACK
    ),
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Forget tokens, certificates and address.")
    ] = False,
) -> None:
    """Start the servers and let the champion answer.

    Example: penstock up digits

    Who may ask is remembered; name it again, all of it, to change it while the servers run.
    """
    load(workload)
    access = _access(token, tls_cert, tls_key, client_ca, listen, open_to_all=open_to_all)
    held = home()
    ledger = held.ledger()
    try:
        if champion(ledger.entries(workload)) is None:
            raise HomeError(f"{workload} has no champion yet; release one: penstock run {workload}")
        # Before the servers start, which inherit them.
        os.environ.update(held.environment())
        at = port or Plane.port(held.path) or PORT
        plane = Plane.up(held.path, model=workload, port=at, access=access)
        version = rollout.serve_champion(plane, ledger, workload)
        actor, moment = Actor.load(held.key()), datetime.now(UTC)
        aside = try_to_follow(workload, mlflow, ledger, actor=actor, now=moment)
    finally:
        ledger.close()
    if aside:
        typer.echo(f"penstock: {aside}", err=True)
    typer.echo(f"version {version} of {workload} answers at {plane.url}/v2/models/{workload}/infer")


def _access(
    token: Path | None,
    certificate: Path | None,
    key: Path | None,
    clients: Path | None,
    listen: str,
    *,
    open_to_all: bool,
) -> Access | None:
    """Return who may ask from now on, None when nothing was said about it.

    Raises:
        AccessError: It cannot be used.
    """
    named = any((token, certificate, key, clients)) or listen != LOOPBACK
    if named and open_to_all:
        raise AccessError("--open forgets what the other options set; give one or the other.")
    if not named and not open_to_all:
        return None
    return Access(
        tokens=read_tokens(token) if token else {},
        certificate=_absolute(certificate),
        key=_absolute(key),
        clients=_absolute(clients),
        listen=listen,
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def down() -> None:
    """Stop every server of this home.

    Example: penstock down
    """
    held = home()
    if Plane.running(held.path):
        Plane.attach(held.path).down()
        typer.echo("stopped")
        return
    left = Plane(held.path).sweep()
    typer.echo(
        f"ended {left} processes of a supervisor that died" if left else "nothing is running"
    )


def status() -> None:
    """Show what serves: slots, versions, share of users, crashes, what the log has lost.

    Example: penstock status

    Exit codes: 0 runs; 1 nothing runs.
    """
    console, held = terminal(), home()
    if not Plane.running(held.path):
        console.print(f"nothing is running; {called()} up starts the servers")
        raise typer.Exit(1)
    plane = Plane.attach(held.path)
    table, seen = plane.observe(), plane.status()
    console.print(plain(f"{seen['model']} at {plane.url}, table {table.sequence}, {_seen(seen)}"))
    console.print(row("edge", None, "ready" if seen["envoy"] else "waiting", _edge(seen)))
    for slot, state in seen["slots"].items():
        lost = losses(plane.log_folder(slot))
        console.print(row(f"slot {slot}", None, state["state"], _slot(slot, state, table, lost)))


def _seen(seen: Mapping[str, Any]) -> str:
    age_s = max(0.0, time.time() - seen["at"])
    alarm = "; the supervisor does not answer" if age_s > STALE_S else ""
    return f"seen {age_s:.1f} s ago{alarm}"


def _edge(seen: Mapping[str, Any]) -> str:
    asks = f"tokens of {', '.join(seen['tokens'])}" if seen["tokens"] else "no token"
    words = ["TLS" if seen["tls"] else "no TLS", asks, f"admin {seen['admin']}"]
    if seen["clients"]:
        words.insert(1, "client certificates")
    words += _crashes(seen["edge_restarts"], seen["edge_error"], looping=seen["edge_looping"])
    if seen["access_error"]:
        words.append(f"who may ask is as it was: {seen['access_error']}")
    return ", ".join(words)


def _slot(slot: str, state: Mapping[str, Any], table: TrafficTable, lost: int) -> str:
    if not state.get("version"):
        return "empty"
    words = [f"version {state['version']}", _share(slot, table), f"process {state['pid']}"]
    words.append(f"port {state['port']}")
    if state["metrics_port"]:
        words.append(f"metrics {state['metrics_port']}")
    if state["seconds"] is not None:
        words.append(f"ready after {state['seconds']:.1f} s")
    words += _crashes(state["restarts"], state["error"], looping=state["looping"])
    if lost:
        words.append(f"predictions lost: {lost}")
    return ", ".join(words)


def _crashes(restarts: int, error: str, *, looping: bool) -> list[str]:
    found = ["CRASH LOOP"] if looping else []
    if restarts:
        found.append(f"restarted {restarts} times")
    return [*found, f"last error: {error}"] if error else found


def _share(slot: str, table: TrafficTable) -> str:
    percent = 100 * table.buckets / BUCKETS
    if slot == table.champion:
        return f"{100 - percent:.0f} % of users"
    if slot == table.challenger:
        return f"{percent:.0f} % of users"
    return "a copy of every request" if slot == table.mirror else "no users"


def losses(folder: Path) -> int:
    """Return how many predictions a slot's log has counted as not kept."""
    try:
        held = json.loads((folder / "counters.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return int(held.get("dropped", 0)) + int(held.get("failed", 0))


def called() -> str:
    """Return how this command was called, so that what is printed can be typed."""
    return shown(sys.argv[0]) if "/" in sys.argv[0] else "penstock"


def shown(path: str | None) -> str:
    """Return a path as seen from here, where that is shorter."""
    if path is None:
        return ""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
