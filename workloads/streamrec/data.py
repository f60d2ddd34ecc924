"""Where impressions, clicks and their features come from: a seeded simulator, hour by hour."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workloads.streamrec.simulator import Impressions, Settings, World, feature_rows, instant

VARIABLE = "PENSTOCK_STREAMREC"
"""Environment variable: settings of the simulator that differ from its defaults, as JSON."""

CLICK_DELAY = timedelta(hours=1)
"""Until an impression without a click is known to have none."""

COMPUTED = timedelta(minutes=1)
"""From then until the hour's features are written."""

GROUP = 262_144
"""Rows of a Parquet row group; what is held in memory before it is written."""

STAMP = pa.timestamp("us", tz="UTC")


def simulated() -> Settings:
    """Return the simulator's settings.

    Raises:
        ValueError: The variable holds no JSON object, or one with names that do not exist.
    """
    text = os.environ.get(VARIABLE) or "{}"
    try:
        return Settings(**json.loads(text))
    except (json.JSONDecodeError, TypeError) as e:
        names = ", ".join(asdict(Settings()))
        raise ValueError(
            f"{VARIABLE} is {text!r}: {e}; give a JSON object with any of {names}."
        ) from e


def settings() -> dict[str, object]:
    """Return what decides the data besides this code."""
    return asdict(simulated())


def as_of() -> datetime:
    """Return the time at which the data were taken: the end of the simulation."""
    return instant(simulated().hours)


def holdout(labels: pa.Table) -> pa.ChunkedArray:
    """Return which label rows are held out: the last fifth of the time."""
    start = instant(24 * simulated().warm_up_days)
    return pc.greater_equal(labels["event_timestamp"], pa.scalar(start + 0.8 * (as_of() - start)))


def write(folder: Path) -> None:
    """Write feature sources, ``labels.parquet`` and ``truth.parquet`` hour by hour.

    The truth has every impression with its probability; the labels are those after the warm-up.
    """
    world = World(simulated())
    with _Files(folder) as files:
        first = 0
        for drawn, features in feature_rows(world):
            rows = _impressions(world, drawn, first)
            probability = pa.array(drawn.probability, pa.float64())
            files.add("truth", rows.append_column("click_probability", probability))
            if drawn.hour >= 24 * world.settings.warm_up_days:
                files.add("labels", rows)
            first += len(drawn.user)
            for name, columns in features.items():
                files.add(name, _known(world.settings, drawn.hour, name, columns))


def _impressions(world: World, drawn: Impressions, first: int) -> pa.Table:
    n = len(drawn.user)
    start = int(instant(drawn.hour).timestamp()) * 1_000_000
    return pa.table(
        {
            "impression_id": pa.array(np.arange(first, first + n), pa.int64()),
            "user_id": pa.array(drawn.user, pa.int64()),
            "item_id": pa.array(drawn.item, pa.int64()),
            "category": pa.array(world.category[drawn.item], pa.int64()),
            "mobile": pa.array(drawn.mobile, pa.int64()),
            "event_timestamp": pa.array(start + drawn.second * 1_000_000, STAMP),
            "clicked": pa.array(drawn.clicked, pa.int64()),
        }
    )


def _known(
    settings: Settings, hour: int, name: str, columns: Mapping[str, NDArray[Any]]
) -> pa.Table:
    """Return feature rows with the hour's end as their time, and when each became known."""
    n = len(next(iter(columns.values())))
    rng = np.random.default_rng([settings.seed, 2, hour, sum(name.encode())])
    late = rng.random(n) < settings.late_share
    delay = np.where(late, rng.integers(3600, 12 * 3600, n), 0) * 1_000_000
    event = int(instant(hour + 1).timestamp()) * 1_000_000
    usual = (CLICK_DELAY + COMPUTED) // timedelta(microseconds=1)
    held = {
        n: pa.array(v, pa.float64() if v.dtype.kind == "f" else pa.int64())
        for n, v in columns.items()
    }
    return pa.table(
        {
            **held,
            "event_timestamp": pa.array(np.full(n, event), STAMP),
            "created_timestamp": pa.array(event + usual + delay, STAMP),
        }
    )


class _Files:
    """Parquet files that grow, a row group at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.Table]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._waiting:
            self._flush(name)
        for writer in self._writers.values():
            writer.close()

    def add(self, name: str, rows: pa.Table) -> None:
        """Append rows to a file."""
        waiting = self._waiting.setdefault(name, [])
        waiting.append(rows)
        if sum(len(part) for part in waiting) >= GROUP:
            self._flush(name)

    def _flush(self, name: str) -> None:
        waiting, self._waiting[name] = self._waiting[name], []
        if not waiting:
            return
        rows = pa.concat_tables(waiting)
        if name not in self._writers:
            self._writers[name] = pq.ParquetWriter(self._folder / f"{name}.parquet", rows.schema)
        self._writers[name].write_table(rows)
