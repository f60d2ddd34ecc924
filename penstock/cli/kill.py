"""``penstock kill``: everybody to the declared fallback, whoever else is dead; and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.asked import Key, Reason, acting, opened
from penstock.cli.home import Home, home
from penstock.ledger import LedgerError
from penstock.rollout import kill as killing
from penstock.rollout import killserver, notify, switch
from penstock.rollout.plane import Plane
from penstock.rollout.ports import TableError

CONFIRMED_S = 2.0

app = typer.Typer(
    help="Send everybody to the declared fallback, at once; only a person clears it.",
    invoke_without_command=True,
)


@app.callback()
def kill(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why; goes into the ledger.")] = "",
    to: Annotated[
        str | None, typer.Option(help="Slot: a, b or rules; the table's own fallback by default.")
    ] = None,
    key: Key = None,
) -> None:
    """Send everybody to the declared fallback, at once.

    Example: penstock kill --reason 'refuses applicants of one district'

    It writes files and needs neither ledger nor controller nor supervisor. For compliance,
    operator and admin.
    """
    if context.invoked_subcommand is not None:
        return
    held = home()
    begun = time.monotonic()
    done = killing.throw(held.path, acting(held, key), reason=reason, to=to, now=datetime.now(UTC))
    took = _until(lambda: _in_force(held) == done.to, begun)
    where = f"slot {done.to}" + (f", version {done.version}" if done.version else "")
    said = "holds when the servers start" if took is None else f"in force after {took:.0f} ms"
    typer.echo(f"everybody goes to {where}: {said}")
    if done.killed:
        typer.echo(f"versions {', '.join(done.killed)} answer nobody until: penstock kill clear")
    _entered(held, key)


def _in_force(held: Home) -> str | None:
    try:
        return Plane(held.path).switch_in_force()
    except TableError:
        return None


def _until(true: Callable[[], bool], begun: float) -> float | None:
    """Return the milliseconds until something was true, None where it was not, in time."""
    while time.monotonic() - begun < CONFIRMED_S:
        if true():
            return (time.monotonic() - begun) * 1000
        time.sleep(0.01)
    return None


def _entered(held: Home, key: Path | None) -> None:
    """Enter it in the ledger now, where that can be; else whoever has it next does."""
    workload = Plane(held.path).model()
    try:
        with opened() as (_, ledger), notify.notifying(held.path, ledger.entries):
            killing.reconcile(
                ledger, acting(held, key), home=held.path, workload=workload, now=datetime.now(UTC)
            )
    except (LedgerError, OSError) as e:
        typer.echo(f"the ledger cannot be written now and will be later: {e}", err=True)


@app.command()
def clear(reason: Reason, key: Key = None) -> None:
    """Let traffic tables decide again. For compliance and admin alone.

    Example: penstock kill clear --reason 'version 3 is archived' --key compliance.pem
    """
    with opened() as (held, ledger):
        workload = Plane(held.path).model()
        actor, now = acting(held, key), datetime.now(UTC)
        with notify.notifying(held.path, ledger.entries):
            killing.clear(held.path, ledger, actor, workload=workload, reason=reason, now=now)
    typer.echo("the kill switch is off; traffic goes by its tables")


@app.command()
def show() -> None:
    """Tell whether the switch is thrown, by whom, and where it leads.

    Example: penstock kill show

    Exit codes: 0 it is off; 1 it is thrown.
    """
    held = home()
    found = killing.killed(held.path)
    if found is None:
        typer.echo("the kill switch is off")
        return
    typer.echo(f"since {found.at or 'an unknown time'}: {found}")
    raise typer.Exit(1)


@app.command()
def token(name: Annotated[str, typer.Argument(help="Who will hold it.")], key: Key = None) -> None:
    """Make a token with which one HTTP call throws the switch; it is shown once.

    Example: penstock kill token compliance-desk
    """
    held = home()
    killing.check_person(held.path, acting(held, key))
    made, port = killserver.new_token(held.path, name)
    typer.echo(made)
    typer.echo(
        f"curl -X POST http://127.0.0.1:{port}/kill -H 'authorization: Bearer TOKEN' "
        '-d \'{"reason": "why"}\'',
        err=True,
    )


@app.command()
def where() -> None:
    """Print the two commands by which it is thrown by hand, with nothing of this package.

    Example: penstock kill where
    """
    folder = switch.folder_of(home().path / "serving")
    typer.echo(f"cd {folder} && ln -s to-a now && mv -T now current")
    typer.echo("# to-b or to-rules instead of to-a for another slot")
