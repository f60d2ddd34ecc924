"""Laws of online features, on a real Feast, SQLite and Redis: what training joined is served."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    UnixTimestamp,
)
from redis import Redis as Client

from penstock.features import feast as feasting
from penstock.features.join import JoinError
from penstock.online import Layout, Lookup, OnlineError, opened
from penstock.online.wire import key_prefix, key_value
from penstock.workload import Freshness, OnStale
from tests.online.servers import Redis, redis_server

T = datetime(2026, 1, 5, 8, tzinfo=UTC)
SERVICE = "all"
HASH = "sha256:definitions"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A Redis server for this module."""
    with redis_server() as server:
        yield server


def stamps(minutes: list[int]) -> pa.Array:
    """Return instants by their minute."""
    return pa.array([T + timedelta(minutes=m) for m in minutes], pa.timestamp("us", "UTC"))


def write_sources(folder: Path) -> None:
    """Write rows of every type, of keys of one and two columns and none, some values missing."""
    users = {
        "user_id": pa.array([1, 2], pa.int64()),
        "event_timestamp": stamps([0, 30]),
        "i64": pa.array([-5, None], pa.int64()),
        "i32": pa.array([7, 8], pa.int32()),
        "f64": pa.array([0.1, -0.0], pa.float64()),
        "f32": pa.array([0.1, 3.0], pa.float32()),
        "yes": pa.array([True, False], pa.bool_()),
        "text": pa.array(["é", ""], pa.string()),
        "raw": pa.array([b"\0\1", b""], pa.binary()),
        "at": stamps([1, 2]),
        "many": pa.array([[1.5, 2.5], []], pa.list_(pa.float64())),
        "words": pa.array([["a", ""], ["b"]], pa.list_(pa.string())),
    }
    pairs = {
        "user_id": pa.array([1, 1], pa.int64()),
        "category": ["x", "y"],
        "event_timestamp": stamps([0, 0]),
        "taste": [0.25, 0.75],
    }
    everything = {"event_timestamp": stamps([0]), "load": [42]}
    for name, columns in (("users", users), ("pairs", pairs), ("everything", everything)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def a_store(folder: Path, online: str) -> FeatureStore:
    """Return a real Feast store whose online values lie where the text says."""
    folder.mkdir()
    write_sources(folder)
    (folder / "feature_store.yaml").write_text(
        "project: test\nprovider: local\n"
        f"registry: {folder / 'registry.db'}\n"
        f"online_store:\n{online}"
        "offline_store:\n  type: penstock.features.offline.PointInTimeOfflineStore\n"
        "entity_key_serialization_version: 3\nmaterialization:\n  pull_latest_features: true\n"
    )

    def source(name: str) -> FileSource:
        path = str(folder / f"{name}.parquet")
        return FileSource(name=name, path=path, timestamp_field="event_timestamp")

    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    category = Entity(name="category", join_keys=["category"], value_type=ValueType.STRING)
    users = FeatureView(
        name="users",
        entities=[user],
        ttl=timedelta(hours=2),
        schema=[
            Field(name="i64", dtype=Int64),
            Field(name="i32", dtype=Int32),
            Field(name="f64", dtype=Float64),
            Field(name="f32", dtype=Float32),
            Field(name="yes", dtype=Bool),
            Field(name="text", dtype=String),
            Field(name="raw", dtype=Bytes),
            Field(name="at", dtype=UnixTimestamp),
            Field(name="many", dtype=Array(Float64)),
            Field(name="words", dtype=Array(String)),
        ],
        source=source("users"),
    )
    tastes = FeatureView(
        name="pairs",
        entities=[user, category],
        ttl=timedelta(0),
        schema=[Field(name="taste", dtype=Float64)],
        source=source("pairs"),
    )
    load = FeatureView(
        name="everything",
        entities=[],
        ttl=timedelta(0),
        schema=[Field(name="load", dtype=Int64)],
        source=source("everything"),
    )
    service = FeatureService(name=SERVICE, features=[users, tastes, load])
    store = FeatureStore(repo_path=str(folder))
    store.apply([user, category, users, tastes, load, service])
    store.materialize(T - timedelta(days=1), T + timedelta(hours=1))
    return store


class Case:
    """A filled store: Feast's view of it, and where it lies."""

    def __init__(self, store: FeatureStore, address: str) -> None:
        self.store, self.address = store, address

    def layout(self, *freshness: Freshness) -> Layout:
        """Return where the values lie."""
        return feasting.layout(self.store, service=SERVICE, definitions=HASH, freshness=freshness)

    def lookup(self, *freshness: Freshness, minute: float = 60) -> Lookup:
        """Return a look-up at a minute."""
        # What travels is the JSON form; so it is what is tested.
        layout = Layout.from_dict(self.layout(*freshness).to_dict())
        at = T + timedelta(minutes=minute)
        return Lookup(layout, opened(self.address, layout, timeout_s=1.0), clock=lambda: at)


@pytest.fixture(scope="module")
def sqlite_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A store in SQLite."""
    folder = tmp_path_factory.mktemp("sqlite") / "repo"
    path = folder / "online.db"
    return Case(a_store(folder, f"  type: sqlite\n  path: {path}\n"), str(path))


@pytest.fixture(scope="module")
def redis_case(tmp_path_factory: pytest.TempPathFactory, redis: Redis) -> Case:
    """A store in Redis."""
    folder = tmp_path_factory.mktemp("redis") / "repo"
    text = f'  type: redis\n  connection_string: "127.0.0.1:{redis.port},db=0"\n'
    return Case(a_store(folder, text), redis.url)


@pytest.fixture(params=["sqlite", "redis"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each kind of store."""
    return request.getfixturevalue(f"{request.param}_case")


ENTITIES = [
    {"user_id": 1, "category": "x"},
    {"user_id": 2, "category": "x"},
    {"user_id": 1, "category": "y"},
    {"user_id": 9, "category": "z"},
]


def test_values_are_those_of_feasts_own_call(case: Case):
    """Every type, keys of two columns and of none, missing values, an entity nobody knows."""
    service = case.store.get_feature_service(SERVICE)
    wanted = case.store.get_online_features(features=service, entity_rows=ENTITIES).to_dict()

    found = case.lookup().get_many(ENTITIES)

    names = list(found[0].values)
    assert sorted([*names, "user_id", "category"]) == sorted(wanted)
    for at, row in enumerate(found):
        feasts = {n: wanted[n][at] for n in names}
        assert repr(row.values) == repr(feasts)
        assert not row.stale
    assert found[0].values["i64"] == -5
    assert math.copysign(1, found[1].values["f64"]) == -1
    assert found[3].values == {**dict.fromkeys(names), "load": 42}


def test_ages_do_not_depend_on_the_zone_of_the_machine_that_materialized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Feast's SQLite store takes UTC for local time; where ours fills it, a minute is a minute."""
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        store = a_store(tmp_path / "repo", f"  type: sqlite\n  path: {tmp_path / 'online.db'}\n")
        out = tmp_path / "copy.db"
        feasting.materialize(store, start=T - timedelta(days=1), end=T + timedelta(hours=1),
                             scratch=tmp_path, online=out)  # fmt: skip
    finally:
        monkeypatch.undo()
        time.tzset()
    case = Case(store, str(out))

    assert case.lookup(minute=119).get(ENTITIES[0]).values["i32"] == 7
    assert case.lookup(minute=121).get(ENTITIES[0]).values["i32"] is None


def test_each_feature_of_a_view_has_its_own_limit(case: Case):
    """At the longer one exactly, only the other is stale."""
    short, long = (
        Freshness(feature=n, max_staleness=timedelta(minutes=m), on_stale=OnStale.SERVE_STALE)
        for n, m in (("f64", 30), ("i32", 60))
    )

    assert case.lookup(short, long, minute=60).get(ENTITIES[0]).stale == ("f64",)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_row_that_corrects_another_of_the_same_time_arrives(
    tmp_path: Path, redis: Redis, kind: str
):
    """The later row of one event time counts, online as in the join."""
    text = f"  type: sqlite\n  path: {tmp_path / 'online.db'}\n"
    if kind == "redis":
        # As feature_repo/cluster.yaml has it; without it Feast keeps the first.
        text = f'  type: redis\n  connection_string: "127.0.0.1:{redis.port},db=1"\n'
        text += "  skip_dedup: true\n"
    store = a_store(tmp_path / "repo", text)
    path = tmp_path / "repo" / "pairs.parquet"
    rows = pq.read_table(path)
    right = rows.set_column(3, "taste", pa.array([0.5, 0.5]))
    pq.write_table(pa.concat_tables([rows, right]), path)

    feasting.fill(store, start=T - timedelta(days=1), end=T + timedelta(hours=1))

    address = str(tmp_path / "online.db") if kind == "sqlite" else redis.url.replace("/0", "/1")
    assert Case(store, address).lookup().get(ENTITIES[0]).values["taste"] == 0.5


def test_f11_features_that_no_service_asks_for_are_reported(sqlite_case: Case, tmp_path: Path):
    """Computed, stored and kept fresh for nobody."""
    assert feasting.unused(sqlite_case.store) == []
    store = a_store(tmp_path / "repo", f"  type: sqlite\n  path: {tmp_path / 'online.db'}\n")
    users = store.get_feature_view("users")
    few = [users[["i64", "text"]], store.get_feature_view("everything")]
    store.apply([FeatureService(name=SERVICE, features=few)])

    assert feasting.unused(store) == [
        "pairs:taste",
        *sorted(f"users:{f.name}" for f in users.features if f.name not in ("i64", "text")),
    ]


def test_entities_that_nobody_knows_are_counted(case: Case):
    """By view, however many are asked for at once."""
    lookup = case.lookup()

    lookup.get_many(ENTITIES)
    lookup.get(ENTITIES[3])

    assert lookup.counts.asked == 5
    assert lookup.counts.unknown == {"users": 2, "pairs": 3}
    assert not lookup.counts.stale


@pytest.mark.parametrize(("minute", "known"), [(120, True), (120.001, False)])
def test_a_value_past_its_time_to_live_is_none(case: Case, minute: float, known: bool):
    """At the limit exactly it still is one, as in the training join."""
    found = case.lookup(minute=minute).get(ENTITIES[0])

    assert (found.values["i32"] == 7) is known
    assert found.values["taste"] == 0.25, "a view without a time to live keeps its values"


def test_stale_values_fall_back_as_declared_and_are_counted(case: Case):
    """F7: older than six hours becomes the declared value; at six hours exactly it is not older."""
    limit = Freshness(
        feature="taste", max_staleness=timedelta(hours=6), on_stale=OnStale.FALLBACK_TO_DEFAULT,
        default=[], channels=("pagerduty", "slack"),
    )  # fmt: skip
    served = Freshness(
        feature="load", max_staleness=timedelta(hours=1), on_stale=OnStale.SERVE_STALE
    )
    young = case.lookup(limit, served, minute=360)
    old = case.lookup(limit, served, minute=360.1)

    assert young.get(ENTITIES[0]).values["taste"] == 0.25
    found = old.get(ENTITIES[0])

    assert (found.values["taste"], found.values["load"]) == ([], 42)
    assert set(found.stale) == {"taste", "load"}
    assert young.counts.stale == {"load": 1}
    assert old.counts.stale == {"taste": 1, "load": 1}
    found.values["taste"].append("mine")
    assert old.get(ENTITIES[0]).values["taste"] == [], "what one caller does is not seen by others"


@pytest.mark.parametrize(
    ("entity", "said"),
    [
        ({"user_id": 1}, "looked up by category, user_id; the request has user_id"),
        ({"user_id": "1", "category": "x"}, "user_id is '1', a str; the feature definitions say"),
        ({}, "the request has nothing"),
    ],
)
def test_a_request_that_cannot_be_looked_up_says_why(case: Case, entity: Any, said: str):
    """A missing key or one of another type is an error, not a missing value."""
    with pytest.raises(OnlineError, match=said):
        case.lookup().get(entity)


def test_a_limit_for_a_feature_that_is_not_there_is_refused(sqlite_case: Case):
    """A typing error in a declaration is not a limit that never applies."""
    limit = Freshness(
        feature="tast", max_staleness=timedelta(hours=6), on_stale=OnStale.SERVE_STALE
    )

    with pytest.raises(JoinError, match="tast, which all does not have; it has i64"):
        sqlite_case.layout(limit)


def test_a_view_that_the_store_lacks_is_named(sqlite_case: Case, tmp_path: Path):
    """At the door, with what there is."""
    held = sqlite_case.layout().to_dict()
    held["views"][0]["name"] = "visitors"
    layout = Layout.from_dict(held)

    with pytest.raises(OnlineError, match="no view visitors; it holds everything, pairs, users"):
        opened(sqlite_case.address, layout)
    with pytest.raises(OnlineError, match="cannot be read"):
        opened(str(tmp_path / "none.db"), layout)


def test_a_layout_that_is_none_is_refused():
    """Another JSON document is not read as one."""
    with pytest.raises(OnlineError, match="no layout of online features"):
        Layout.from_dict({"project": "test"})


def test_a_file_put_in_the_place_of_another_is_read(sqlite_case: Case, tmp_path: Path):
    """Each materialization writes a new file; look-ups go on with it."""
    path = tmp_path / "online.db"
    path.write_bytes(Path(sqlite_case.address).read_bytes())
    layout = sqlite_case.layout()
    lookup = Lookup(layout, opened(str(path), layout), clock=lambda: T)
    before = lookup.get(ENTITIES[0]).values["taste"]
    newer = tmp_path / "newer.db"
    newer.write_bytes(path.read_bytes())
    connection = sqlite3.connect(newer)
    connection.execute("DELETE FROM test_pairs")
    connection.commit()
    connection.close()
    newer.replace(path)

    after = lookup.get(ENTITIES[0]).values["taste"]
    path.unlink()

    assert (before, after) == (0.25, None)
    with pytest.raises(OnlineError, match="cannot be read"):
        lookup.get(ENTITIES[0])
    assert lookup.counts.failed == 1


def test_a_locked_file_is_an_error_and_no_hang(sqlite_case: Case, tmp_path: Path):
    """A writer that holds the file longer than a request may wait."""
    path = tmp_path / "online.db"
    path.write_bytes(Path(sqlite_case.address).read_bytes())
    layout = sqlite_case.layout()
    lookup = Lookup(layout, opened(str(path), layout, timeout_s=0.05), clock=lambda: T)
    writer = sqlite3.connect(path)
    writer.execute("BEGIN EXCLUSIVE")

    with pytest.raises(OnlineError, match="locked"):
        lookup.get(ENTITIES[0])

    writer.close()
    assert lookup.get(ENTITIES[0]).values["taste"] == 0.25


def test_a_store_that_does_not_answer_is_an_error_and_no_hang(redis_case: Case, redis: Redis):
    """Within the time that was allowed; when it answers again, so do look-ups."""
    layout = redis_case.layout()
    lookup = Lookup(layout, opened(redis_case.address, layout, timeout_s=0.2), clock=lambda: T)
    redis.freeze()
    begun = time.monotonic()
    try:
        with pytest.raises(OnlineError, match="did not answer within 200 ms"):
            lookup.get(ENTITIES[0])
        with pytest.raises(OnlineError, match="did not answer"):
            opened(redis_case.address, layout, timeout_s=0.2)
        waited = time.monotonic() - begun
    finally:
        redis.thaw()

    assert waited < 5
    assert lookup.counts.failed == 1
    assert lookup.get(ENTITIES[0]).values["taste"] == 0.25


def test_an_answer_that_failed_halfway_is_not_the_next_one_s(redis_case: Case, redis: Redis):
    """Of two replies one is an error; what is left of the other is nobody's answer."""
    layout = redis_case.layout()
    view = next(v for v in layout.views if v.name == "users")
    key = key_prefix(view.keys) + key_value(77, view.keys[0]) + layout.project.encode()
    client = Client(port=redis.port)
    client.set(key, "no hash")
    lookup = redis_case.lookup()

    with pytest.raises(OnlineError, match="WRONGTYPE"):
        lookup.get({"user_id": 77, "category": "x"})

    assert lookup.get(ENTITIES[0]).values["i64"] == -5
    assert lookup.get(ENTITIES[2]).values["taste"] == 0.75
    client.delete(key)
    client.close()


def test_nobody_there_is_an_error_without_the_password(redis_case: Case):
    """The text names the place and keeps the secret."""
    with pytest.raises(OnlineError) as raised:
        opened("redis://user:hidden@127.0.0.1:1/0", redis_case.layout(), timeout_s=0.2)

    assert "redis://127.0.0.1:1/0 did not answer" in str(raised.value)
    assert "hidden" not in str(raised.value)
