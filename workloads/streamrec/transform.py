"""From an impression's features to the network's input: the same in training and in serving."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CATEGORIES = 8
HOURS = 24
USER_BUCKETS = 2**14
ITEM_BUCKETS = 2**11
"""Rows of the embeddings that ids share by their hash; a float32 holds whole numbers to 2**24."""

USUAL_RATE = 0.1
"""What the smoothed rates and tastes say of someone of whom nothing is known."""

LEAST_RATE = 0.01
"""Rates below count as this: a job that writes zeros must not give infinite log-odds."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def log_odds(rate_n: Floats) -> Floats:
    """Return rates as log-odds above those of ``USUAL_RATE``, so that 0 is what a newcomer has."""
    held = np.clip(rate_n, LEAST_RATE, 1 - LEAST_RATE)
    return np.log(held / (1 - held)) - np.log(USUAL_RATE / (1 - USUAL_RATE))


def _centred(share_n: Floats) -> Floats:
    return share_n - 0.5


NULLABLE: dict[str, tuple[Callable[[Floats], Floats], float]] = {
    "user_impressions_24h": (np.log1p, np.inf),
    "user_clicks_24h": (np.log1p, np.inf),
    "user_rate_24h": (log_odds, 1),
    "item_impressions_24h": (np.log1p, np.inf),
    "item_clicks_24h": (np.log1p, np.inf),
    "item_rate_24h": (log_odds, 1),
    "taste": (log_odds, 1),
    "taste_weight": (np.log1p, np.inf),
    "tenure_days": (np.log1p, np.inf),
    "mobile_share": (_centred, 1),
}
"""Columns that may be missing: how each is brought to about -3 to 6, and its largest value. Counts
have heavy tails, which as they are would leave no int8 steps to the others."""

NUMBERS = (*NULLABLE, *(f"{name}_missing" for name in NULLABLE), "mobile")
IDS = ("hour", "category", "user_bucket", "item_bucket")
FEATURES = (*NUMBERS, *IDS)
"""Names of the packed columns, in order; those of ``IDS`` are whole numbers from 0."""


def bucket(ids_n: Ints, buckets: int) -> Ints:
    """Return the bucket of each id, 0 to ``buckets - 1``; the same in every process and machine.

    Fibonacci hashing (Knuth, *The Art of Computer Programming* 3, section 6.4): the top bits of a
    product with 2**64 over the golden ratio. Ids that count up, as ours do, spread evenly, so that
    hardly two share a bucket while there are fewer ids than buckets.

    Args:
        buckets: A power of two.
    """
    shift = np.uint64(65 - buckets.bit_length())
    return ((ids_n.astype(np.uint64) * _GOLDEN) >> shift).astype(np.int64)


def training_input(rows: pa.Table) -> NDArray[np.float32]:
    """Return the network's input, shape [n, len(FEATURES)]; each row depends on itself alone.

    A missing value is 0 with a 1 in the column that says so.

    Raises:
        ValueError: A column is not there, or holds what it cannot: a missing id or time, a rate
            outside 0 to 1, a negative count or id, an unknown category.
    """
    values: list[Floats] = []
    missing: list[NDArray[np.bool_]] = []
    for name, (scaled, high) in NULLABLE.items():
        held = _column(rows, name)
        unknown = np.isnan(held)
        _refuse(name, held, ~unknown & ~((held >= 0) & (held <= high) & np.isfinite(held)))
        values.append(np.where(unknown, 0.0, scaled(np.where(unknown, 0.0, held))))
        missing.append(unknown)
    mobile = _whole(rows, "mobile", below=2)
    packed = [*values, *missing, mobile, *_ids(rows)]
    return np.column_stack(packed).astype(np.float32)


def _ids(rows: pa.Table) -> tuple[Ints, ...]:
    instant = _present(rows, "event_timestamp").to_numpy()  # of a time with a zone, in UTC
    return (
        instant.astype("datetime64[h]").astype(np.int64) % HOURS,
        _whole(rows, "category", below=CATEGORIES),
        bucket(_whole(rows, "user_id"), USER_BUCKETS),
        bucket(_whole(rows, "item_id"), ITEM_BUCKETS),
    )


def _present(rows: pa.Table, name: str) -> pa.ChunkedArray:
    # The names as a list take longer to make than all else that is done to a column.
    if rows.schema.get_field_index(name) < 0:
        raise ValueError(
            f"the rows have no column {name!r}; they have {', '.join(rows.column_names)}."
        )
    column = rows[name]
    if name not in NULLABLE and column.null_count:
        raise ValueError(
            f"{name} is missing in {column.null_count} of {len(column)} rows; no impression is "
            "without it."
        )
    return column


def _column(rows: pa.Table, name: str) -> Floats:
    """Return a column as float64, missing values as NaN."""
    return _present(rows, name).cast("float64").to_numpy()


def _whole(rows: pa.Table, name: str, *, below: int | None = None) -> Ints:
    held = _present(rows, name).cast("int64").to_numpy()
    _refuse(name, held, (held < 0) | (held >= below if below else False))
    return held


def _refuse(name: str, held: Floats | Ints, impossible_n: NDArray[np.bool_]) -> None:
    if impossible_n.any():
        raise ValueError(
            f"{name} is {held[impossible_n][0]} in one of {int(impossible_n.sum())} rows that are "
            "impossible; the data checks say which values it may have."
        )
