"""Join label rows with what each feature view knew then: every row back, in order, and checked.

What was found is read again from the source and held against the rule row by row, so the proof does
not rest on the search that found it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import fs

from penstock.features.pointintime import MISSING, Asked, Ints, newest_known
from penstock.features.source import Columns, Keys, Source, SourceError, ticks

_AT, _FOUND = "penstock_asked_at", "penstock_found"
"""Columns of a question for newest rows: its time, and the event timestamp of the answer."""


class JoinError(ValueError):
    """The join would not be what it promises: rows lost, or values from the future."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One feature view: where its rows lie, and what of them is wanted."""

    name: str
    path: str
    columns: Columns
    label_keys: tuple[str, ...]
    """The labels' columns that hold the keys, in the order of ``columns.keys``."""

    features: Mapping[str, str]
    """Name in the result, and the source's column."""

    ttl: timedelta | None
    filesystem: fs.FileSystem


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was checked of one view's part of a join, over every label row."""

    view: str
    labels: int
    found: int
    """Label rows with a value; the others are missing."""

    considered: int
    """Feature rows of the right entities and times, of which the newest known was chosen."""

    oldest_s: float | None
    """Largest age of a value at its label's time, in seconds."""

    latest_created_s: float | None
    """Least time between a value becoming known and its label; never negative."""


def joined(
    labels: pa.Table, views: Sequence[View], *, time: str, naive_is_utc: bool = False
) -> tuple[pa.Table, list[Proof]]:
    """Return the label rows with each view's features appended, and the proof of each view.

    Args:
        time: The labels' timestamp column.

    Raises:
        SourceError: A source or the labels cannot be read as declared.
        JoinError: A value that was found contradicts the rule; nothing may be trained on it.
    """
    if time not in labels.column_names:
        held = ", ".join(labels.column_names)
        raise SourceError(f"the labels have no column {time!r}; they hold {held}.")
    times_m, there = ticks(_whole(labels[time]), name=time, naive_is_utc=naive_is_utc)
    if there is not None:
        missing = int((~there).sum())
        raise SourceError(
            f"{missing} of {len(labels)} label rows have no {time}; drop or mend them."
        )
    proofs: list[Proof] = []
    result = labels
    for view in views:
        if taken := [n for n in view.features if n in result.column_names]:
            raise SourceError(
                f"view {view.name} brings {', '.join(taken)}, which is there already; ask for full "
                "feature names."
            )
        columns, proof = _view(labels, times_m, view)
        for name, values in columns.items():
            result = result.append_column(name, values)
        proofs.append(proof)
    return result, proofs


def check(labels: pa.Table, views: Sequence[View]) -> None:
    """Look at every source's schema before anything is read or planted.

    Raises:
        SourceError: A source is not whole, lacks a column, or keys its rows by another type.
    """
    none = labels.slice(0, 0)
    for view in views:
        _require_keys(labels, view)
        with Source(view.path, view.columns, filesystem=view.filesystem) as source:
            source.require([*view.features.values()])
            types = [source.schema.field(k).type for k in view.columns.keys]
            Keys([_whole(none[k]) for k in view.label_keys], types, rows=0)


def _require_keys(labels: pa.Table, view: View) -> None:
    if absent := [k for k in view.label_keys if k not in labels.column_names]:
        raise SourceError(
            f"view {view.name} is keyed by {', '.join(absent)}, which the labels do not have; they "
            f"hold {', '.join(labels.column_names)}."
        )


def newest(view: View, *, at: datetime) -> pa.Table:
    """Return each entity's newest row known at a time, with its keys; for the online store.

    A row older than the view's ``ttl`` at that time is left out.
    """
    with Source(view.path, view.columns, filesystem=view.filesystem) as source:
        entities = source.entities()
        source.check_unchanged()
    asked = pa.array([at] * (len(entities) if view.label_keys else 1), pa.timestamp("us", "UTC"))
    labels = entities.append_column(_AT, asked) if view.label_keys else pa.table({_AT: asked})
    features = {n: c for n, c in view.features.items() if n not in view.columns.keys}
    asking = replace(view, features={**features, _FOUND: view.columns.event})
    rows, _ = joined(labels, [asking], time=_AT)
    found: pa.Table = rows.filter(rows[_FOUND].is_valid()).drop_columns([_AT, _FOUND])
    return found


def _view(labels: pa.Table, times_m: Ints, view: View) -> tuple[dict[str, pa.Array], Proof]:
    """Return one view's columns in the order of the labels."""
    _require_keys(labels, view)
    with Source(view.path, view.columns, filesystem=view.filesystem) as source:
        types = [source.schema.field(k).type for k in view.columns.keys]
        keys = Keys([_whole(labels[k]) for k in view.label_keys], types, rows=len(labels))
        ttl = _ttl(view)
        first = None if ttl is None or not len(labels) else int(times_m.min()) - ttl
        last = int(times_m.max()) if len(labels) else 0
        found = source.find(keys, first=first, last=last)
        at_m = newest_known(Asked(keys.codes_m, times_m), found.held, ttl=ttl)
        hit = at_m != MISSING
        rows, where = np.unique(found.rows_n[at_m[hit]], return_inverse=True)
        names = list(dict.fromkeys([*view.features.values(), *_checked(view)]))
        values = source.take(rows, names)
        source.check_unchanged()
    proof = _prove(values, where, keys, times_m, hit, view, considered=len(found.rows_n))
    indices = np.zeros(len(at_m), np.int64)
    indices[hit] = where
    spread = pa.array(indices, mask=~hit)
    return {n: _whole(values[c]).take(spread) for n, c in view.features.items()}, proof


def _checked(view: View) -> list[str]:
    created = [view.columns.created] if view.columns.created else []
    return [*view.columns.keys, view.columns.event, *created]


def _ttl(view: View) -> int | None:
    """Return a time to live in nanoseconds; Feast's zero means that values never expire."""
    return view.ttl // timedelta(microseconds=1) * 1000 if view.ttl else None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def _prove(
    values: pa.Table,
    where: NDArray[np.integer],
    keys: Keys,
    times_m: Ints,
    hit: NDArray[np.bool_],
    view: View,
    *,
    considered: int,
) -> Proof:
    """Check of every value that it is its label's entity, and that it was known and not expired."""

    def instants(name: str) -> Ints:
        naive = view.columns.naive_is_utc
        found, there = ticks(_whole(values[name]), name=name, naive_is_utc=naive)
        if there is not None:
            raise JoinError(f"view {view.name}: a row without {name} was chosen.")
        return found

    entities = keys.encode([_whole(values[k]) for k in view.columns.keys], rows=len(values))
    age = times_m[hit] - instants(view.columns.event)[where]
    wrong = int((entities[where] != keys.codes_m[hit]).sum())
    early, ttl = int((age < 0).sum()), _ttl(view)
    expired = 0 if ttl is None else int((age > ttl).sum())
    known: Ints | None = None
    late = 0
    if view.columns.created is not None:
        known = times_m[hit] - instants(view.columns.created)[where]
        late = int((known < 0).sum())
    if wrong or early or expired or late:
        raise JoinError(
            f"view {view.name}: of {int(hit.sum())} values {wrong} belong to another entity, "
            f"{early} had not happened, {late} were not known, {expired} had expired."
        )
    return Proof(
        view=view.name,
        labels=len(hit),
        found=int(hit.sum()),
        considered=considered,
        oldest_s=float(age.max()) / 1e9 if len(age) else None,
        latest_created_s=float(known.min()) / 1e9 if known is not None and len(known) else None,
    )
