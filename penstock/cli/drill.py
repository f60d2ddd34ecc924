"""``penstock release drill``: rehearse the rollback on what serves now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.cli.asked import Key, acting, opened
from penstock.cli.servers import Workload
from penstock.release import EVERYWHERE
from penstock.rollout import drill as drills
from penstock.rollout import notify
from penstock.rollout.plane import Plane
from penstock.workload import load


def drill(
    workload: Workload,
    market: Annotated[str, typer.Option(help="Whose users are turned.")] = EVERYWHERE,
    if_due: Annotated[
        bool, typer.Option("--if-due", help="Only where the last one is too old or failed.")
    ] = False,
    key: Key = None,
) -> None:
    """Turn all users to whom they would be returned to, and back; timed, and in the ledger.

    Example: penstock release drill credit

    Exit codes: 0 passed, or nothing is due; 1 failed: forward steps wait for one that passes.
    """
    policy = load(workload).rollout
    with opened() as (held, ledger):
        now = datetime.now(UTC)
        entries = ledger.entries(workload)
        why = drills.due(entries, policy, now) or drills.overdue(entries, policy, now)
        if if_due and not why:
            typer.echo("no rehearsal is due")
            return
        with notify.notifying(held.path, ledger.entries):
            done = drills.run(
                Plane.attach(held.path), ledger, workload=workload, actor=acting(held, key),
                market=market,
            )  # fmt: skip
    _say(done)
    if not done.passed:
        raise typer.Exit(1)


def _say(done: drills.Drill) -> None:
    if done.back is not None and done.home is not None:
        typer.echo(
            f"to slot {done.standby} in {done.back:.0f} ms and back in {done.home:.0f} ms, "
            f"{done.requests} requests, {done.failures} failed"
        )
    typer.echo("passed" if done.passed else f"failed: {done.why}")
