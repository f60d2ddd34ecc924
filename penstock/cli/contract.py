"""``penstock contract``: see what a workload's features are promised to be, and sign it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from penstock.cli.home import home
from penstock.cli.screen import terminal
from penstock.ledger import Actor
from penstock.register import featurecontract
from penstock.workload import load

app = typer.Typer(
    help="The feature contract of a workload: definitions, schema, freshness, quality, holder.",
    no_args_is_help=True,
)

Workload = Annotated[str, typer.Argument(help="Folder below workloads/.")]


@app.command()
def show(workload: Workload) -> None:
    """Show the contract as it is declared now, and who has signed it.

    Example: penstock contract show credit
    """
    declared, console = load(workload), terminal()
    contract = featurecontract.present(declared)
    digest = featurecontract.digest_of(contract)
    ledger = home().ledger()
    try:
        entries = ledger.entries(workload)
        standing = featurecontract.standings(ledger)
    finally:
        ledger.close()
    signed = featurecontract.signature(entries, digest, declared=declared, standing=standing)
    console.print(f"contract {digest[7:19]} of {workload}, held by {contract['holder']}")
    console.print(f"definitions {contract['definitions'][7:19]}, {contract['feature_service']}")
    console.print(_schema(contract))
    for promise in contract["freshness"]:
        hours = promise["max_staleness"] / 3600
        console.print(f"{promise['feature']}: at most {hours:g} h old, else {promise['on_stale']}")
    console.print(
        f"not signed; penstock contract sign {workload}"
        if signed is None
        else f"signed by {signed.actor} at {signed.at[:19]}, entry {signed.sequence}"
    )


def _schema(contract: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("column", "type", "from", "to", "missing"):
        table.add_column(name)
    for column in contract["schema"]:
        low, high = ("" if column[n] is None else f"{column[n]:g}" for n in ("low", "high"))
        missing = f"up to {column['max_missing']:.0%}" if column["nullable"] else "none"
        table.add_row(column["name"], escape(column["dtype"]), low, high, missing)
    return table


@app.command()
def sign(workload: Workload) -> None:
    """Sign the contract as it is declared now; a changed one needs a new signature.

    Example: penstock contract sign credit
    """
    declared, held = load(workload), home()
    contract = featurecontract.present(declared)
    ledger = held.ledger()
    try:
        actor = Actor.load(held.key())
        entry = featurecontract.sign(ledger, declared, contract, actor=actor, now=datetime.now(UTC))
    finally:
        ledger.close()
    digest = featurecontract.digest_of(contract)
    typer.echo(
        f"{entry.actor} signed contract {digest[7:19]} of {workload}, entry {entry.sequence}"
    )
