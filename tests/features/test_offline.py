"""Laws of the offline store inside a real Feast: its calls work unchanged, and tell the truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64

from penstock.features.source import SourceError

T = datetime(2026, 1, 5, 8, tzinfo=UTC)

# Feast warns of its own on-demand views.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")


def stamps(minutes: list[int | None]) -> pa.Array:
    """Return instants by their minute."""
    values = [None if m is None else T + timedelta(minutes=m) for m in minutes]
    return pa.array(values, pa.timestamp("us", "UTC"))


def repository(folder: Path, store: str) -> str:
    """Return the text of a feature_store.yaml."""
    return (
        "project: test\nprovider: local\n"
        f"registry: {folder / 'registry.db'}\n"
        f"online_store:\n  type: sqlite\n  path: {folder / 'online.db'}\n"
        f"offline_store:\n  type: {store}\nentity_key_serialization_version: 3\n"
        "materialization:\n  pull_latest_features: true\n"
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """A Feast store of two views, one with renamed columns, and a view computed on demand."""
    folder = tmp_path_factory.mktemp("feast")
    users = pa.table(
        {
            "uid": pa.array([1, 1, 1, 2], pa.int64()),
            "at": stamps([0, 10, 20, 5]),
            "seen": stamps([1, 11, 90, 5]),
            "n": pa.array([1, 2, 3, 9], pa.int64()),
        }
    )
    items = pa.table(
        {"item": ["x", "y"], "at": stamps([0, 0]), "price": pa.array([2.5, 4.0], pa.float64())}
    )
    pq.write_table(users, folder / "users.parquet")
    pq.write_table(items, folder / "items.parquet")
    (folder / "feature_store.yaml").write_text(
        repository(folder, "penstock.features.offline.PointInTimeOfflineStore")
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.STRING)
    visits = FeatureView(
        name="visits",
        entities=[user],
        ttl=timedelta(hours=1),
        schema=[Field(name="count", dtype=Int64)],
        source=FileSource(
            name="users",
            path=str(folder / "users.parquet"),
            timestamp_field="at",
            created_timestamp_column="seen",
            field_mapping={"uid": "user_id", "n": "count"},
        ),
    )
    prices = FeatureView(
        name="prices",
        entities=[item],
        ttl=timedelta(0),
        schema=[Field(name="price", dtype=Float64)],
        source=FileSource(name="items", path=str(folder / "items.parquet"), timestamp_field="at"),
    )

    @on_demand_feature_view(
        sources=[visits, prices], schema=[Field(name="spent", dtype=Float64)], mode="pandas"
    )
    def spending(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"spent": rows["count"] * rows["price"]})

    service = FeatureService(name="all", features=[visits, prices, spending])
    made = FeatureStore(repo_path=str(folder))
    made.apply([user, item, visits, prices, spending, service])
    return made


def labels() -> pd.DataFrame:
    """Return label rows: unsorted, one doubled, one of an unknown user."""
    return pd.DataFrame(
        {
            "user_id": [1, 2, 1, 7, 1, 1],
            "item": ["x", "y", "x", "y", "x", "x"],
            "event_timestamp": [T + timedelta(minutes=m) for m in (30, 6, 5, 6, 0, 30)],
            "clicked": [0, 1, 0, 1, 1, 0],
        }
    )


def test_feasts_own_call_gives_every_row_what_was_known(store: FeatureStore):
    """Renamed columns, an on-demand view, a value backfilled later, doubled rows: all in order."""
    service = store.get_feature_service("all")

    got = store.get_historical_features(entity_df=labels(), features=service).to_df()

    assert got["clicked"].tolist() == [0, 1, 0, 1, 1, 0]
    assert got["count"].astype("object").where(got["count"].notna(), None).tolist() == [
        2, 9, 1, None, None, 2,
    ]  # fmt: skip
    assert got["price"].tolist() == [2.5, 4.0, 2.5, 4.0, 2.5, 2.5]
    assert got["spent"].dropna().tolist() == [5.0, 36.0, 2.5, 5.0]


def test_names_may_carry_their_view(store: FeatureStore):
    """Two views may have a feature of one name."""
    job = store.get_historical_features(
        entity_df=labels(), features=["visits:count", "prices:price"], full_feature_names=True
    )

    assert {"visits__count", "prices__price"} <= set(job.to_arrow().column_names)


def test_what_is_materialized_is_what_was_known_then(store: FeatureStore):
    """The online store holds, at an instant, what a label of that instant joins with."""
    until = T + timedelta(minutes=30)
    store.materialize(T - timedelta(minutes=1), until)

    online = store.get_online_features(
        features=["visits:count"], entity_rows=[{"user_id": u} for u in (1, 2, 7)]
    ).to_dict()
    asked = pd.DataFrame({"user_id": [1, 2, 7], "event_timestamp": [until] * 3})
    offline = store.get_historical_features(entity_df=asked, features=["visits:count"]).to_arrow()

    assert online["count"] == [2, 9, None]
    assert online["count"] == offline["count"].to_pylist()


def test_rows_are_persisted_whole_and_not_over_others(store: FeatureStore, tmp_path: Path):
    """A file that exists is not lost to a saved data set."""
    path = tmp_path / "saved.parquet"
    job: Any = store.get_historical_features(entity_df=labels(), features=["prices:price"])

    job.persist(SavedDatasetFileStorage(path=str(path)))

    assert pq.read_table(path)["price"].to_pylist() == [2.5, 4.0, 2.5, 4.0, 2.5, 2.5]
    with pytest.raises(SourceError, match="exists; allow overwriting"):
        job.persist(SavedDatasetFileStorage(path=str(path)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (labels().drop(columns="user_id"), "user_id"),
        (labels().drop(columns="event_timestamp"), "0 columns of timestamps"),
        ("SELECT 1", "entity_df is str"),
    ],
    ids=["no key", "no time", "a query"],
)
def test_labels_that_cannot_be_joined_are_refused(store: FeatureStore, asked: Any, said: str):
    """Nothing is guessed."""
    with pytest.raises(Exception, match=said):
        store.get_historical_features(entity_df=asked, features=["visits:count"]).to_arrow()


def test_a_feature_that_no_view_has_is_refused(store: FeatureStore):
    """A misspelt name is Feast's to refuse, before anything is read."""
    with pytest.raises(Exception, match="prize"):
        store.get_historical_features(entity_df=labels(), features=["prices:prize"]).to_arrow()
