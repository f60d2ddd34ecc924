"""Outcomes: what became of predictions, joined to them by request id; none disappears unseen.

An outcome names a request, and its example where a request held several. Corrections come later
than what they correct, so of several outcomes of one example the last counts, by its time (one
without a time yields to one with it) and then by its place in the file. ``take="first"`` asks for
the first instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import orjson
import pyarrow as pa

from penstock.predictions.files import whole
from penstock.predictions.log import Predictions, within

WHOLE = range(-(2**63), 2**63)
"""What an int64 holds."""

LATEST_S = 253_402_300_800.0
"""Unix seconds at which the year 10000 begins; what is no date before it is a mistake."""

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("row", pa.int64()),
        ("label", pa.int64()),
        ("at", pa.float64()),
        ("line", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """Outcomes read: ``outcomes = joined + repeated + elsewhere + unknown``."""

    outcomes: int
    joined: int
    """Outcomes that belong to at least one of the predictions asked for."""

    repeated: int
    """Outcomes of an example that has another one, which counts."""

    conflicting: int
    """Of those, how many say something else than the one that counts."""

    elsewhere: int
    """Outcomes of predictions in the log that were not asked for: of another time or version."""

    unknown: int
    """Outcomes of no prediction in the log: lost, expired, or never ours."""

    unreadable: int
    """Lines of the file that are no outcome."""

    late: int
    """Joined outcomes that came later after their prediction than they were expected."""

    predictions: int
    """Answered examples asked for."""

    waiting: int
    """Of those, how many have no outcome yet."""


@dataclass(frozen=True)
class Joined:
    """Predictions with their outcomes."""

    table: pa.Table
    """One row an answered example: what was predicted, and ``outcome``, null where not known."""

    told: Told


def read_outcomes(path: Path) -> tuple[pa.Table, int]:
    """Return a file of JSON lines as outcomes, and how many of its lines are none.

    Each has ``request_id`` and ``label``, and may have ``row`` (0 by default) and ``at`` (Unix
    seconds). Nothing is made to fit: a label of 1.9 or true is none. A last line without its end is
    still being written and does not count.
    """
    rows: list[dict[str, Any]] = []
    unreadable = 0
    for number, line in enumerate(whole(path.read_bytes()).splitlines()):
        outcome = _outcome(line)
        if outcome is None:
            unreadable += 1
        else:
            rows.append({**outcome, "line": number})
    return pa.Table.from_pylist(rows, schema=SCHEMA), unreadable


def _outcome(line: bytes) -> dict[str, Any] | None:
    try:
        said: Any = orjson.loads(line)
        one: dict[str, Any] = {
            "request_id": said["request_id"],
            "row": said.get("row", 0),
            "label": said["label"],
            "at": said.get("at"),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    fits = isinstance(one["request_id"], str) and _whole(one["row"]) and _whole(one["label"])
    return one if fits and (one["at"] is None or _time(one["at"])) else None


def _whole(value: Any) -> bool:
    return type(value) is int and value in WHOLE


def _time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < LATEST_S


def join(
    predictions: Predictions,
    outcomes: pa.Table,
    *,
    unreadable: int = 0,
    since: datetime | None = None,
    until: datetime | None = None,
    version: str | None = None,
    take: Literal["first", "last"] = "last",
    expected: timedelta | None = None,
) -> Joined:
    """Join outcomes to the predictions of a time and a version.

    Args:
        outcomes: Of the columns of ``SCHEMA``, as :func:`read_outcomes` gives them.
        take: Which of several outcomes of one example counts.
        expected: How long after its prediction an outcome may come without being late.
    """
    where, values = within(since=since, until=until, version=version)
    with predictions.connected() as database:
        database.register("given", outcomes)
        _select(database, where, values, "DESC" if take == "last" else "ASC")
        seconds = None if expected is None else expected.total_seconds()
        counts = database.sql(_COUNTS, params={"expected": seconds}).to_arrow_table().to_pylist()[0]
        table = database.sql("SELECT * EXCLUDE (came) FROM joined").to_arrow_table()
    return Joined(table, Told(**counts, outcomes=len(outcomes), unreadable=unreadable))


def _select(
    database: duckdb.DuckDBPyConnection, where: str, values: dict[str, Any], order: str
) -> None:
    """Make the tables that the counts are taken from."""
    database.execute(
        f"""
        CREATE TABLE asked AS
        SELECT request_id, unnest(range(len(label))) AS row, unnest(label) AS label,
            unnest(probability) AS probability, "at", workload, version, slot, arm, mirrored,
            "user", bucket
        FROM predictions WHERE label IS NOT NULL AND {where}
        """,  # noqa: S608 - a condition of our own; what it compares with are parameters
        values,
    )
    database.execute(
        f"""
        CREATE TABLE ranked AS
        SELECT *, row_number() OVER one AS place, first_value(label) OVER one AS counts
        FROM given
        WINDOW one AS (PARTITION BY request_id, row ORDER BY "at" {order} NULLS LAST, line {order})
        """  # noqa: S608 - ASC or DESC
    )
    database.execute(_JOINED)


_JOINED = """
CREATE TABLE joined AS
SELECT asked.*, ranked.label AS outcome, to_timestamp(ranked."at") AS outcome_at,
    ranked."at" - epoch(asked."at") AS came
FROM asked LEFT JOIN ranked
    ON asked.request_id = ranked.request_id AND asked.row = ranked.row AND ranked.place = 1
ORDER BY asked."at", asked.request_id, asked.row
"""

_COUNTS = """
WITH known AS (
    SELECT DISTINCT request_id, unnest(range(len(label))) AS row
    FROM predictions WHERE label IS NOT NULL
),
counting AS (
    SELECT request_id, row,
        (request_id, row) IN (SELECT (request_id, row) FROM asked) AS joins,
        (request_id, row) IN (SELECT (request_id, row) FROM known) AS is_known
    FROM ranked WHERE place = 1
)
SELECT
    (SELECT count(*) FROM counting WHERE joins) AS joined,
    (SELECT count(*) FROM ranked WHERE place > 1) AS repeated,
    (SELECT count(*) FROM ranked WHERE place > 1 AND label <> counts) AS conflicting,
    (SELECT count(*) FROM counting WHERE is_known AND NOT joins) AS elsewhere,
    (SELECT count(*) FROM counting WHERE NOT is_known) AS unknown,
    (SELECT count(*) FROM joined WHERE came > $expected) AS late,
    (SELECT count(*) FROM joined) AS predictions,
    (SELECT count(*) FROM joined WHERE outcome IS NULL) AS waiting
"""
