"""``penstock latency``: what requests took, part by part, beside what they may take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from penstock.cli.predictions import Address, address_of
from penstock.cli.screen import terminal
from penstock.predictions.log import Predictions
from penstock.predictions.schema import PARTS
from penstock.stats.budget import TOGETHER, Budget, compare
from penstock.verdict import Outcome

AVOIDABLE = ("features",)
"""Parts that a request does without: one that brings its features looks none up."""

_QUERY = """
SELECT latency_ms, spent_us.* FROM predictions
WHERE status < 400 AND NOT mirrored AND "at" >= $since AND ($version IS NULL OR version = $version)
"""


def latency(
    log: Address = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="PART=MILLISECONDS at p99; once for each part.", show_default=False),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Only the last so many minutes.")] = 60.0,
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    faster: Annotated[
        str | None, typer.Option(help="PART=TIMES: what the whole gains if a part is as fast.")
    ] = None,
) -> None:
    """Show what requests took by part, and set p99 beside a latency budget where one is given.

    Example: penstock latency --budget read=5 --budget queue=5 --budget inference=45 --budget
    write=5

    Parts of a server: read, features, queue, inference, write. Name others, such as network, to
    see that nobody measured them there.

    Exit codes: 0 every part is within its budget, or none was given; 1 one is not, or it is not
    known; 2 wrong call.
    """
    declared, gained = _wanted(budget or [], faster)
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    held = Predictions(address_of(log)).sql(_QUERY, since=since, version=version)
    spent_ms = {part: held[part].drop_null().to_numpy() / 1e3 for part in PARTS}
    whole_n = held["latency_ms"].to_numpy()
    if declared is None:
        _show(spent_ms, whole_n, minutes)
        return
    verdict = compare(declared, spent_ms, whole_n, avoidable=AVOIDABLE)
    typer.echo(str(verdict))
    if gained is not None:
        typer.echo(gained)
    raise typer.Exit(verdict.outcome is not Outcome.PASS)


def _wanted(budget: list[str], faster: str | None) -> tuple[Budget | None, str | None]:
    """Return the budget, and what it gains by a faster part.

    Raises:
        typer.BadParameter: One of them is none.
    """
    if not budget:
        if faster is not None:
            raise typer.BadParameter("--faster is of a budget; give one with --budget.")
        return None, None
    try:
        declared = Budget(dict(map(_pair, budget)))
        return declared, None if faster is None else _gain(declared, *_pair(faster))
    except ValueError as e:
        raise typer.BadParameter(str(e)) from e


def _show(spent_ms: Mapping[str, NDArray[Any]], whole_n: NDArray[Any], minutes: float) -> None:
    if not len(whole_n):
        typer.echo(f"no answered request there in the last {minutes:g} minutes")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("part")
    for name in ("requests", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for part, taken_n in {**spent_ms, TOGETHER: whole_n}.items():
        row = [f"{ms:.3g}" for ms in np.quantile(taken_n, [0.5, 0.99])] if len(taken_n) else []
        table.add_row(part, f"{len(taken_n):,}", *row)
    terminal().print(table)


def _pair(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError as e:
        raise ValueError(f"{text!r} is no PART=NUMBER.") from e


def _gain(budget: Budget, part: str, times: float) -> str:
    whole, gain = budget.faster(part, times).total_ms, budget.gain(part, times)
    return (
        f"{part} {times:g} times as fast: {whole:.4g} ms of {budget.total_ms:.4g} ms, {gain:.3g}x"
    )
