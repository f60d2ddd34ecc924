"""``penstock register reconcile``: hold MLflow against the ledger, and mend what can be mended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.cli.home import home
from penstock.ledger import Actor, Ledger
from penstock.register import reconcile as reconciling
from penstock.register.reconcile import Difference, Remedy
from penstock.register.registry import Registry
from penstock.register.step import mlflow


def reconcile(
    workload: Annotated[
        str | None, typer.Argument(help="Folder below workloads/; all by default.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only look.")] = False,
) -> None:
    """Find where MLflow says another than the ledger, and mend what can be mended.

    Example: penstock register reconcile digits --check

    Exit codes: 0 both agree, or do now; 1 something needs a person, or --check found what this
    command would mend; 2 wrong call.
    """
    held = home()
    os.environ.update(held.environment())
    ledger = held.ledger()
    try:
        named = [workload] if workload else _workloads(ledger)
        registry, actor = mlflow(), Actor.load(held.key())
        with registry.alone():
            clean = [_reconciled(name, registry, ledger, actor, check=check) for name in named]
    finally:
        ledger.close()
    if not all(clean):
        raise typer.Exit(1)


def _workloads(ledger: Ledger) -> list[str]:
    return sorted({entry.workload for entry in ledger.entries() if entry.workload})


def _reconciled(
    workload: str, registry: Registry, ledger: Ledger, actor: Actor, *, check: bool
) -> bool:
    """Print the differences of one workload; return whether none is left that matters."""
    found = reconciling.reconcile(registry, workload, ledger.entries(workload))
    mended: Sequence[Difference] = ()
    if not check:
        mended = reconciling.repair(
            registry, ledger, workload, found, actor=actor, now=datetime.now(UTC)
        )
    for difference in found:
        typer.echo(f"{workload}: {difference.text}: {_said(difference, difference in mended)}")
    if not found:
        typer.echo(f"{workload}: registry and ledger agree")
    return all(d.remedy is Remedy.NOTHING or d in mended for d in found)


def _said(difference: Difference, mended: bool) -> str:
    if mended:
        return "repaired"
    return {
        Remedy.NOTHING: "harmless",
        Remedy.REPAIR: "can be repaired, leave out --check",
        Remedy.PERSON: "needs a person",
    }[difference.remedy]
