"""``penstock release drill``: rehearse the rollback on what serves now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.cli.asked import Key, acting, opened
from penstock.cli.home import Home
from penstock.cli.screen import plain
from penstock.cli.servers import Workload
from penstock.ledger import Actor, Entry, Ledger
from penstock.release import EVERYWHERE, Rollout
from penstock.rollout import drill as drills
from penstock.rollout import notify
from penstock.rollout.plane import Plane
from penstock.stage import Refused
from penstock.workload import load

REFUSED = 3
"""Exit code where nothing could be rehearsed."""


def drill(
    workload: Workload,
    market: Annotated[
        str | None, typer.Option(help="Whose users are turned; of every market by default.")
    ] = None,
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Only where the last one is too old or failed.")
    ] = False,
    key: Key = None,
) -> None:
    """Turn all users to whom they would be returned to, and back; timed, and in the ledger.

    Example: penstock release drill credit --market us

    Exit codes: 0 passed, or nothing is due; 1 failed: forward steps wait for one that passes; 3
    there is no way back to rehearse in a market.
    """
    policy, now = load(workload).rollout, datetime.now(UTC)
    with opened() as (held, ledger):
        entries = ledger.entries(workload)
        wanted = policy.market_names() if market is None else (market,)
        markets = [m for m in wanted if not if_due or _is_due(entries, policy, now, m)]
        if not markets:
            typer.echo("no rehearsal is due")
            return
        actor = acting(held, key)
        with notify.notifying(held.path, ledger.entries):
            codes = [_rehearsed(held, ledger, workload, name, actor) for name in markets]
    if any(codes):
        raise typer.Exit(min(filter(None, codes)))


def _is_due(entries: Sequence[Entry], policy: Rollout, now: datetime, market: str) -> bool:
    return bool(drills.failed(entries, market) or drills.overdue(entries, policy, now, market))


def _rehearsed(held: Home, ledger: Ledger, workload: str, market: str, actor: Actor) -> int:
    """Rehearse in one market and say how it went; return the exit code.

    What cannot be rehearsed in one market keeps no other one from it.
    """
    plane, entries = Plane.attach(held.path), ledger.entries(workload)
    try:
        drills.refuse(plane, entries, load(workload).rollout, market)
        done = drills.run(plane, ledger, workload=workload, actor=actor, market=market)
    except Refused as e:
        typer.echo(f"{market}: refused: {plain(e).plain}")
        return REFUSED
    _say(done)
    return int(not done.passed)


def _say(done: drills.Drill) -> None:
    if done.market != EVERYWHERE:
        typer.echo(f"market {done.market}:")
    if done.back is not None and done.home is not None:
        typer.echo(
            f"to slot {done.standby} in {done.back:.0f} ms and back in {done.home:.0f} ms, "
            f"{done.requests} requests, {done.failures} failed"
        )
    typer.echo("passed" if done.passed else f"failed: {plain(done.why).plain}")
