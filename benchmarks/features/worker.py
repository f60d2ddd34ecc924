"""Join once by one way, in a process of its own, and print what it cost as JSON.

    python -m benchmarks.features.worker ours FOLDER

CPU seconds begin after the imports, and include reading the files.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.features.data import TABLES, TTL, feast_objects

Join = Callable[[], pa.Table]


def ours(folder: Path) -> Join:
    """Our join."""
    # pyarrow looks for pandas when it first makes an array; that is an import, not work.
    import pandas as pd  # noqa: F401
    from pyarrow import fs

    from penstock.features.join import View, joined
    from penstock.features.source import Columns

    views = [
        View(
            name=t.name,
            path=str(folder / f"{t.name}.parquet"),
            columns=Columns(keys=(t.key,), event="event_timestamp", created="created"),
            label_keys=(t.key,),
            features={n: n for n in t.features},
            ttl=TTL,
            filesystem=fs.LocalFileSystem(),
        )
        for t in TABLES
    ]
    return lambda: joined(pq.read_table(folder / "labels.parquet"), views, time="event_timestamp")[
        0
    ]


def polars(folder: Path) -> Join:
    """A hand-written polars join_asof of the same rule: known by then, newest, not expired."""
    import polars as pl

    def newest_so_far(name: str, key: str, names: list[str], asked: Any) -> Any:
        rows = pl.read_parquet(folder / f"{name}.parquet").with_row_index("order")
        rows = rows.filter(pl.col(key).is_in(asked[key].unique().implode())).with_columns(
            seen=pl.max_horizontal("event_timestamp", "created")
        )
        rows = rows.sort(key, "seen", "event_timestamp", "created", "order").with_columns(
            newest=pl.col("event_timestamp").cum_max().over(key)
        )
        # Where a late row is older than one seen before, that one stays the answer.
        rows = rows.with_columns(
            at=pl.when(pl.col("event_timestamp") == pl.col("newest"))
            .then(pl.int_range(pl.len()))
            .otherwise(0)
        ).with_columns(at=pl.col("at").cum_max())
        taken = [pl.col(n).gather(pl.col("at")) for n in names]
        event = pl.col("event_timestamp").gather(pl.col("at"))
        return rows.select(key, "seen", *taken, event=event).sort("seen")

    def join() -> pa.Table:
        labels = pl.read_parquet(folder / "labels.parquet").with_row_index("row")
        parts = [labels.drop("row")]
        for table in TABLES:
            rows = newest_so_far(table.name, table.key, table.features, labels)
            asked = labels.select("row", table.key, "event_timestamp").sort("event_timestamp")
            found = asked.join_asof(
                rows, left_on="event_timestamp", right_on="seen", by=table.key, strategy="backward"
            )
            young = pl.col("event") >= pl.col("event_timestamp") - TTL
            found = found.with_columns([pl.when(young).then(pl.col(n)) for n in table.features])
            parts.append(found.sort("row").select(table.features))
        return pl.concat(parts, how="horizontal").to_arrow()

    return join


def feast(folder: Path, kind: str) -> Join:
    """Feast's own call, over a store of a type."""
    from feast import FeatureService, FeatureStore

    repo = folder / f"repo-{kind.rsplit('.', maxsplit=1)[-1]}"
    repo.mkdir(exist_ok=True)
    (repo / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: {repo / 'registry.db'}\n"
        f"online_store:\n  type: sqlite\n  path: {repo / 'online.db'}\n"
        f"offline_store:\n  type: {kind}\nentity_key_serialization_version: 3\n"
    )
    entities, views = feast_objects(folder, created=True)
    store = FeatureStore(repo_path=str(repo))
    service = FeatureService(name="all", features=list(views))
    store.apply([*entities, *views, service])

    def join() -> pa.Table:
        labels = pq.read_table(folder / "labels.parquet").to_pandas()
        return store.get_historical_features(
            entity_df=labels,
            features=store.get_feature_service("all"),
            filter_by_created_timestamp=True,
        ).to_arrow()

    return join


WAYS: dict[str, Callable[[Path], Join]] = {
    "ours": ours,
    "ours in Feast": lambda folder: feast(
        folder, "penstock.features.offline.PointInTimeOfflineStore"
    ),
    "polars by hand": polars,
    "Feast DuckDB": lambda folder: feast(folder, "duckdb"),
}


def fingerprint(rows: pa.Table) -> str:
    """Return a hash of the joined features that does not depend on the order of rows."""
    names = sorted(n for t in TABLES for n in t.features)
    held = [rows[n].combine_chunks().fill_null(np.nan).to_numpy() for n in names]
    table = np.column_stack([*(rows[t.key].to_numpy() for t in TABLES[:2]), *held])
    table = table[np.lexsort(table.T[::-1])]
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()[:16]


def peak_mb() -> float:
    """Return the most memory this process has held; what its parent held does not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def main() -> None:
    """Measure the way and folder that the command line names."""
    warnings.simplefilter("ignore")
    way, folder = sys.argv[1], Path(sys.argv[2])
    join = WAYS[way](folder)
    before, base = resource.getrusage(resource.RUSAGE_SELF), peak_mb()
    begun = time.perf_counter()
    rows = join()
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    said = {
        "wall_s": wall,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": peak_mb(),
        "base_mb": base,
        "rows": len(rows),
        "result": fingerprint(rows),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
