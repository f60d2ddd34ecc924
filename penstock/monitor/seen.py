"""Seen: what the champion answered within a time, read from its prediction log."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from penstock.predictions.log import Losses, Predictions

MOST = 100_000
"""Requests whose features are read; of more, always the same ones are taken, by their ids."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The champion's requests of a time."""

    since: datetime
    until: datetime
    requests: int
    users: int
    """A request that names no user is one of its own."""

    errors: int
    """Answered 500 or more."""

    stood_in: int
    """Answers in which something stood in for a part that could not."""

    stale: int
    """Answers from features that were older than they may be."""

    newest: datetime | None
    answered: pa.Table
    """Of answered requests ``request_id``, ``features``, ``label`` and ``probability``."""

    losses: Losses | None
    """None where nobody counted: a copy of a log has no counts."""

    @property
    def digest(self) -> str:
        """Hash of what was read: the same requests give the same verdict."""
        h = hashlib.sha256()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.answered.schema) as writer:
            writer.write_table(self.answered.combine_chunks())
        h.update(sink.getvalue())
        counted = (self.requests, self.users, self.errors, self.stood_in, self.stale)
        h.update(repr((counted, self.newest, self.losses)).encode())
        return "sha256:" + h.hexdigest()


def read(address: str, *, workload: str, version: int, since: datetime, until: datetime) -> Seen:
    """Return what a version answered to users, from ``since`` on and before ``until``.

    Args:
        address: Folder of a log, or ``s3://bucket/folder``; one that holds nothing is no error.

    Raises:
        OSError: It cannot be read.
        ValueError: It is another kind of address.
    """
    asked: dict[str, Any] = {
        "workload": workload,
        "version": str(version),
        "since": since,
        "until": until,
    }
    log = Predictions(address)
    with log.connected() as database:
        counted = database.sql(_COUNTED, params=asked).to_arrow_table().to_pylist()[0]
        columns = database.sql("DESCRIBE predictions").to_arrow_table()["column_name"].to_pylist()
        features = "features" if "features" in columns else "NULL AS features"
        query = _ANSWERED.format(features=features)
        answered = database.sql(query, params={**asked, "most": MOST}).to_arrow_table()
    losses = log.losses()
    told = losses.written or losses.problems
    return Seen(
        **counted, since=since, until=until, answered=answered, losses=losses if told else None
    )


_MINE = """
workload = $workload AND version = $version AND "at" >= $since AND "at" < $until
    AND NOT coalesce(mirrored, false)
    AND coalesce(arm, 'direct') NOT IN ('standby', 'fallback', 'probe')
"""

_COUNTED = f"""
SELECT count(*) AS requests,
    count(DISTINCT coalesce("user", request_id)) AS users,
    count(*) FILTER (status >= 500) AS errors,
    count(*) FILTER (len(fallbacks) > 0) AS stood_in,
    count(*) FILTER (len(stale) > 0) AS stale,
    max("at") AS newest
FROM predictions WHERE {_MINE}
"""  # noqa: S608 - a condition of our own; what it compares with are parameters

_ANSWERED = f"""
SELECT request_id, {{features}}, label, probability FROM predictions
WHERE {_MINE} AND label IS NOT NULL AND len(fallbacks) = 0
ORDER BY md5(request_id), request_id LIMIT $most
"""  # noqa: S608 - the same
