"""The law of serving: through a day, what is looked up is what training would have joined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.features import feast as feasting
from penstock.features.step import TIME
from penstock.online import Layout, Lookup, opened
from penstock.workload import root
from tests.online.servers import redis_server
from workloads.streamrec import data

SERVICE = "streamrec_v1"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four days of a small simulation, with rows that arrive late and entities that are new."""
    folder = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(data.VARIABLE, json.dumps({"impressions": 4_000, "days": 4}))
        data.write(folder)
        yield folder


def entities(sources: Path) -> list[dict[str, int]]:
    """Return every user, item and category that labels name, and one nobody knows."""
    labels = pq.read_table(sources / "labels.parquet", columns=["user_id", "item_id", "category"])
    rows = labels.group_by(labels.column_names).aggregate([]).to_pylist()
    return [*rows[:400], {"user_id": 10**9, "item_id": 10**9, "category": 0}]


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_day_replayed_online_is_the_day_that_training_joined(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """At every hour, for every entity, each value is bit for bit what the join gives."""
    asked = entities(sources)
    if kind == "sqlite":
        replay(sources, tmp_path, asked, address=str(tmp_path / feasting.ONLINE))
        return
    with redis_server() as server:
        monkeypatch.setenv("PENSTOCK_REDIS", f"127.0.0.1:{server.port},db=0")
        settings = root() / "feature_repo" / "cluster.yaml"
        replay(sources, tmp_path, asked, address=server.url, settings=settings)


def replay(
    sources: Path,
    scratch: Path,
    asked: list[dict[str, int]],
    *,
    address: str,
    settings: Path | None = None,
) -> None:
    """Materialize hour after hour of the last day, and compare at each."""
    start, end = data.as_of() - timedelta(days=30), data.as_of()
    found = missing = 0
    with feasting.opened(sources, module="streamrec", scratch=scratch, settings=settings) as store:
        layout = feasting.layout(store, service=SERVICE, definitions="sha256:0")
        layout = Layout.from_dict(layout.to_dict())
        for hour in range(24):
            # Minutes past the hour, when some rows of the hour before are known and some are not.
            at = end - timedelta(hours=23 - hour) + timedelta(minutes=7)
            feasting.fill(store, start=start, end=at)
            lookup = Lookup(layout, opened(address, layout, timeout_s=5.0), clock=lambda at=at: at)
            online = lookup.get_many(asked)
            labels = pa.Table.from_pylist(asked)
            times = pa.array([at] * len(asked), pa.timestamp("us", "UTC"))
            offline, _ = feasting.join(
                store, service=SERVICE, labels=labels.append_column(TIME, times)
            )
            names = [n for n in offline.column_names if n not in (*labels.column_names, TIME)]
            for row, served in zip(offline.select(names).to_pylist(), online, strict=True):
                assert repr(served.values) == repr(row)
                found += sum(v is not None for v in row.values())
                missing += sum(v is None for v in row.values())
    assert found > 20_000
    assert missing > 1_000
