"""Make labels and three views: users by the hour, items by the hour, profiles by the day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START_US = np.datetime64("2026-01-01", "us").astype("int64")
SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND
SPAN = 30 * DAY
TTL = timedelta(days=10)
STAMP = pa.timestamp("us", "UTC")
FEATURES = 4
"""Of each view."""

GROUP = 1_000_000


@dataclass(frozen=True)
class Table:
    """One view's file: its name, key, part of all feature rows, and how often it is written."""

    name: str
    key: str
    share: float
    step_us: int

    @property
    def features(self) -> list[str]:
        """Names of its features."""
        return [f"{self.name}_f{i}" for i in range(FEATURES)]


TABLES = (
    Table("users", "user_id", 0.5, HOUR),
    Table("items", "item_id", 0.25, HOUR),
    Table("profiles", "user_id", 0.25, DAY),
)


def write(folder: Path, *, features: int, labels: int, seed: int = 1) -> None:
    """Write ``labels.parquet`` and a file per view; one row in fifty is known days late."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"user_id": max(10, labels // 10), "item_id": max(10, labels // 50)}
    for table in TABLES:
        n = round(features * table.share)
        event = START_US + rng.integers(0, SPAN, n) // table.step_us * table.step_us
        event.sort()
        delay = np.where(
            rng.random(n) < 0.02, rng.integers(0, 2 * DAY, n), rng.integers(0, 60 * SECOND, n)
        )
        columns = {
            table.key: pa.array(rng.integers(0, sizes[table.key], n)),
            "event_timestamp": pa.array(event, STAMP),
            "created": pa.array(event + delay, STAMP),
        }
        columns |= {name: pa.array(rng.normal(size=n)) for name in table.features}
        pq.write_table(pa.table(columns), folder / f"{table.name}.parquet", row_group_size=GROUP)
    asked = {k: pa.array(rng.integers(0, most, labels)) for k, most in sizes.items()}
    asked["event_timestamp"] = pa.array(START_US + rng.integers(0, SPAN, labels), STAMP)
    pq.write_table(pa.table(asked), folder / "labels.parquet")


def feast_objects(folder: Path, *, created: bool) -> tuple[list[Any], list[Any]]:
    """Return Feast's entities and views over the files that lie in a folder.

    Args:
        created: Whether the files say when a row became known.
    """
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64

    keys = sorted({t.key for t in TABLES})
    entities = {k: Entity(name=k, join_keys=[k], value_type=ValueType.INT64) for k in keys}
    views = [
        FeatureView(
            name=t.name,
            entities=[entities[t.key]],
            ttl=TTL,
            schema=[Field(name=n, dtype=Float64) for n in t.features],
            source=FileSource(
                name=t.name,
                path=str(folder / f"{t.name}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created" if created else "",
            ),
        )
        for t in TABLES
    ]
    return list(entities.values()), views
