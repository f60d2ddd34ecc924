"""Features of entities in SQLite and in Redis, put there by Feast, and requests for them."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.serving import model, watch
from benchmarks.serving.model import FEATURES, NAME, Made
from benchmarks.serving.servers import CORE
from penstock.online import Layout

VIEWS = 2
"""The features lie in so many views of one entity."""

NAMES = tuple(f"f{i}" for i in range(FEATURES))

TRANSFORM = f'''"""Features of a request as the columns of one array."""

import numpy as np

NAMES = {NAMES!r}


def training_input(rows):
    """Return the network's input, shape [n, {FEATURES}]."""
    return np.column_stack([rows[name].to_numpy() for name in NAMES]).astype(np.float32)
'''


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One store that holds the features of every row that requests ask for."""

    address: str
    layout: Layout


def sent(row: NDArray[np.float32]) -> bytes:
    """Return a v1 request that holds every feature."""
    held = {name: round(float(v), 4) for name, v in zip(NAMES, row, strict=True)}
    return model.message(f"/v1/models/{NAME}:predict", json.dumps({"instances": [held]}).encode())


def looked_up(made: Made, row: NDArray[np.float32]) -> bytes:
    """Return a v1 request that names the entity whose features a row is."""
    entity = int(np.flatnonzero((made.rows_nd == row).all(axis=1))[0])
    body = json.dumps({"instances": [{"user_id": entity}]}).encode()
    return model.message(f"/v1/models/{NAME}:predict", body)


def in_sqlite(folder: Path, rows_nd: NDArray[np.float32]) -> Stored:
    """Put the rows into a SQLite file."""
    path = folder / "online.db"
    return Stored(
        address=str(path), layout=_filled(folder, f"  type: sqlite\n  path: {path}\n", rows_nd)
    )


def in_redis(folder: Path, rows_nd: NDArray[np.float32], port: int) -> Stored:
    """Put the rows into a Redis on a port."""
    text = f'  type: redis\n  connection_string: "127.0.0.1:{port}"\n'
    return Stored(address=f"redis://127.0.0.1:{port}/0", layout=_filled(folder, text, rows_nd))


def _filled(folder: Path, online: str, rows_nd: NDArray[np.float32]) -> Layout:
    from feast import FeatureStore

    from penstock.features import feast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: {folder / 'registry.db'}\n"
        f"online_store:\n{online}offline_store:\n"
        "  type: penstock.features.offline.PointInTimeOfflineStore\n"
        "entity_key_serialization_version: 3\nmaterialization:\n  pull_latest_features: true\n"
    )
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        # Feast's own.
        warnings.simplefilter("ignore")
        store = FeatureStore(repo_path=str(folder))
        now = datetime.now(UTC)
        store.apply(_definitions(folder, rows_nd, now))
        store.materialize(now - timedelta(days=1), now + timedelta(hours=1))
    return feast.layout(store, service="all", definitions="sha256:0")


def _definitions(folder: Path, rows_nd: NDArray[np.float32], now: datetime) -> list[Any]:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64

    entity = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    views: list[Any] = []
    for number, names in enumerate(np.array_split(np.array(NAMES), VIEWS)):
        path = folder / f"view{number}.parquet"
        columns: dict[str, Any] = {
            "user_id": list(range(len(rows_nd))),
            "event_timestamp": pa.array([now] * len(rows_nd), pa.timestamp("us", "UTC")),
        }
        columns |= {n: rows_nd[:, NAMES.index(n)].astype(np.float64) for n in names.tolist()}
        pq.write_table(pa.table(columns), path)
        views.append(
            FeatureView(
                name=f"view{number}", entities=[entity], ttl=timedelta(days=10),
                schema=[Field(name=n, dtype=Float64) for n in names.tolist()],
                source=FileSource(
                    name=f"view{number}", path=str(path), timestamp_field="event_timestamp"
                ),
            )
        )  # fmt: skip
    return [entity, *views, FeatureService(name="all", features=list(views))]


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[int, int]]:
    """Run an empty Redis on loopback; yield its process id and port.

    Raises:
        LookupError: There is none on this machine.
    """
    if shutil.which("redis-server") is None:
        raise LookupError("redis-server is not installed, so Redis is left out.")
    port = watch.free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        ["taskset", "-c", str(CORE), *command, "--dir", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()
