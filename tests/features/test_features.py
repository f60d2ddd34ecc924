"""Laws of the features stage, on a real Feast store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import features
from penstock.bundle import read
from penstock.features.snapshot import JoinError, differing, in_label_order, split
from tests import bundles
from workloads.digits import data

STAMP = pa.timestamp("us", tz="UTC")
T = datetime(2026, 1, 5, tzinfo=UTC)


def labels(ids: list[int]) -> pa.Table:
    """Return label rows of these captures, a minute apart."""
    times = [T + timedelta(minutes=i) for i in range(len(ids))]
    return pa.table({"capture_id": ids, "event_timestamp": pa.array(times, STAMP)})


def test_order_and_timestamps_are_the_labels():
    """Whatever order the store returns, the snapshot has the labels' order and times."""
    wanted = labels([3, 1, 2])
    joined = labels([1, 2, 3]).append_column("x", pa.array([10, 20, 30]))

    got = in_label_order(joined, wanted, key="capture_id")

    assert got["capture_id"].to_pylist() == [3, 1, 2]
    assert got["x"].to_pylist() == [30, 10, 20]
    assert got["event_timestamp"].to_pylist() == wanted["event_timestamp"].to_pylist()


@pytest.mark.parametrize("returned", [[1, 2], [1, 2, 2], [1, 2, 9], [1, 2, 3, 3]])
def test_lost_doubled_or_foreign_rows_are_refused(returned: list[int]):
    """A join that loses, doubles or invents rows never becomes a snapshot."""
    with pytest.raises(JoinError):
        in_label_order(labels(returned), labels([1, 2, 3]), key="capture_id")


def test_the_split_is_by_time_and_loses_nothing():
    """Rows before the time train, rows from it on are held out."""
    rows = labels([1, 2, 3, 4])

    train, holdout = split(rows, holdout_from=T + timedelta(minutes=2))

    assert train["capture_id"].to_pylist() == [1, 2]
    assert holdout["capture_id"].to_pylist() == [3, 4]


def test_skew_in_the_last_bit_is_seen():
    """Online and offline values that differ in the last bit differ."""
    rows = pa.table({"k": [1], "x": [0.1 + 0.2], "y": [1.0]})

    assert differing(rows, {"k": [1], "x": [0.3], "y": [1.0]}, key="k") == ["x"]


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
    quality = made.json("quality.json")
    assert quality["labels"] == quality["joined"] == len(data.labels())
