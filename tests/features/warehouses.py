"""Feast over other stores, for tests: the same tables in PostgreSQL, Spark, DuckDB and files."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

from tests import postgres as servers

SERVICE = "all"
STORES = ("ours", "postgres", "spark", "duckdb", "dask")
NOT_INSTALLED = "needs Feast's other stores; type: make stores"


@dataclass(frozen=True)
class Postgres(servers.Server):
    """A PostgreSQL server that Feast reads from."""

    def settings(self) -> dict[str, Any]:
        """Return how Feast reaches it."""
        return {
            "type": "postgres", "host": "127.0.0.1", "port": self.port, "database": "postgres",
            "user": "penstock", "password": "", "sslmode": "disable",
        }  # fmt: skip

    def load(self, name: str, table: pa.Table) -> None:
        """Create a table of these rows."""
        psycopg = pytest.importorskip("psycopg", reason=NOT_INSTALLED)
        kinds = {"string": "text", "int64": "bigint", "timestamp[us, tz=UTC]": "timestamptz"}
        columns = ", ".join(f"{f.name} {kinds[str(f.type)]}" for f in table.schema)
        with psycopg.connect(self.dsn()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name} ({columns})")
            with cursor.copy(f"COPY {name} FROM STDIN") as copy:
                for row in table.to_pylist():
                    copy.write_row(tuple(row.values()))


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run a PostgreSQL server to load tables into."""
    with servers.postgres_server() as server:
        yield Postgres(server.port)


def a_store(
    kind: str, folder: Path, tables: Mapping[str, pa.Table], postgres: Postgres | None
) -> FeatureStore:
    """Return a Feast store of two views over the tables, kept and joined by one of ``STORES``."""
    folder.mkdir(parents=True, exist_ok=True)
    offline: dict[str, Any] = {
        "ours": {"type": "penstock.features.offline.PointInTimeOfflineStore"},
        "postgres": postgres.settings() if postgres else {},
        "spark": {
            "type": "spark",
            "spark_conf": {
                "spark.master": "local[2]",
                "spark.ui.enabled": "false",
                "spark.sql.session.timeZone": "UTC",
                "spark.sql.shuffle.partitions": "2",
                "spark.driver.bindAddress": "127.0.0.1",
                "spark.driver.host": "127.0.0.1",
            },
        },
        "duckdb": {"type": "duckdb"},
        "dask": {"type": "dask"},
    }[kind]
    lines = "".join(f"  {name}: {_yaml(value)}\n" for name, value in offline.items())
    (folder / "feature_store.yaml").write_text(
        f"project: test\nprovider: local\nregistry: {folder / 'registry.db'}\n"
        f"online_store:\n  type: sqlite\n  path: {folder / 'online.db'}\n"
        f"offline_store:\n{lines}entity_key_serialization_version: 3\n"
    )
    sources = {n: _source(kind, folder, n, t, postgres) for n, t in tables.items()}
    user = Entity(name="user", join_keys=["who"], value_type=ValueType.STRING)
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64)
    scores = FeatureView(
        name="scores", entities=[user], ttl=timedelta(minutes=3),
        schema=[Field(name="score", dtype=Int64)], source=sources["scores"],
    )  # fmt: skip
    prices = FeatureView(
        name="prices", entities=[item], ttl=timedelta(0),
        schema=[Field(name="price", dtype=Int64)], source=sources["prices"],
    )  # fmt: skip
    store = FeatureStore(repo_path=str(folder))
    service = FeatureService(name=SERVICE, features=[scores, prices])
    store.apply([user, item, scores, prices, service])
    return store


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'{k}: "{v}"' for k, v in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _source(kind: str, folder: Path, name: str, table: pa.Table, postgres: Postgres | None) -> Any:
    times = {"timestamp_field": "happened"}
    if "known" in table.column_names:
        times["created_timestamp_column"] = "known"
    if kind == "postgres" and postgres is not None:
        postgres.load(name, table)
        return _class_of("postgres", "PostgreSQLSource")(name=name, table=name, **times)
    path = str(folder / f"{name}.parquet")
    pq.write_table(table, path)
    if kind == "spark":
        return _class_of("spark", "SparkSource")(
            name=name, path=path, file_format="parquet", **times
        )
    return FileSource(name=name, path=path, **times)


def _class_of(kind: str, name: str) -> Any:
    """Return a class of Feast's that is there only where its store is installed."""
    module = f"feast.infra.offline_stores.contrib.{kind}_offline_store.{kind}_source"
    return getattr(importlib.import_module(module), name)
