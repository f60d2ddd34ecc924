"""The ``penstock ledger`` verbs: show, verify, export, and who may sign."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from penstock.cli.home import home
from penstock.cli.screen import plain, terminal
from penstock.ledger import (
    Actor,
    Audit,
    Broken,
    Head,
    Ledger,
    LedgerError,
    export,
    export_broken,
    verify_export,
)
from penstock.ledger.actors import read_public_key
from penstock.rollout import killroll

app = typer.Typer(
    help="Show and verify the record of every release decision, and say who may sign.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(help="Name of the actor.")]
SHORT = 12
"""Digits of a hash or fingerprint that are shown."""


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    workload: Annotated[str | None, typer.Option(help="Only this workload's entries.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many entries to show.")] = 20,
) -> None:
    """Show the newest entries, and whether the ledger verifies.

    Example: penstock ledger --last 5

    Exit codes: as of penstock ledger verify.
    """
    if context.invoked_subcommand is not None:
        return
    with _judged(), _looking() as ledger:
        rows = (row for row in ledger.rows() if workload in (None, row["workload"]))
        table = _table("entry", "at", "who", "workload", "version", "what", "why")
        for row in deque(rows, maxlen=last):
            table.add_row(*map(plain, _cells(row)))
        terminal().print(table)
        _conclude(ledger.audit(), ledger)


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Option(help="An export to verify instead of this home's ledger.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="An end the chain is known to have had: SEQUENCE:HASH, as verify shows."),
    ] = None,
) -> None:
    """Check every hash, signature and move; name the first entry that is wrong.

    Example: penstock ledger verify --file ledger.jsonl

    Exit codes: 0 whole; 1 an entry was altered, removed, replaced or put in, or the table is not
    guarded; 2 wrong call, or no ledger there.
    """
    known = None if head is None else _head(head)
    with _judged():
        if file is not None:
            checked = verify_export(file, head=known)
            _say_head(checked)
            _say(checked, "" if known else "not held against a known head, name one by --head")
            return
        with _looking() as ledger:
            checked = ledger.audit(known)
            _say_head(checked)
            _conclude(checked, ledger, held=known is not None)


@app.command(name="export")
def export_(
    out: Annotated[Path, typer.Option(help="File to write, JSON Lines; must not exist.")],
    broken: Annotated[
        bool, typer.Option("--broken", help="Keep what is there of a ledger that is broken.")
    ] = False,
) -> None:
    """Write every entry to a file that can be verified without this home.

    Example: penstock ledger export --out ledger.jsonl
    """
    with _judged(), _looking() as ledger:
        if broken:
            found = export_broken(ledger, out)
            terminal().print(plain(f"wrote {out}, marked as broken: {found}"), soft_wrap=True)
            return
        checked = export(ledger, out, actor=Actor.load(home().key()))
        terminal().print(plain(f"wrote {out}"), soft_wrap=True)
        _conclude(checked, ledger)


@app.command()
def actors() -> None:
    """Show who may sign, with which key and in which roles.

    Example: penstock ledger actors
    """
    with _judged(), _looking() as ledger:
        enrolled = ledger.actors()
    table = _table("actor", "key", "roles", "")
    for actor in enrolled:
        revoked = "revoked" if actor.revoked else ""
        roles = ", ".join(sorted(actor.roles))
        table.add_row(*map(plain, (actor.name, actor.key_id[:SHORT], roles, revoked)))
    terminal().print(table)
    if not enrolled:
        terminal().print("nobody yet: whoever makes the first entry is enrolled as admin")


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="File to write; FILE.pub is written beside it.")],
    name: Annotated[str, typer.Option(help="Whose key it is.")],
) -> None:
    """Make a key; its FILE.pub is for an admin to enrol, the file itself for nobody else.

    Example: penstock ledger key ann.pem --name ann
    """
    made = Actor.create(file, name=name)
    typer.echo(f"wrote {file}, key {made.key_id[:SHORT]} of {name}; give an admin {file}.pub")


@app.command()
def enrol(
    name: Name,
    public_key: Annotated[Path, typer.Option(help="The .pub file made beside their key.")],
    role: Annotated[list[str], typer.Option(help="What they may do; repeat for more.")],
) -> None:
    """Let someone sign, or give them another key or other roles; for admins.

    Example: penstock ledger enrol ann --public-key ann.pem.pub --role owner --role validator
    """
    held, public = home(), read_public_key(public_key)
    with _opened() as ledger:
        entry = ledger.enrol(
            name=name,
            public_key=public,
            roles=role,
            actor=Actor.load(held.key()),
            now=datetime.now(UTC),
        )
        _remember_throwers(ledger)
    typer.echo(f"entry {entry.sequence}: {entry.actor} enrolled {name} as {', '.join(role)}")


@app.command()
def revoke(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the entry.")],
) -> None:
    """Let someone sign no more; for admins.

    What they signed stays in the ledger. What of it is open counts no more: approvals of a step
    that was not entered yet, commands that nothing has answered.

    Example: penstock ledger revoke ann --reason 'left the company'
    """
    actor = Actor.load(home().key())
    with _opened() as ledger:
        entry = ledger.revoke(name=name, reason=reason, actor=actor, now=datetime.now(UTC))
        _remember_throwers(ledger)
    typer.echo(f"entry {entry.sequence}: {entry.actor} revoked {name}")


def _remember_throwers(ledger: Ledger) -> None:
    """Copy who may throw the kill switch, where there are servers of which it is the switch."""
    held = home()
    if not (held.path / "serving").exists():
        return
    try:
        killroll.remember(held.path, ledger)
    except (LedgerError, OSError) as e:
        typer.echo(f"the kill switch still knows who was known before: {e}", err=True)


@contextmanager
def _opened() -> Iterator[Ledger]:
    ledger = home().ledger()
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def _looking() -> Iterator[Ledger]:
    """Open a ledger that may be broken; none is made."""
    ledger = home().ledger(looking=True)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def _judged() -> Iterator[None]:
    """Say what is wrong with a chain, and end with the code for it."""
    try:
        yield
    except Broken as e:
        said = plain(f" ({e.problem}): {e}")
        terminal().print(Text.assemble(("broken", "bold red"), said))
        raise typer.Exit(1) from e


def _conclude(checked: Audit, ledger: Ledger, *, held: bool = False) -> None:
    """Say that the chain is whole, as far as that is known, and whether its table is guarded.

    Args:
        held: It was held against a head that the caller knows.
    """
    unknown = ""
    if not held and checked.head.sequence and not ledger.known().sequence:
        where = "" if ledger.anchor is None else f" in {ledger.anchor}"
        unknown = f"no anchor is kept{where}, set PENSTOCK_LEDGER_HEAD"
    _say(checked, unknown)
    if lacking := ledger.unguarded():
        said = plain(f": {', '.join(lacking)}; nothing is entered here until they are back")
        terminal().print(Text.assemble(("not guarded", "bold red"), said))
        raise typer.Exit(1)


def _say(checked: Audit, unknown: str) -> None:
    """Say that the chain is whole, or why it may be longer, and for how long it must be kept."""
    console, length = terminal(), checked.head.sequence
    if unknown:
        said = plain(f"{length} entries, whole as far as it goes: {unknown}")
        console.print(said, soft_wrap=True)
    else:
        console.print(f"{length} entries, chain whole, every signature valid", style="green")
    if checked.keep_until is not None:
        console.print(plain(f"to be kept until {checked.keep_until}; nothing is ever deleted"))


def _say_head(checked: Audit) -> None:
    terminal().print(
        f"head {checked.head.sequence}:{checked.head.hash}", style="dim", soft_wrap=True
    )


def _head(text: str) -> Head:
    sequence, _, hash_ = text.partition(":")
    if not sequence.isdecimal() or len(hash_) != 64:
        raise ValueError(f"{text!r} is no head; copy SEQUENCE:HASH from penstock ledger verify.")
    return Head(int(sequence), hash_)


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Return a row for people; one that was altered may hold anything."""
    what = f"{row['kind']} to {row['target']}" if row["target"] else row["kind"]
    if row["subject"] is not None:
        what = f"{row['kind']} {row['subject']}"
    version = "" if row["version"] is None else row["version"]
    when = str(row["at"])[:19].replace("T", " ")
    return row["sequence"], when, row["actor"], row["workload"], version, what, _why(row)[:90]


def _why(row: Mapping[str, Any]) -> str:
    try:
        body = json.loads(row["body"])
        return str(body.get("reason") or body.get("why") or "")
    except (ValueError, AttributeError, TypeError):
        return "its body cannot be read"


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table
