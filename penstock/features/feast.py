"""The only module that imports Feast: apply definitions, join history, fill the online store."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FeatureView

from penstock.workload import root

ONLINE = "online.db"


@contextmanager
def opened(source: pa.Table, *, module: str, online: Path) -> Iterator[FeatureStore]:
    """Yield a Feast store whose definitions are those of ``feature_repo/<module>.py``.

    Args:
        source: The feature source's rows; written to a temporary Parquet file.
        online: Where the SQLite online store ends up, once the block has ended well.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-feast-") as scratch:
        pq.write_table(source, Path(scratch) / "captures.parquet")
        # The definitions in feature_repo read these when they are imported, as `feast apply` does.
        os.environ["PENSTOCK_FEATURE_DATA"] = scratch
        os.environ["PENSTOCK_FEAST"] = scratch
        with contextlib.redirect_stdout(io.StringIO()):
            store = FeatureStore(repo_path=str(root() / "feature_repo"))
            store.apply(_definitions(module))
            yield store
        online.parent.mkdir(parents=True, exist_ok=True)
        part = online.with_name(f".part-{online.name}-{os.getpid()}")
        shutil.copy(Path(scratch) / ONLINE, part)
        part.replace(online)


def _definitions(module: str) -> list[Any]:
    """Return every Feast object a feature module defines, with the sources of its views."""
    held = vars(importlib.import_module(f"feature_repo.{module}")).values()
    objects = [o for o in held if isinstance(o, Entity | FeatureView | FeatureService)]
    return objects + [o.batch_source for o in objects if isinstance(o, FeatureView)]


def join(store: FeatureStore, *, service: str, labels: pa.Table) -> pa.Table:
    """Return the labels with every feature of the service as known at their event timestamp."""
    job = store.get_historical_features(
        entity_df=labels.to_pandas(), features=store.get_feature_service(service)
    )
    return job.to_arrow()


def materialize(store: FeatureStore, *, start: datetime, end: datetime) -> None:
    """Copy the newest feature values between two times to the online store."""
    store.materialize(start, end)


def look_up(
    store: FeatureStore, *, service: str, key: str, values: Sequence[int]
) -> dict[str, list[Any]]:
    """Return online features by name, one value per entity."""
    rows = [{key: value} for value in values]
    found = store.get_online_features(features=store.get_feature_service(service), entity_rows=rows)
    return found.to_dict()
