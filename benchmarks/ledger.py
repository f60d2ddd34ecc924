"""Signed, chained entries beside bare inserts into the same database: append and verify.

``python -m benchmarks.ledger [--entries N] [--url URL] [--json]``

The bare way opens a transaction for each row, as an append does, and keeps the same columns in a
table without guards, chain or signature; it reads them back in order. ``URL`` is an empty
PostgreSQL database; a temporary SQLite file by default.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from penstock.ledger import Actor, Ledger, export, verify_export

NOW = datetime(2026, 1, 5, tzinfo=UTC)
BODY = {"table": {"champion": "a", "challenger": "b", "buckets": 6}, "why": "enters canary 10 %"}


def seconds(work: Callable[[], object]) -> float:
    """Return how long the work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def bare_append(engine: sa.Engine, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert the rows, each in a transaction of its own."""
    for row in rows:
        with engine.begin() as connection:
            connection.execute(table.insert().values(**row))


def bare_read(engine: sa.Engine, table: sa.Table) -> None:
    """Read every row in order."""
    with engine.connect() as connection:
        for _ in connection.execute(sa.select(table).order_by(table.c.sequence)):
            pass


def measured(url: str, folder: Path, entries: int) -> dict[str, float]:
    """Return the seconds that each way takes."""
    ledger, actor = Ledger(url), Actor.create(folder / "actor.pem", name="benchmark")

    def append() -> None:
        for i in range(entries - 1):
            ledger.append(
                workload="digits", version=i, kind="intent", body=BODY, actor=actor, now=NOW
            )

    took = {"append": seconds(append), "verify": seconds(ledger.verify)}
    took["export"] = seconds(lambda: export(ledger, folder / "ledger.jsonl", actor=actor))
    took["verify the export"] = seconds(lambda: verify_export(folder / "ledger.jsonl"))
    rows = list(ledger.rows())
    ledger.close()
    engine, metadata = sa.create_engine(url), sa.MetaData()
    columns = [
        sa.Column(n, sa.Integer if n in ("sequence", "version") else sa.Text) for n in rows[0]
    ]
    table = sa.Table("bare", metadata, *columns)
    metadata.create_all(engine)
    took["bare append"] = seconds(lambda: bare_append(engine, table, rows))
    took["bare read"] = seconds(lambda: bare_read(engine, table))
    engine.dispose()
    return took


def main() -> None:
    """Measure, and print microseconds an entry and how many times the bare way that is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--url")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        took = measured(asked.url or f"sqlite:///{folder / 'ledger.db'}", folder, asked.entries)
    if asked.json:
        print(json.dumps({"entries": asked.entries, "seconds": took}))
        return
    beside = {"append": "bare append", "verify": "bare read"}
    for what, seconds_ in took.items():
        line = f"{what:18} {1e6 * seconds_ / asked.entries:8.0f} us an entry {seconds_:8.2f} s"
        ratio = f"  {seconds_ / took[beside[what]]:.1f} times bare" if what in beside else ""
        print(line + ratio)


if __name__ == "__main__":
    main()
