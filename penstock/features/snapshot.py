"""Turn joined rows into a training snapshot: nothing lost, nothing moved, named by its contents."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.features.join import JoinError

AT_ONCE = 65_536
"""Rows hashed at a time; part of the content hash."""


def on_labels(joined: pa.Table, labels: pa.Table) -> pa.Table:
    """Return the labels' own columns, then the features of the joined rows.

    Raises:
        JoinError: The join returned other rows than it was given, or in another order. Some stores
            drop rows that have no feature yet; training must not go on without them.
    """
    if len(joined) != len(labels):
        raise JoinError(
            f"the point-in-time join was given {len(labels)} label rows and returned "
            f"{len(joined)}; every label row must come back, with missing values where nothing was "
            "known."
        )
    for name in labels.column_names:
        got = joined[name].cast(labels[name].type)
        if not got.equals(labels[name]):
            raise JoinError(
                f"the point-in-time join returned other values of {name!r} than it was given, or "
                "in another order."
            )
    features = [n for n in joined.column_names if n not in labels.column_names]
    rows = labels
    for name in features:
        rows = rows.append_column(name, joined[name])
    return rows


def known(labels: pa.Table, *, time: str, delay: timedelta, as_of: datetime) -> pa.Table:
    """Return the labels whose values were known when the data were taken.

    Raises:
        JoinError: None was.
    """
    kept = labels.filter(pc.less_equal(labels[time], pa.scalar(as_of - delay)))
    if not len(kept):
        raise JoinError(
            f"none of {len(labels)} labels was known at {as_of}, {delay} after its event; take the "
            "data later, or more of them."
        )
    return kept


def split(rows: pa.Table, held_out: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
    """Return training rows and holdout rows."""
    return rows.filter(pc.invert(held_out)), rows.filter(held_out)


def differing(rows: pa.Table, online: dict[str, list[object]], *, keys: list[str]) -> list[str]:
    """Return the names of features whose online values are not bit for bit the offline ones."""
    names = [n for n in rows.column_names if n in online and n not in keys]
    return [n for n in names if rows[n].to_pylist() != online[n]]


def content_hash(rows: pa.Table) -> str:
    """Return a hash of a table's values, types and order, however it is cut into chunks.

    Equal tables in files with other row groups, compression or encodings have equal hashes.
    """
    h = hashlib.sha256()
    for name in rows.column_names:
        h.update(f"{name}\0{rows[name].type}\0{len(rows)}\0".encode())
        for start in range(0, len(rows), AT_ONCE):
            part = rows[name].slice(start, AT_ONCE).combine_chunks()
            _update(h, pa.concat_arrays(part.chunks) if isinstance(part, pa.ChunkedArray) else part)
    return "sha256:" + h.hexdigest()


def _update(h: Any, values: pa.Array) -> None:
    kind = values.type
    h.update(np.packbits(pc.is_null(values).to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(values), 0)
        h.update(lengths.cast(pa.int64()).to_numpy(zero_copy_only=False).tobytes())
        _update(h, pc.list_flatten(values))
        return
    present = pc.drop_null(values)
    if pa.types.is_dictionary(kind):
        present = present.cast(kind.value_type)
    if pa.types.is_timestamp(kind):
        present = present.cast(pa.int64())
    if pa.types.is_boolean(kind):
        present = present.cast(pa.uint8())
    if pa.types.is_primitive(present.type):
        h.update(np.ascontiguousarray(present.to_numpy(zero_copy_only=False)).tobytes())
        return
    for value in cast("list[Any]", present.to_pylist()):
        data = value if isinstance(value, bytes) else str(value).encode()
        h.update(len(data).to_bytes(8, "little") + data)


def key_hash(rows: pa.Table, names: list[str]) -> str:
    """Return a hash of the rows' keys and times as a multiset: their order does not matter."""
    keys = rows.select(names)
    return content_hash(keys.sort_by([(n, "ascending") for n in names]))
