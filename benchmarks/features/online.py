"""Look one entity up across three views: the raw client, ours, and Feast's own call, in turns."""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.features.data import FEATURES, TABLES, feast_objects
from penstock.online import Layout, Lookup, opened
from penstock.online.wire import key_prefix, key_value

ENTITIES = 1_000
ROUNDS, CALLS = 20, 100
NOW = datetime(2026, 1, 5, tzinfo=UTC)


def measured() -> dict[str, dict[str, float]]:
    """Return the median milliseconds of one look-up, by store and client."""
    warnings.simplefilter("ignore")
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _sources(folder)
        path = folder / "online.db"
        store = _store(folder / "sqlite", f"  type: sqlite\n  path: {path}\n", folder)
        result["SQLite"] = _timed(_sqlite(store, path))
        if shutil.which("redis-server"):
            with _redis(folder) as port:
                text = f'  type: redis\n  connection_string: "127.0.0.1:{port}"\n'
                store = _store(folder / "redis", text, folder)
                result["Redis"] = _timed(_in_redis(store, port))
    return result


def _sources(folder: Path) -> None:
    for table in TABLES:
        columns: dict[str, Any] = {
            table.key: list(range(ENTITIES)),
            "event_timestamp": pa.array([NOW] * ENTITIES, pa.timestamp("us", "UTC")),
        }
        columns |= {n: [float(i) / 7 for i in range(ENTITIES)] for n in table.features}
        pq.write_table(pa.table(columns), folder / f"{table.name}.parquet")


def _store(repo: Path, online: str, sources: Path) -> Any:
    from feast import FeatureService, FeatureStore

    repo.mkdir()
    (repo / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: {repo / 'registry.db'}\n"
        f"online_store:\n{online}"
        "offline_store:\n  type: penstock.features.offline.PointInTimeOfflineStore\n"
        "entity_key_serialization_version: 3\nmaterialization:\n  pull_latest_features: true\n"
    )
    entities, views = feast_objects(sources, created=False)
    store = FeatureStore(repo_path=str(repo))
    store.apply([*entities, *views, FeatureService(name="all", features=list(views))])
    store.materialize(NOW - timedelta(days=1), NOW + timedelta(hours=1))
    return store


def _clients(store: Any, address: str) -> tuple[Layout, dict[str, Callable[[int], object]]]:
    """Return the layout, and a call per client for an entity's number."""
    from penstock.features import feast

    layout = feast.layout(store, service="all", definitions="sha256:0")
    lookup = Lookup(layout, opened(address, layout), clock=lambda: NOW)
    service = store.get_feature_service("all")

    def entity(i: int) -> Mapping[str, int]:
        return {"user_id": i, "item_id": i}

    def by_feast(i: int) -> object:
        return store.get_online_features(features=service, entity_rows=[entity(i)]).to_dict()

    same = {n: v[0] for n, v in by_feast(7).items() if n not in ("user_id", "item_id")}
    if lookup.get(entity(7)).values != same:
        raise RuntimeError("ours and Feast's look-up differ")
    return layout, {"ours": lambda i: lookup.get(entity(i)), "Feast": by_feast}


def _keys(layout: Layout) -> list[list[bytes]]:
    """Return every entity's key in each view, made beforehand."""
    return [
        [key_prefix(v.keys) + b"".join(key_value(i, k) for k in v.keys) for v in layout.views]
        for i in range(ENTITIES)
    ]


def _sqlite(store: Any, path: Path) -> dict[str, Callable[[int], object]]:
    layout, calls = _clients(store, str(path))
    connection, keys = sqlite3.connect(path), _keys(layout)
    queries = [
        f"SELECT feature_name, value, event_ts FROM bench_{v.name} WHERE entity_key = ?"
        for v in layout.views
    ]

    def raw(i: int) -> object:
        pairs = zip(queries, keys[i], strict=True)
        return [connection.execute(query, (key,)).fetchall() for query, key in pairs]

    return {"raw client": raw, **calls}


def _in_redis(store: Any, port: int) -> dict[str, Callable[[int], object]]:
    import redis

    layout, calls = _clients(store, f"redis://127.0.0.1:{port}/0")
    client = redis.Redis(port=port)
    fields = [[*(bytes.fromhex(f) for f in v.fields), f"_ts:{v.name}"] for v in layout.views]
    keys = [[key + b"bench" for key in row] for row in _keys(layout)]

    def raw(i: int) -> object:
        with client.pipeline(transaction=False) as pipe:
            for key, names in zip(keys[i], fields, strict=True):
                pipe.hmget(key, names)
            return pipe.execute()

    return {"raw client": raw, **calls}


def _timed(calls: Mapping[str, Callable[[int], object]]) -> dict[str, float]:
    """Return each call's median milliseconds; turns are short, so that noise meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS):
        for name, call in calls.items():
            for i in range(CALLS):
                begun = time.perf_counter()
                call((turn * CALLS + i) % ENTITIES)
                taken[name].append(time.perf_counter() - begun)
    return {name: 1000 * statistics.median(all_) for name, all_ in taken.items()}


@contextmanager
def _redis(folder: Path) -> Iterator[int]:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        [*command, "--dir", str(folder)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


NUMBER_OF_FEATURES = FEATURES * len(TABLES)
