"""The ``penstock ledger`` verbs: show, verify, export, and who may sign."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from penstock.cli.home import home
from penstock.cli.screen import terminal
from penstock.ledger import (
    Actor,
    Audit,
    Broken,
    Entry,
    Head,
    Ledger,
    export,
    verify_export,
)
from penstock.ledger.actors import read_public_key

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
    """Verify the ledger and show its newest entries.

    Example: penstock ledger --last 5
    """
    if context.invoked_subcommand is not None:
        return
    with _judged(), _opened() as ledger:
        checked, shown = ledger.audit(), ledger.entries(workload)[-last:]
    table = _table("entry", "at", "who", "workload", "version", "what", "why")
    for entry in shown:
        table.add_row(*_cells(entry))
    terminal().print(table)
    _conclude(checked)


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

    Exit codes: 0 whole; 1 an entry was altered, removed, replaced or put in; 2 wrong call.
    """
    known = None if head is None else _head(head)
    with _judged():
        if file is not None:
            checked = verify_export(file, head=known)
        else:
            with _opened() as ledger:
                checked = ledger.audit(known)
    terminal().print(
        f"head {checked.head.sequence}:{checked.head.hash}", style="dim", soft_wrap=True
    )
    _conclude(checked)


@app.command(name="export")
def export_(
    out: Annotated[Path, typer.Option(help="File to write, JSON Lines; must not exist.")],
) -> None:
    """Write every entry to a file that can be verified without this home.

    Example: penstock ledger export --out ledger.jsonl
    """
    with _judged(), _opened() as ledger:
        checked = export(ledger, out)
    terminal().print(f"wrote {out}", soft_wrap=True)
    _conclude(checked)


@app.command()
def actors() -> None:
    """Show who may sign, with which key and in which roles.

    Example: penstock ledger actors
    """
    with _opened() as ledger:
        enrolled = ledger.actors()
    table = _table("actor", "key", "roles", "")
    for actor in enrolled:
        revoked = "revoked" if actor.revoked else ""
        table.add_row(actor.name, actor.key_id[:SHORT], ", ".join(sorted(actor.roles)), revoked)
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
    typer.echo(f"entry {entry.sequence}: {entry.actor} enrolled {name} as {', '.join(role)}")


@app.command()
def revoke(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; kept in the entry.")],
) -> None:
    """Let someone sign no more; for admins. What they signed stays valid.

    Example: penstock ledger revoke ann --reason 'left the company'
    """
    actor = Actor.load(home().key())
    with _opened() as ledger:
        entry = ledger.revoke(name=name, reason=reason, actor=actor, now=datetime.now(UTC))
    typer.echo(f"entry {entry.sequence}: {entry.actor} revoked {name}")


@contextmanager
def _opened() -> Iterator[Ledger]:
    ledger = Ledger(home().ledger_url)
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
        terminal().print(Text.assemble(("broken", "bold red"), f" ({e.problem}): {e}"))
        raise typer.Exit(1) from e


def _conclude(checked: Audit) -> None:
    """Say that the chain is whole, and last for how long it must be kept."""
    console, length = terminal(), checked.head.sequence
    console.print(f"{length} entries, chain whole, every signature valid", style="green")
    if checked.keep_until is not None:
        console.print(f"to be kept until {checked.keep_until}; nothing is ever deleted")


def _head(text: str) -> Head:
    sequence, _, hash_ = text.partition(":")
    if not sequence.isdecimal() or len(hash_) != 64:
        raise ValueError(f"{text!r} is no head; copy SEQUENCE:HASH from penstock ledger verify.")
    return Head(int(sequence), hash_)


def _cells(entry: Entry) -> tuple[str, ...]:
    body = entry.body
    what = f"{entry.kind} to {entry.target}" if entry.target else entry.kind
    if entry.subject is not None:
        what = f"{entry.kind} {entry.subject}"
    why = str(body.get("reason") or body.get("why") or "")
    version = "" if entry.version is None else str(entry.version)
    when = entry.at[:19].replace("T", " ")
    return str(entry.sequence), when, entry.actor, entry.workload, version, what, why[:90]


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table
