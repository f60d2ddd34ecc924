"""Laws of the features stage, on a real Feast store."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import features, workload
from penstock.bundle import read
from penstock.features.join import JoinError
from penstock.features.snapshot import (
    content_hash,
    differing,
    key_hash,
    known,
    on_labels,
    split,
)
from penstock.features.source import SourceError
from penstock.workload import load
from tests import bundles
from workloads.digits import data

STAMP = pa.timestamp("us", tz="UTC")
T = datetime(2026, 1, 5, tzinfo=UTC)


def labels(ids: list[int]) -> pa.Table:
    """Return label rows of these captures, a minute apart."""
    times = [T + timedelta(minutes=i) for i in range(len(ids))]
    return pa.table({"capture_id": ids, "event_timestamp": pa.array(times, STAMP)})


def test_the_labels_come_back_as_they_were():
    """The snapshot has the labels' own columns and order, doubled keys included."""
    wanted = labels([3, 1, 3])
    nanoseconds = wanted["event_timestamp"].cast(pa.timestamp("ns", tz="UTC"))
    joined = wanted.set_column(1, "event_timestamp", nanoseconds)
    joined = joined.append_column("x", pa.array([10, 20, 30]))

    got = on_labels(joined, wanted)

    assert got.select(wanted.column_names).equals(wanted)
    assert got["x"].to_pylist() == [10, 20, 30]


@pytest.mark.parametrize("returned", [[1, 2], [1, 3, 2], [1, 2, 9], [1, 2, 3, 3]])
def test_lost_doubled_moved_or_foreign_rows_are_refused(returned: list[int]):
    """A join that loses, doubles, moves or invents rows never becomes a snapshot."""
    with pytest.raises(JoinError):
        on_labels(labels(returned), labels([1, 2, 3]))


def test_the_split_loses_nothing():
    """Every row goes to one side."""
    rows = labels([1, 2, 3, 4])

    train, holdout = split(rows, pa.chunked_array([[False, False, True, True]]))

    assert train["capture_id"].to_pylist() == [1, 2]
    assert holdout["capture_id"].to_pylist() == [3, 4]


def test_a_label_that_was_not_known_yet_is_left_out():
    """What happened less than the label's delay ago has no label to learn from."""
    rows = labels([1, 2, 3, 4])

    kept = known(rows, time="event_timestamp", delay=timedelta(minutes=2),
                 as_of=T + timedelta(minutes=3))  # fmt: skip

    assert kept["capture_id"].to_pylist() == [1, 2]


def test_skew_in_the_last_bit_is_seen():
    """Online and offline values that differ in the last bit differ."""
    rows = pa.table({"k": [1], "x": [0.1 + 0.2], "y": [1.0]})

    assert differing(rows, {"k": [1], "x": [0.3], "y": [1.0]}, keys=["k"]) == ["x"]


def test_the_real_store_gives_what_was_known(tmp_path: Path):
    """The snapshot from Feast equals a join by hand, bit for bit, and online values equal it."""
    features.run(workload="digits", out=tmp_path / "out", now=bundles.NOW)

    made = read(tmp_path / "out", kind="snapshot")
    got = pa.concat_tables(
        [pq.read_table(made.file(f"{part}.parquet")) for part in ("train", "holdout")]
    )
    by_hand = bundles.rows()
    for name in by_hand.column_names:
        assert got[name].to_pylist() == by_hand[name].to_pylist(), name
    proof = made.json("proof.json")
    assert proof["rows"] == {
        "written": 1797,
        "labels": 1797,
        "joined": 1797,
        "train": 1197,
        "holdout": 600,
    }
    assert proof["keys"]["labels"] == proof["keys"]["joined"]
    assert [(v["view"], v["found"]) for v in proof["views"]] == [("capture_ink", 1797)]
    assert {"pixels", "ink_mean"} <= set(proof["planted"])
    assert proof["unused_features"] == []


def test_the_same_data_give_the_same_bytes(tmp_path: Path):
    """Made twice, every file of the snapshot is the same, the online store too."""
    features.run(workload="digits", out=tmp_path / "a", now=bundles.NOW)
    features.run(workload="digits", out=tmp_path / "b", now=bundles.NOW + timedelta(days=1))

    first, second = read(tmp_path / "a"), read(tmp_path / "b")
    assert first.manifest["files"] == second.manifest["files"]


def rewritten(name: str, change: Any) -> Any:
    """Return a breaker that changes one Parquet file after all were written."""

    def broken(folder: Path) -> None:
        path = folder / f"{name}.parquet"
        pq.write_table(change(pq.read_table(path)), path)

    return broken


def cut(folder: Path) -> None:
    """Lose the end of the feature source."""
    path = folder / "captures.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def unreadable_labels(folder: Path) -> None:
    """Leave something that is no Parquet file."""
    (folder / "labels.parquet").write_bytes(b"label\n1\n")


def in_the_future(rows: pa.Table) -> pa.Table:
    """Take seconds for milliseconds in the last row."""
    times = rows["event_timestamp"].to_pylist()
    return bundles.replaced(
        rows, "event_timestamp", pa.array([*times[:-1], times[-1].replace(year=2090)], STAMP)
    )


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (cut, "captures.parquet is not a whole Parquet file"),
        (unreadable_labels, "the labels cannot be read"),
        (rewritten("labels", lambda t: t.slice(0, 0)), "none of 0 labels was known"),
        (rewritten("labels", lambda t: t.drop_columns(["event_timestamp"])),
         "the labels have no column 'event_timestamp'; they hold capture_id"),
        (rewritten("labels", in_the_future), "1 of 1797 rows of the labels have a event_timestamp"),
        (rewritten("captures", in_the_future), "1 of 1797 rows of view capture_ink have a"),
        (rewritten("captures", lambda t: bundles.replaced(
            t, "capture_id", [str(v) for v in t["capture_id"].to_pylist()])),
         "the labels' key is int64 and the source's is string"),
        (rewritten("captures", lambda t: t.drop_columns(["ink_mean"])), "has no column ink_mean"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_joined_are_refused_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any, said: str
):
    """Each with its own sentence, at the stage's door; no half of a snapshot stays."""
    write = data.write

    def written(folder: Path) -> None:
        write(folder)
        broken(folder)

    monkeypatch.setattr(data, "write", written)

    with pytest.raises((JoinError, SourceError), match=said):
        features.run(workload="digits", out=tmp_path / "out", now=bundles.NOW)

    assert list(tmp_path.iterdir()) == []


def test_a_service_that_is_not_defined_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With those that are."""
    declared = replace(load("digits"), feature_service="digits_v9")
    monkeypatch.setattr(workload, "load_data", lambda _: declared)

    with pytest.raises(
        JoinError, match="no feature service 'digits_v9' is defined; there is digits_v1"
    ):
        features.run(workload="digits", out=tmp_path / "out", now=bundles.NOW)


def test_a_view_that_is_not_defined_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A service may name a view that no module-level name holds."""
    module = importlib.import_module("feature_repo.digits")
    path = tmp_path / "digits_without_view.py"
    text = Path(module.__file__ or "").read_text()
    path.write_text(f"{text}\ndel capture_ink\n")
    monkeypatch.setattr(importlib, "reload", lambda m: _loaded(m.__name__, path))

    with pytest.raises(JoinError, match="names view capture_ink, which is not defined; there is"):
        features.run(workload="digits", out=tmp_path / "out", now=bundles.NOW)


def _loaded(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VALUES: dict[str, Any] = {
    "n": st.lists(st.none() | st.integers(-5, 5)),
    "x": st.lists(st.none() | st.floats(allow_nan=False)),
    "s": st.lists(st.none() | st.sampled_from(["", "a", "b", "ab", "é"])),
    "b": st.lists(st.none() | st.booleans()),
    "l": st.lists(st.none() | st.lists(st.none() | st.sampled_from(["", "a"]), max_size=3)),
}
TYPES = {"n": pa.int64(), "x": pa.float64(), "s": pa.string(), "b": pa.bool_(),
         "l": pa.list_(pa.string())}  # fmt: skip


columns = st.sampled_from(sorted(VALUES))


@given(columns.flatmap(lambda n: st.tuples(st.just(n), VALUES[n], VALUES[n])), st.integers(0, 9))
def test_equal_contents_have_equal_hashes_however_they_are_cut(
    drawn: tuple[str, list[Any], list[Any]], cut: int
):
    """The hash knows values, not chunks; and other values have another hash."""
    name, values, other = drawn
    whole = pa.table({name: pa.array(values, TYPES[name])})
    pieces = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    another = pa.table({name: pa.array(other, TYPES[name])})

    assert content_hash(whole) == content_hash(pieces)
    assert (content_hash(whole) == content_hash(another)) == (repr(values) == repr(other))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8), st.randoms())
def test_keys_are_hashed_as_a_multiset(pairs: list[tuple[int, int]], random: Random):
    """Order does not matter; how often a key occurs does."""
    shuffled = pairs[:]
    random.shuffle(shuffled)

    def hashed(rows: list[tuple[int, int]]) -> str:
        columns = {n: pa.array([r[i] for r in rows], pa.int64()) for i, n in enumerate("kt")}
        return key_hash(pa.table(columns), ["k", "t"])

    assert hashed(pairs) == hashed(shuffled)
    assert hashed(pairs) != hashed([*pairs, (0, 0)])
