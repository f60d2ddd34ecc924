"""``penstock retire``: end a version for good, and keep what it was."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.cli.home import home, locked
from penstock.ledger import Actor
from penstock.register import retire as retirement
from penstock.register.step import mlflow
from penstock.workload import load


def retire(
    workload: Annotated[str, typer.Argument(help="Folder below workloads/.")],
    version: Annotated[int, typer.Argument(min=1, help="Number of the version.")],
    reason: Annotated[str, typer.Option(help="Why; goes into the ledger.")],
) -> None:
    """End a version: archive its package, let nobody serve it again, keep its record.

    Example: penstock retire digits 3 --reason "replaced by version 6"

    The champion and the versions that users may have to return to are refused.
    """
    declared, held = load(workload), home()
    with locked(held):
        os.environ.update(held.environment())
        ledger = held.ledger()
        try:
            entry = retirement.retire(
                declared,
                version,
                reason=reason,
                archive=held.path / "archive",
                opened=mlflow,
                ledger=ledger,
                actor=Actor.load(held.key()),
                now=datetime.now(UTC),
            )
        finally:
            ledger.close()
    body = entry.body
    typer.echo(
        f"version {version} of {workload} is retired; {body['archive']} holds it and is kept until "
        f"{body['keep_until'][:10]}"
    )
