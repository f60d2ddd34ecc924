"""``penstock release pause, resume, abort, promote, rollback``: what a person asks of a release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.asked import Key, Reason, Release, acting, chosen, opened, workload_of
from penstock.cli.heeding import carry_to_end, is_carried, unable
from penstock.cli.home import Home
from penstock.cli.screen import plain
from penstock.ledger import Entry, Ledger
from penstock.release import EVERYWHERE
from penstock.rollout import commands, folding, notify
from penstock.rollout.back import back
from penstock.rollout.branches import champion_in
from penstock.rollout.independence import opening
from penstock.rollout.plan import ENDED
from penstock.rollout.reasons import stated
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

    Where nobody carries the release, this command brings its users back itself.

    Example: penstock release rollback credit/3/us/1 --reason 'complaints'

    Example: penstock release rollback credit --market us --reason 'complaints'
    """
    workload, where = _whose(release, market)
    with opened() as (held, ledger), notify.notifying(held.path, ledger.entries):
        entries = ledger.entries(workload)
        going = folding.active(entries, where)
        if any(release in (workload, state.release) for state in going):
            _give(held, ledger, Ask.ROLL_BACK, chosen(entries, release, where), reason, key)
            return
        if release != workload:
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
        typer.echo(plain(note).plain)


def _whose(asked: str, market: str | None) -> tuple[str, str | None]:
    """Return the workload and the market whose users are meant.

    Raises:
        ValueError: It names neither a workload nor a release, or another market than ``--market``.
    """
    named = asked.split("/")
    if len(named) == 1 and asked:
        return asked, market
    if len(named) != PARTS or not all(named):
        raise ValueError(
            f"{asked!r} names no release; say it as {named[0] or 'credit'}/3/us/1, or as a "
            "workload. See penstock release list."
        )
    if market not in (None, named[2]):
        raise ValueError(f"release {asked} is in market {named[2]}, not in {market}.")
    return named[0], named[2]


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
    reason = stated(reason, f"to {ask}")
    actor, now = acting(held, key), datetime.now(UTC)
    entry = commands.give(ledger, state, ask, reason=reason, actor=actor, now=now)
    asked = f"entry {entry.sequence}: {entry.actor} asked to {ask} release {state.release}; "
    if is_carried(held, state.release):
        typer.echo(f"{asked}its controller heeds it at its next look, see penstock release status")
        return
    typer.echo(f"{asked}NOBODY CARRIES IT")
    if ask in commands.BACKWARD:
        _bring_back(held, ledger, state)
    else:
        typer.echo(f"nothing changes before somebody does: penstock release run {state.workload}")


def _bring_back(held: Home, ledger: Ledger, state: State) -> None:
    """Carry a release to its end; where that cannot be, say what to do."""
    why = unable(held, ledger)
    if not why:
        state = carry_to_end(held, ledger, state)
        if state.phase in ENDED:
            said = plain(state.reason).plain
            typer.echo(f"this command carried it to its end, {state.phase}: {said}")
            return
        why = "it has not ended yet"
    typer.echo(
        f"nothing was done yet: {plain(why).plain}. To have it heeded: penstock release run "
        f"{state.workload}; if that does not answer: penstock kill --reason WHY"
    )
