"""Summary: a log on one screen, by version, slot and arm."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstock.predictions.log import Losses, Predictions, within


@dataclass(frozen=True, kw_only=True)
class Group:
    """Requests that one version answered in one slot for one arm; latencies in milliseconds."""

    version: str
    slot: str
    arm: str
    """``shadow`` for copies; else what the edge said, or ``direct`` where it was not asked."""

    requests: int
    refused: int
    """Answered 400 to 499."""

    errors: int
    """Answered 500 or more."""

    p50_ms: float | None
    """Of answered requests, as its neighbour."""

    p99_ms: float | None
    stood_in: int
    """Answers in which something stood in for a part that could not."""

    stale: int
    """Answers from features that were older than they may be."""

    newest: datetime


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a log holds, and what it does not."""

    groups: tuple[Group, ...] = ()
    losses: Losses = field(default_factory=Losses)


def summary(
    predictions: Predictions,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    version: str | None = None,
) -> Summary:
    """Return the groups of a time and a version, the busiest arm of each version first.

    Raises:
        OSError: The address cannot be read.
    """
    where, values = within(since=since, until=until, version=version)
    rows: list[dict[str, Any]] = predictions.sql(_GROUPS.format(where=where), **values).to_pylist()
    return Summary(groups=tuple(Group(**row) for row in rows), losses=predictions.losses())


_GROUPS = """
SELECT coalesce(version, '?') AS version, coalesce(slot, '?') AS slot,
    CASE WHEN mirrored THEN 'shadow' ELSE coalesce(arm, 'direct') END AS arm,
    count(*) AS requests,
    count(*) FILTER (status BETWEEN 400 AND 499) AS refused,
    count(*) FILTER (status >= 500) AS errors,
    quantile_cont(latency_ms, 0.5) FILTER (status < 400) AS p50_ms,
    quantile_cont(latency_ms, 0.99) FILTER (status < 400) AS p99_ms,
    count(*) FILTER (len(fallbacks) > 0) AS stood_in,
    count(*) FILTER (len(stale) > 0) AS stale,
    max("at") AS newest
FROM predictions WHERE "at" IS NOT NULL AND {where}
GROUP BY ALL ORDER BY version, requests DESC, slot, arm
"""
