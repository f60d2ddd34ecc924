"""What the verbs of people have in common: which release is meant, and who acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.home import Home, home
from penstock.ledger import Actor, Entry, Ledger
from penstock.release import Trigger
from penstock.rollout import folding
from penstock.rollout.independence import opening
from penstock.rollout.plan import Plan, declared, plan_of
from penstock.rollout.state import State
from penstock.stage import Refused
from penstock.workload import load

Release = Annotated[
    str,
    typer.Argument(help="Release, as credit/3/eu/1, or a workload of which one release goes on."),
]
Version = Annotated[str, typer.Argument(help="Version, as credit/3; a release's name will do.")]
Reason = Annotated[str, typer.Option(help="Why; goes into the ledger.")]
Key = Annotated[
    Path | None, typer.Option(help="Key file of whoever acts; PENSTOCK_KEY by default.")
]


@contextmanager
def opened() -> Iterator[tuple[Home, Ledger]]:
    """Open the home's ledger."""
    held = home()
    ledger = held.ledger()
    try:
        yield held, ledger
    finally:
        ledger.close()


def acting(held: Home, key: Path | None) -> Actor:
    """Return whoever acts: of the key that is named, or of the home's."""
    return Actor.load(key or held.key())


def chosen(entries: Sequence[Entry], asked: str, market: str | None = None) -> State:
    """Return the release that is meant.

    Args:
        entries: Of the workload.
        asked: A release, or a workload.
        market: Of this one alone; None of any.

    Raises:
        LookupError: There is none, or of a workload no one or several go on.
    """
    if "/" in asked:
        return folding.fold(entries, asked)
    going = folding.active(entries, market)
    if len(going) == 1:
        return going[0]
    if not going:
        raise LookupError(f"no release of {asked} goes on; see penstock release list.")
    names = ", ".join(state.release for state in going)
    raise LookupError(f"{len(going)} releases of {asked} go on; name one of {names}.")


def workload_of(asked: str) -> str:
    """Return the workload of a release's, a version's or its own name."""
    return asked.partition("/")[0]


def version_of(asked: str) -> tuple[str, int]:
    """Return workload and version of what names one.

    Raises:
        ValueError: It names none.
    """
    workload, *rest = asked.split("/")
    if not rest or not rest[0].isdecimal():
        raise ValueError(f"{asked!r} names no version; say it as {workload or 'credit'}/3.")
    return workload, int(rest[0])


def plan_for(entries: Sequence[Entry], state: State) -> Plan:
    """Return the plan that a release follows, made of the workload's policy as it is here.

    Raises:
        Refused: The release follows another policy than the one here.
    """
    body = opening(entries, state.release).body
    plan = plan_of(
        load(state.workload).rollout,
        market=state.market,
        first=body["champion"] is None,
        trigger=Trigger(body["trigger"]),
    )
    if declared(folding.plan_in_force(entries, state.release)) != plan.fingerprint():
        raise Refused(
            f"release {state.release} follows another policy than workloads/{state.workload} has "
            "here; wait until its controller has taken it in, or come with the policy it follows."
        )
    return plan
