"""``penstock kill``: everybody to the declared fallback, whoever else is dead; and how it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.asked import Key, Reason, acting, opened
from penstock.cli.home import Home, home
from penstock.cli.screen import plain, terminal
from penstock.ledger import Actor, KeyFileError, LedgerError
from penstock.ledger.actors import KEY_VARIABLE
from penstock.rollout import kill as killing
from penstock.rollout import killeffect, killroll, killtokens, notify, switch
from penstock.rollout.plane import Plane, PlaneError
from penstock.rollout.ports import TableError
from penstock.stage import Refused

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

    Exit codes: 0 it is in force, or holds when the servers start; 1 it is written, and not seen to
    be in force.
    """
    if context.invoked_subcommand is not None:
        return
    held = home()
    begun = time.monotonic()
    done = _thrown(held, acting(held, key), reason=reason, to=to)
    took = _until(lambda: _in_force(held) == done.to, begun)
    where = f"slot {done.to}" + (f", version {done.version}" if done.version else "")
    _say(f"everybody goes to {where}: {_seen(held, took)}")
    if done.killed:
        _say(f"nobody is answered by version {', '.join(done.killed)} until: penstock kill clear")
    _refreshed(held)
    _entered(held, acting(held, key))
    if took is None and Plane.running(held.path):
        raise typer.Exit(1)


def _say(text: str) -> None:
    terminal().print(plain(text), soft_wrap=True)


def _thrown(held: Home, actor: Actor, *, reason: str, to: str | None) -> killing.Request:
    """Throw it by what is known here; whom that does not know may be new in the ledger."""
    try:
        return killing.throw(held.path, actor, reason=reason, now=datetime.now(UTC), to=to)
    except killing.NotAllowed:
        _refreshed(held)
        return killing.throw(held.path, actor, reason=reason, now=datetime.now(UTC), to=to)


def _seen(held: Home, took_ms: float | None) -> str:
    if took_ms is not None:
        return f"in force after {took_ms:.0f} ms"
    if Plane.running(held.path):
        return f"written, NOT confirmed after {CONFIRMED_S:.0f} s: penstock status"
    return "written; no servers run here, it holds when they start"


def _refreshed(held: Home) -> None:
    """Copy who may throw it out of the ledger, where that can be read."""
    try:
        ledger = held.ledger(looking=True)
        try:
            killroll.remember(held.path, ledger)
        finally:
            ledger.close()
    except (LedgerError, OSError) as e:
        said = f"who may throw it is known as it was last, the ledger cannot be read now: {e}"
        typer.echo(plain(said).plain, err=True)


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


def _entered(held: Home, actor: Actor) -> None:
    """Enter it in the ledger now, where that can be; else whoever has it next does."""
    try:
        workload = Plane(held.path).model()
        with opened() as (_, ledger), notify.notifying(held.path, ledger.entries):
            killing.reconcile(
                ledger, actor, home=held.path, workload=workload, now=datetime.now(UTC)
            )
    except (LedgerError, PlaneError, OSError) as e:
        said = f"it is not in the ledger, which cannot be written now; it will be later: {e}"
        typer.echo(plain(said).plain, err=True)


@app.command()
def clear(
    reason: Reason,
    key: Key = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Though users go to a version that was killed.")
    ] = False,
) -> None:
    """Let traffic tables decide again. For compliance and admin alone.

    Example: penstock kill clear --reason 'version 3 is archived' --key compliance.pem
    """
    with opened() as (held, ledger):
        workload = Plane(held.path).model()
        actor, now = acting(held, key), datetime.now(UTC)
        thrown = killing.killed(held.path)
        exposing = "" if thrown is None else killeffect.exposing(held.path / "serving", thrown)
        if exposing and not anyway:
            raise Refused(
                f"{exposing}; first return its users: penstock release rollback; or, where it is "
                "as good as it was: --anyway"
            )
        with notify.notifying(held.path, ledger.entries):
            killing.clear(held.path, ledger, actor, workload=workload, reason=reason, now=now)
    typer.echo("the kill switch is off; traffic goes by its tables")


@app.command()
def show(key: Key = None) -> None:
    """Tell whether the switch is thrown, by whom, and where it leads.

    Example: penstock kill show

    What was thrown over HTTP or by hand is entered in the ledger, where you have a key.

    Exit codes: 0 it is off; 1 it is thrown.
    """
    held = home()
    found = killing.killed(held.path)
    _say("the kill switch is off" if found is None else _told(found))
    if killing.unrecorded(held.path) or (found is not None and not found.id):
        _enter_as_whoever_looks(held, key)
    if found is not None:
        raise typer.Exit(1)


def _told(found: killing.Request) -> str:
    return f"since {found.at or 'an unknown time'}: {found}"


def _enter_as_whoever_looks(held: Home, key: Path | None) -> None:
    """Enter what is not in the ledger yet; to look alone makes nobody a key."""
    if key is None and not (os.environ.get(KEY_VARIABLE) or (held.path / "actor.pem").exists()):
        typer.echo(
            "it is not in the ledger yet; with a key: penstock kill show --key FILE", err=True
        )
        return
    try:
        _entered(held, acting(held, key))
    except KeyFileError as e:
        typer.echo(plain(f"it is not in the ledger yet: {e}").plain, err=True)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who will hold it.")],
    key: Key = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it away instead.")] = False,
) -> None:
    """Make a token with which one HTTP call throws the switch; it is shown once, as a header.

    Example: (umask 077; penstock kill token compliance-desk > kill.header)

    It counts while its maker may throw the switch.
    """
    held = home()
    _refreshed(held)
    if revoke:
        killtokens.revoke(held.path, name, acting(held, key))
        _say(f"the token {name} counts no more")
        return
    made, port = killtokens.new_token(held.path, name, acting(held, key))
    typer.echo(f"authorization: Bearer {made}")
    typer.echo(
        f'curl -X POST http://127.0.0.1:{port}/kill -H @kill.header -d \'{{"reason": "why"}}\'',
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
