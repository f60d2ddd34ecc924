"""Laws of the join over real Parquet files: every row back, in order, and what the oracle says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from penstock.features import join as joins
from penstock.features.join import JoinError, View, joined, newest
from penstock.features.pointintime import MISSING
from penstock.features.source import Columns, Source, SourceError
from tests.features.oracle import Row, known

T = datetime(2026, 3, 8, 9, 59, tzinfo=UTC)
"""A minute before clocks go forward in Los Angeles."""

ZONES = ("UTC", "America/Los_Angeles", "+05:30")
UNITS = ("s", "ms", "us", "ns")
HERE = fs.LocalFileSystem()

minutes = st.integers(0, 6)
keys = st.sampled_from([None, "ana", "bo", "çe"])
feature_rows = st.lists(
    st.tuples(keys, st.none() | minutes, st.none() | minutes, st.none() | st.integers(0, 99)),
    max_size=16,
)
label_rows = st.lists(st.tuples(keys | st.just("nobody"), minutes), max_size=10)


def at(minute: int | None) -> datetime | None:
    """Return an instant by its minute."""
    return None if minute is None else T + timedelta(minutes=minute)


def write(path: Path, rows: Sequence[tuple[Any, ...]], *, unit: str, zone: str, group: int) -> None:
    """Write feature rows of key, event, created and value."""
    stamp = pa.timestamp(unit, zone)
    table = pa.table(
        {
            "who": pa.array([r[0] for r in rows], pa.string()),
            "happened": pa.array([at(r[1]) for r in rows], stamp),
            "known": pa.array([at(r[2]) for r in rows], stamp),
            "score": pa.array([r[3] for r in rows], pa.int64()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def a_view(path: Path, *, created: bool = True, ttl: int | None = None, **over: Any) -> View:
    """Return a view of what ``write`` wrote."""
    plain: dict[str, Any] = {
        "name": "scores",
        "path": str(path),
        "columns": Columns(keys=("who",), event="happened", created="known" if created else None),
        "label_keys": ("user",),
        "features": {"score": "score"},
        "ttl": None if ttl is None else timedelta(minutes=ttl),
        "filesystem": HERE,
    }
    return View(**{**plain, **over})


def labels_of(rows: Sequence[tuple[Any, int]], *, unit: str = "us", zone: str = "UTC") -> pa.Table:
    """Return label rows of key and minute."""
    return pa.table(
        {
            "user": pa.array([r[0] for r in rows], pa.string()),
            "when": pa.array([at(r[1]) for r in rows], pa.timestamp(unit, zone)),
            "row": pa.array(range(len(rows)), pa.int64()),
        }
    )


@settings(max_examples=400)
@given(
    feature_rows,
    label_rows,
    st.booleans(),
    st.none() | st.integers(1, 3),
    st.tuples(st.sampled_from(UNITS), st.sampled_from(UNITS)),
    st.tuples(st.sampled_from(ZONES), st.sampled_from(ZONES)),
    st.integers(1, 5),
    st.integers(0, 16),
)
def test_rows_come_back_with_what_the_oracle_says(
    tmp_path_factory: pytest.TempPathFactory,
    held: list[tuple[Any, ...]],
    asked: list[tuple[Any, int]],
    created: bool,
    ttl: int | None,
    units: tuple[str, str],
    zones: tuple[str, str],
    group: int,
    cut: int,
):
    """Whatever the zones, units, row groups and files: rows in, the same rows out, and right."""
    folder = tmp_path_factory.mktemp("source")
    write(folder / "1.parquet", held[:cut], unit=units[0], zone=zones[0], group=group)
    write(folder / "2.parquet", held[cut:], unit=units[0], zone=zones[0], group=group)
    labels = labels_of(asked, unit=units[1], zone=zones[1])

    got, (proof,) = joined(labels, [a_view(folder, created=created, ttl=ttl)], time="when")

    plain = [Row(k, at(e), at(c), v) for k, e, c, v in held]
    limit = None if ttl is None else timedelta(minutes=ttl)
    told = [known(plain, k, at(m), ttl=limit, bitemporal=created) for k, m in asked]
    assert got.select(labels.column_names) == labels
    assert got["score"].to_pylist() == [None if row is None else row.value for row in told]
    assert (proof.labels, proof.found) == (len(asked), sum(row is not None for row in told))


def test_one_nanosecond_later_is_later(tmp_path: Path):
    """Nanoseconds in a source are not rounded away."""
    nano = pa.timestamp("ns", "UTC")
    event = pa.array([10_000, 10_001], pa.int64()).cast(nano)
    rows = pa.table({"who": ["ana", "ana"], "happened": event, "known": event, "score": [1, 2]})
    pq.write_table(rows, tmp_path / "s.parquet")
    when = pa.array([10], pa.int64()).cast(pa.timestamp("us", "UTC"))

    got, _ = joined(pa.table({"user": ["ana"], "when": when}), [a_view(tmp_path / "s.parquet")],
                    time="when")  # fmt: skip

    assert got["score"].to_pylist() == [1]


def test_several_views_and_keys_of_several_columns(tmp_path: Path):
    """Each view joins on its own keys; a combination that never occurs is missing."""
    stamp = pa.timestamp("us", "UTC")
    pair = pa.table(
        {
            "u": pa.array([1, 1, 2], pa.int32()),
            "i": ["x", "y", "x"],
            "happened": pa.array([T] * 3, stamp),
            "clicks": [11, 12, 21],
        }
    )
    pq.write_table(pair, tmp_path / "pairs.parquet")
    write(tmp_path / "s.parquet", [("x", 0, 0, 7)], unit="us", zone="UTC", group=1)
    labels = pa.table({"user": [2, 1, 2, None], "item": ["x", "y", "y", "x"],
                       "when": pa.array([T] * 4, stamp)})  # fmt: skip
    pairs = a_view(tmp_path / "pairs.parquet", name="pairs", label_keys=("user", "item"),
                   features={"clicks": "clicks"},
                   columns=Columns(keys=("u", "i"), event="happened", created=None))  # fmt: skip
    items = a_view(tmp_path / "s.parquet", label_keys=("item",))

    got, proofs = joined(labels, [pairs, items], time="when")

    assert got["clicks"].to_pylist() == [21, 12, None, None]
    assert got["score"].to_pylist() == [7, None, None, 7]
    assert [p.found for p in proofs] == [2, 2]


def test_a_view_without_keys_is_about_everything(tmp_path: Path):
    """One entity, which every label row is about."""
    write(
        tmp_path / "s.parquet", [(None, 0, 0, 5), (None, 2, 2, 6)], unit="us", zone="UTC", group=9
    )
    columns = Columns(keys=(), event="happened", created="known")
    view = a_view(tmp_path / "s.parquet", columns=columns, label_keys=())

    got, _ = joined(labels_of([("a", 1), (None, 3)]), [view], time="when")

    assert got["score"].to_pylist() == [5, 6]
    assert newest(view, at=T + timedelta(minutes=9))["score"].to_pylist() == [6]


@given(feature_rows, minutes, st.integers(1, 8))
def test_the_newest_row_of_each_entity_is_what_a_label_would_get(
    tmp_path_factory: pytest.TempPathFactory, held: list[tuple[Any, ...]], minute: int, ttl: int
):
    """What goes to the online store at a time is what a label of that time joins with."""
    path = tmp_path_factory.mktemp("source") / "s.parquet"
    write(path, held, unit="us", zone="UTC", group=4)
    view = a_view(path, ttl=ttl, label_keys=("who",),
                  features={"score": "score", "happened": "happened"})  # fmt: skip

    rows = newest(view, at=T + timedelta(minutes=minute))

    plain = [Row(k, at(e), at(c), v) for k, e, c, v in held]
    limit = timedelta(minutes=ttl)
    told = {k: known(plain, k, at(minute), ttl=limit, bitemporal=True) for k in ("ana", "bo", "çe")}
    got = dict(zip(rows["who"].to_pylist(), rows["score"].to_pylist(), strict=True))
    assert got == {k: row.value for k, row in told.items() if row is not None}


def naive(path: Path) -> None:
    """Write one row whose timestamps have no zone."""
    stamp = pa.array([datetime(2026, 3, 8, 10)], pa.timestamp("us"))  # noqa: DTZ001 - on purpose
    pq.write_table(
        pa.table({"who": ["ana"], "happened": stamp, "known": stamp, "score": [3]}), path
    )


def test_naive_timestamps_are_refused_or_declared(tmp_path: Path):
    """Without a zone nobody knows the instant; declared UTC, it is UTC."""
    naive(tmp_path / "s.parquet")
    labels = labels_of([("ana", 5)])
    with pytest.raises(SourceError, match=r"'happened' has no time zone.*naive_timestamps: utc"):
        joined(labels, [a_view(tmp_path / "s.parquet")], time="when")

    declared = Columns(keys=("who",), event="happened", created="known", naive_is_utc=True)
    got, _ = joined(labels, [a_view(tmp_path / "s.parquet", columns=declared)], time="when")

    assert got["score"].to_pylist() == [3]


def good(path: Path) -> None:
    """Write one good row."""
    write(path, [("ana", 0, 0, 1)], unit="us", zone="UTC", group=1)


def truncated(path: Path) -> None:
    """Write half a file."""
    good(path)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("make", "over", "asked", "said"),
    [
        (truncated, {}, None, "is not a whole Parquet file"),
        (lambda _: None, {}, None, "does not exist; write the feature source first"),
        (lambda p: p.mkdir(), {}, None, "holds no .parquet file"),
        (good, {"columns": Columns(keys=("whom",), event="happened", created=None)}, None,
         "has no column whom; it holds who, happened"),
        (good, {"columns": Columns(keys=("who",), event="score", created=None)}, None,
         "'score' is int64; a timestamp with a time zone was wanted"),
        (good, {"features": {"score": "points"}}, None, "has no column points"),
        (good, {"features": {"row": "score"}}, None, "brings row, which is there already"),
        (good, {"label_keys": ("person",)}, None, "keyed by person, which the labels do not have"),
        (good, {}, {"user": [1.5]}, "the labels' key is double and the source's is string"),
        (good, {}, {"when": pa.array([None], pa.timestamp("us", "UTC"))}, "1 of 1 label rows have"),
        (good, {}, {"when": ["today"]}, "'when' is string"),
        (good, {}, {"when": pa.array([10**15], pa.timestamp("s", "UTC"))}, "cannot count"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused_with_what_to_do(
    tmp_path: Path, make: Any, over: dict[str, Any], asked: dict[str, Any] | None, said: str
):
    """Each broken door has its own sentence."""
    make(tmp_path / "s")
    labels = labels_of([("ana", 1)])
    for name, values in (asked or {}).items():
        labels = labels.set_column(labels.schema.get_field_index(name), name, pa.array(values))

    with pytest.raises(SourceError, match=said):
        joined(labels, [a_view(tmp_path / "s", **over)], time="when")


def test_a_file_replaced_while_it_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Half of one file and half of another never become one training set."""
    path = tmp_path / "s.parquet"
    good(path)
    search = joins.newest_known

    def replaced(*given: Any, **named: Any) -> Any:
        write(path, [("ana", 0, 0, 2), ("bo", 0, 0, 2)], unit="us", zone="UTC", group=1)
        return search(*given, **named)

    monkeypatch.setattr(joins, "newest_known", replaced)

    with pytest.raises(SourceError, match="was replaced while it was read"):
        joined(labels_of([("ana", 1)]), [a_view(path)], time="when")


@pytest.mark.parametrize(
    ("row", "said"),
    [(1, "1 had not happened"), (2, "1 were not known"), (3, "1 belong to another entity"),
     (4, "1 had expired")],
)  # fmt: skip
def test_a_wrong_row_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int, said: str
):
    """Were the search ever wrong, the check of what it chose would say so."""
    rows = [("ana", 4, 4, 1), ("ana", 6, 6, 2), ("ana", 4, 6, 3), ("bo", 4, 4, 4), ("ana", 0, 0, 5)]
    write(tmp_path / "s.parquet", rows, unit="us", zone="UTC", group=9)
    labels = labels_of([("ana", 5), ("bo", 6), ("bo", 1)])
    view = a_view(tmp_path / "s.parquet", ttl=4)

    def wrong(*_: Any, **__: Any) -> Any:
        return np.array([row, MISSING, MISSING])

    monkeypatch.setattr(joins, "newest_known", wrong)

    with pytest.raises(JoinError, match=said):
        joined(labels, [view], time="when")


def test_row_groups_out_of_the_time_asked_about_are_not_read(tmp_path: Path):
    """Statistics spare reading what cannot matter, and change nothing."""
    write(tmp_path / "s.parquet", [("ana", m, m, m) for m in range(6)], unit="us", zone="UTC",
          group=2)  # fmt: skip
    columns = Columns(keys=("who",), event="happened", created="known")
    with Source(str(tmp_path / "s.parquet"), columns, filesystem=HERE) as source:
        instant = int(T.timestamp()) * 10**9
        groups = [g for _, g, _, _ in source._groups(instant, instant + 60 * 10**9)]
        all_of_them = [g for _, g, _, _ in source._groups(None, 2**62)]

    assert groups == [0]
    assert all_of_them == [0, 1, 2]


def test_an_offset_is_a_zone(tmp_path: Path):
    """The same instant written in another zone is the same instant."""
    kolkata = timezone(timedelta(hours=5, minutes=30))
    write(tmp_path / "s.parquet", [("ana", 0, 0, 1)], unit="us", zone="UTC", group=1)
    labels = pa.table({"user": ["ana"], "when": pa.array([T.astimezone(kolkata)],
                       pa.timestamp("us", "+05:30"))})  # fmt: skip

    got, _ = joined(labels, [a_view(tmp_path / "s.parquet")], time="when")

    assert got["score"].to_pylist() == [1]
