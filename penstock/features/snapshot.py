"""Turn joined rows into a training snapshot: nothing lost, nothing reordered, split by time."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc


class JoinError(ValueError):
    """The feature store returned other rows than the labels it was given."""


def in_label_order(joined: pa.Table, labels: pa.Table, *, key: str) -> pa.Table:
    """Return the joined rows in the labels' order, with the labels' own timestamps.

    Raises:
        JoinError: Rows are missing, added or doubled. Feast's file store drops rows that have no
            feature yet or share key and time with another; training must not go on without them.
    """
    wanted, got = labels[key].combine_chunks(), joined[key].combine_chunks()
    if len(got) != len(wanted):
        raise JoinError(
            f"the point-in-time join was given {len(wanted)} label rows and returned {len(got)}; "
            "every label row must come back, with missing values where nothing was known."
        )
    where = pc.index_in(wanted, value_set=got)
    if where.null_count or pc.count_distinct(got).as_py() != len(got):
        raise JoinError(
            f"the point-in-time join returned other values of {key!r} than it was given "
            f"({where.null_count} missing); give each label row its own {key}."
        )
    ordered = joined.take(where)
    return ordered.set_column(
        ordered.schema.get_field_index("event_timestamp"),
        "event_timestamp",
        labels["event_timestamp"],
    )


def split(rows: pa.Table, *, holdout_from: datetime) -> tuple[pa.Table, pa.Table]:
    """Return training rows and holdout rows: before the time, and from it on."""
    later = pc.greater_equal(rows["event_timestamp"], pa.scalar(holdout_from))
    return rows.filter(pc.invert(later)), rows.filter(later)


def differing(rows: pa.Table, online: dict[str, list[object]], *, key: str) -> list[str]:
    """Return the names of features whose online values are not bit for bit the offline ones."""
    names = [n for n in rows.column_names if n in online and n != key]
    return [n for n in names if rows[n].to_pylist() != online[n]]
