"""``penstock latency``: what requests took, part by part, beside what they may take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from penstock.predictions.log import Predictions
from penstock.predictions.schema import PARTS
from penstock.stats.budget import Budget, compare
from penstock.verdict import Outcome

_QUERY = """
SELECT latency_ms, spent_us.* FROM predictions
WHERE status < 400 AND NOT mirrored AND "at" >= $since AND ($version IS NULL OR version = $version)
"""


def latency(
    log: Annotated[
        str, typer.Argument(help="Folder of the prediction log, or s3://bucket/folder.")
    ],
    budget: Annotated[
        list[str], typer.Option(help="PART=MILLISECONDS at p99; once for each part.")
    ],
    minutes: Annotated[float, typer.Option(min=0, help="Only the last so many minutes.")] = 60.0,
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    faster: Annotated[
        str | None, typer.Option(help="PART=TIMES: what the whole gains if a part is as fast.")
    ] = None,
) -> None:
    """Set p99 by part beside a latency budget.

    Example: penstock latency logs --budget read=5 --budget features=25 --budget inference=45

    Parts of a server: read, features, queue, inference, write. Name others, such as network, to
    see that nobody measured them there.

    Exit codes: 0 every part is within its budget; 1 one is not, or it is not known; 2 wrong call.
    """
    try:
        declared = Budget(dict(map(_pair, budget)))
        gained = None if faster is None else _gain(declared, *_pair(faster))
    except ValueError as e:
        raise typer.BadParameter(str(e)) from e
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    held = Predictions(log).sql(_QUERY, since=since, version=version)
    spent_ms = {part: held[part].drop_null().to_numpy() / 1e3 for part in PARTS}
    verdict = compare(declared, spent_ms, held["latency_ms"].to_numpy())
    typer.echo(str(verdict))
    if gained is not None:
        typer.echo(gained)
    raise typer.Exit(verdict.outcome is not Outcome.PASS)


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
