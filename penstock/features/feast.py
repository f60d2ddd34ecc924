"""The only module that drives Feast: apply definitions, join history, fill the online store."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from feast import Entity, FeatureService, FeatureStore, FeatureView
from google.protobuf.json_format import MessageToDict

from penstock.features.join import Proof, View
from penstock.features.offline import PointInTimeJob, view_of
from penstock.workload import root

ONLINE = "online.db"


@contextmanager
def opened(sources: Path, *, module: str, scratch: Path) -> Iterator[FeatureStore]:
    """Yield a Feast store whose definitions are those of ``feature_repo/<module>.py``.

    Args:
        sources: Folder of the Parquet files that the definitions name.
        scratch: Folder for the registry and the online store.
    """
    # The definitions in feature_repo read these when they are imported, as `feast apply` does.
    os.environ["PENSTOCK_FEATURE_DATA"] = str(sources)
    os.environ["PENSTOCK_FEAST"] = str(scratch)
    with contextlib.redirect_stdout(io.StringIO()):
        store = FeatureStore(repo_path=str(root() / "feature_repo"))
        store.apply(_definitions(module))
        yield store


def _definitions(module: str) -> list[Any]:
    """Return every Feast object a feature module defines, with the sources of its views."""
    held = vars(importlib.reload(importlib.import_module(f"feature_repo.{module}"))).values()
    objects = [o for o in held if isinstance(o, Entity | FeatureView | FeatureService)]
    return objects + [o.batch_source for o in objects if isinstance(o, FeatureView)]


def views(store: FeatureStore, *, service: str) -> list[View]:
    """Return the views of a service as the join sees them."""
    projections = store.get_feature_service(service).feature_view_projections
    return [
        view_of(
            store.config,
            store.get_feature_view(p.name),
            [f.name for f in p.features],
            full=False,
            naive_is_utc=False,
        )
        for p in projections
    ]


def revision(store: FeatureStore, *, sources: Path) -> str:
    """Return a hash of what the registry holds: every view, entity and service as applied.

    Where the sources lie on this machine does not enter it, nor when they were applied.
    """
    registry, project = store.registry, store.project
    held = [
        *registry.list_entities(project),
        *registry.list_feature_views(project),
        *registry.list_feature_services(project),
    ]
    h = hashlib.sha256()
    for made in sorted(held, key=lambda o: (type(o).__name__, o.name)):
        said = MessageToDict(made.to_proto().spec)
        text = json.dumps(_timeless(said), sort_keys=True)
        h.update(text.replace(str(sources), "").encode() + b"\0")
    return "sha256:" + h.hexdigest()


def _timeless(said: Any) -> Any:
    """Return a definition without the times at which Feast took note of it."""
    if isinstance(said, dict):
        items = cast("dict[str, Any]", said).items()
        return {name: _timeless(value) for name, value in items if name != "meta"}
    if isinstance(said, list):
        return [_timeless(value) for value in cast("list[Any]", said)]
    return said


def join(store: FeatureStore, *, service: str, labels: pa.Table) -> tuple[pa.Table, list[Proof]]:
    """Return the labels with every feature of the service as known at each label's time."""
    job = store.get_historical_features(
        entity_df=labels.to_pandas(), features=store.get_feature_service(service)
    )
    rows = job.to_arrow()
    return rows, job.proofs if isinstance(job, PointInTimeJob) else []


def materialize(
    store: FeatureStore, *, start: datetime, end: datetime, scratch: Path, online: Path
) -> None:
    """Copy each entity's newest values between two times to the online store, and that to a file.

    The file appears whole or not at all.

    Args:
        scratch: The folder the store was opened with.
    """
    store.materialize(start, end)
    part = online.with_name(f".part-{online.name}-{os.getpid()}")
    shutil.copy(scratch / ONLINE, part)
    part.replace(online)


def look_up(
    store: FeatureStore, *, service: str, keys: Sequence[dict[str, Any]]
) -> dict[str, list[Any]]:
    """Return online features by name, one value per entity."""
    found = store.get_online_features(
        features=store.get_feature_service(service), entity_rows=list(keys)
    )
    return found.to_dict()
