"""Where the captures come from: scikit-learn's handwritten digits, in the order they were written.

The data set has no times. Captures are therefore given times one after the other, half a minute
apart, in the order of the file, which is by writer: a split by time puts other people's hands into
the holdout, as a deployed model would meet them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

from workloads.digits.transform import capture_features

FIRST_CAPTURE = datetime(2026, 1, 5, 8, tzinfo=UTC)
BETWEEN_CAPTURES = timedelta(seconds=30)
UNTIL_KNOWN = timedelta(seconds=2)
UNTIL_LABELLED = timedelta(minutes=1)
HOLDOUT_FROM = FIRST_CAPTURE + 1197 * BETWEEN_CAPTURES + UNTIL_LABELLED
"""Label rows from here on are the holdout: the last 600 captures."""


def settings() -> dict[str, object]:
    """Return what decides the data besides this code: nothing, they ship with scikit-learn."""
    return {}


def as_of() -> datetime:
    """Return the time at which the data were taken: when the last label had become known."""
    return HOLDOUT_FROM + timedelta(days=1)


def holdout(labels: pa.Table) -> pa.ChunkedArray:
    """Return which label rows are held out: the last 600 captures, of other people's hands."""
    return pc.greater_equal(labels["event_timestamp"], pa.scalar(HOLDOUT_FROM))


def write(folder: Path) -> None:
    """Write the feature source and the labels as Parquet files."""
    pq.write_table(features(), folder / "captures.parquet")
    pq.write_table(labels(), folder / "labels.parquet")


def _times(n: int) -> list[datetime]:
    return [FIRST_CAPTURE + i * BETWEEN_CAPTURES for i in range(n)]


def features() -> pa.Table:
    """Return the feature source: one row per capture, with event and created timestamps."""
    pixels = load_digits().data.astype(np.float32)
    times = _times(len(pixels))
    stamp = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "capture_id": pa.array(np.arange(len(pixels)), pa.int64()),
            "event_timestamp": pa.array(times, stamp),
            "created_timestamp": pa.array([t + UNTIL_KNOWN for t in times], stamp),
            "pixels": pa.array(list(pixels), pa.list_(pa.float32())),
            **{name: pa.array(v, pa.float64()) for name, v in capture_features(pixels).items()},
        }
    )


def labels() -> pa.Table:
    """Return the entity dataframe: join key, event timestamp of the label, label."""
    target = load_digits().target
    return pa.table(
        {
            "capture_id": pa.array(np.arange(len(target)), pa.int64()),
            "event_timestamp": pa.array(
                [t + UNTIL_LABELLED for t in _times(len(target))], pa.timestamp("us", tz="UTC")
            ),
            "label": pa.array(target, pa.int64()),
        }
    )
