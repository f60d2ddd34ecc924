"""``penstock release pause, resume, abort, promote, rollback``: what a person asks of a release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.asked import Key, Reason, Release, acting, chosen, opened, workload_of
from penstock.cli.home import Home
from penstock.ledger import Entry, Ledger
from penstock.release import EVERYWHERE
from penstock.rollout import commands, folding
from penstock.rollout.back import back
from penstock.rollout.branches import champion_in
from penstock.rollout.independence import opening
from penstock.rollout.state import Ask, State
from penstock.stage import Refused
from penstock.workload import load


def pause(release: Release, reason: Reason, key: Key = None) -> None:
    """Leave the traffic of a release as it is until somebody resumes; harm still brings it back.

    Example: penstock release pause credit/3/us/1 --reason 'the labels look odd'
    """
    _ask(Ask.PAUSE, release, reason, key)


def resume(release: Release, reason: Reason, key: Key = None) -> None:
    """Let a paused release go on.

    Example: penstock release resume credit/3/us/1 --reason 'the labels are right'
    """
    _ask(Ask.RESUME, release, reason, key)


def abort(release: Release, reason: Reason, key: Key = None) -> None:
    """End a release: its users go back to the champion.

    Example: penstock release abort credit/3/us/1 --reason 'superseded'
    """
    _ask(Ask.ABORT, release, reason, key)


def promote(release: Release, reason: Reason, key: Key = None) -> None:
    """Take a release through its next gate: parity is taken, the cool-down is not waited for.

    Example: penstock release promote credit/3/us/1 --reason 'the incident is over' --key ann.pem

    For an approver who is independent of the version; recorded as an override. Passes of every
    check, the soak, users and approvals are waited for all the same.
    """
    _ask(Ask.PROMOTE, release, reason, key)


def rollback(
    release: Release,
    reason: Reason,
    market: Annotated[
        str | None, typer.Option(help="Whose users go back, where the name does not say it.")
    ] = None,
    key: Key = None,
) -> None:
    """Return all users to the version before: of a release, or of what a release has finished.

    Example: penstock release rollback credit/3/us/1 --reason 'complaints'

    Example: penstock release rollback credit --market us --reason 'complaints'
    """
    workload, named = workload_of(release), release.split("/")
    where = named[2] if len(named) == PARTS else market
    with opened() as (held, ledger):
        entries = ledger.entries(workload)
        going = folding.active(entries, where)
        if any(release in (workload, state.release) for state in going):
            _give(held, ledger, Ask.ROLL_BACK, chosen(entries, release, where), reason, key)
            return
        if len(named) == PARTS:
            _refuse_another(entries, chosen(entries, release))
        done = back(
            held.path,
            ledger,
            workload=workload,
            market=where or EVERYWHERE,
            reason=reason,
            actor=acting(held, key),
            now=datetime.now(UTC),
        )
    typer.echo(
        f"users of {workload} are back on version {done.to} from version {done.version}, "
        f"{done.kind}, {done.milliseconds:.0f} ms"
    )
    for note in done.notes:
        typer.echo(note)


PARTS = 4
"""Of a release's name: workload, version, market, and its number."""


def _refuse_another(entries: Sequence[Entry], ended: State) -> None:
    """Refuse to return users from a version that does not answer them.

    Raises:
        Refused: Another version does, or none.
    """
    version = opening(entries, ended.release).version
    serving = champion_in(entries, ended.market, load(ended.workload).rollout)
    if serving != version:
        raise Refused(
            f"version {version} does not answer the users of {ended.market}, "
            f"{f'version {serving} does' if serving else 'nobody does'}; release {ended.release} "
            f"ended in {ended.phase}."
        )


def _ask(ask: Ask, release: str, reason: str, key: Path | None) -> None:
    with opened() as (held, ledger):
        state = chosen(ledger.entries(workload_of(release)), release)
        _give(held, ledger, ask, state, reason, key)


def _give(
    held: Home, ledger: Ledger, ask: Ask, state: State, reason: str, key: Path | None
) -> None:
    actor, now = acting(held, key), datetime.now(UTC)
    entry = commands.give(ledger, state, ask, reason=reason, actor=actor, now=now)
    typer.echo(
        f"entry {entry.sequence}: {entry.actor} asked to {ask} release {state.release}; its "
        "controller heeds it at its next look, see penstock release status"
    )
