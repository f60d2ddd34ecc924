"""Shadow coverage: of the requests that were copied to a shadow, how many copies were answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from penstock.predictions.log import Predictions

SETTLE = timedelta(seconds=2)
"""A copy may be answered and written this much later than its original."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """``mirrored = joined + refused + failed + recent + missing``."""

    mirrored: int
    """Live requests that the champion's log holds while the shadow got copies."""

    joined: int
    """Of those, whose copy the shadow answered."""

    refused: int
    """Whose copy it refused, with a status of 400 to 499: too many at once, or another contract."""

    failed: int
    """Whose copy it failed, with 500 or more."""

    recent: int
    """Without a copy yet, and too young to tell."""

    missing: int
    """Without a copy: the edge gave it up, or the shadow's log lost it or was not running."""

    lost_by_log: int
    """Records that the logs counted as lost; so many of the missing may be answered copies."""

    unmatched: int
    """Copies whose original is in no log."""

    since: datetime | None
    until: datetime | None

    @property
    def share(self) -> float | None:
        """Answered copies by mirrored requests that are old enough; None without any."""
        settled = self.mirrored - self.recent
        return self.joined / settled if settled else None


def coverage(
    predictions: Predictions,
    *,
    champion: str,
    shadow: str,
    now: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Coverage:
    """Return how well a shadow covers its champion.

    Args:
        champion, shadow: Versions, as the servers name them.
        since, until: While copies were sent. Where not given, from the first request of which
            there is a copy to the last: name the end of a shadow that died before its step did.
    """
    with predictions.connected() as database:
        values: dict[str, Any] = {"shadow": shadow, "champion": champion}
        first, last = database.execute(_SPAN, values).fetchall()[0]
        since, until = since or first, until or last
        values |= {"since": since, "until": until, "settled": now - SETTLE}
        found = database.sql(_COVERED, params=values).to_arrow_table().to_pylist()[0]
    lost = predictions.losses()
    return Coverage(**found, lost_by_log=lost.dropped + lost.failed, since=since, until=until)


_SPAN = """
SELECT min("at"), max("at") FROM predictions
WHERE NOT mirrored AND version = $champion AND request_id IN
    (SELECT request_id FROM predictions WHERE mirrored AND version = $shadow)
"""

_COVERED = """
WITH live AS (
    SELECT request_id, min("at") AS "at" FROM predictions
    WHERE NOT mirrored AND version = $champion AND "at" BETWEEN $since AND $until
    GROUP BY request_id
),
copies AS (
    SELECT request_id, min(status) AS status FROM predictions
    WHERE mirrored AND version = $shadow GROUP BY request_id
),
paired AS (SELECT live."at", copies.status FROM live LEFT JOIN copies USING (request_id))
SELECT
    count(*) AS mirrored,
    count(*) FILTER (status < 400) AS joined,
    count(*) FILTER (status BETWEEN 400 AND 499) AS refused,
    count(*) FILTER (status >= 500) AS failed,
    count(*) FILTER (status IS NULL AND "at" > $settled) AS recent,
    count(*) FILTER (status IS NULL AND "at" <= $settled) AS missing,
    (SELECT count(*) FROM copies ANTI JOIN predictions AS original
        ON copies.request_id = original.request_id AND NOT original.mirrored) AS unmatched
FROM paired
"""
