"""The only module that drives Feast: apply definitions, join history, fill the online store."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import mmh3
import pyarrow as pa
from feast import Entity, FeatureService, FeatureStore, FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.feature_view_projection import FeatureViewProjection
from google.protobuf.json_format import MessageToDict

from penstock.features.join import JoinError, Proof, View
from penstock.features.offline import PointInTimeJob, PointInTimeOfflineStoreConfig, view_of
from penstock.online import KeyColumn, Layout, ViewLayout
from penstock.workload import Freshness, root

ONLINE = "online.db"

DECLARED = "feature_store.yaml"

OWN_STORE = PointInTimeOfflineStoreConfig().type

_ROW = "penstock_row"

KEY_VERSION = 3
"""Feast's form of entity keys."""


@contextmanager
def opened(
    sources: Path, *, module: str, scratch: Path, settings: Path | None = None
) -> Iterator[FeatureStore]:
    """Yield a Feast store whose definitions are those of ``feature_repo/<module>.py``.

    Args:
        sources: Folder of the Parquet files that the definitions name.
        scratch: Folder for the registry and the online store.
        settings: Another ``feature_store.yaml`` than that of ``feature_repo``.
    """
    # The definitions in feature_repo read these when they are imported, as `feast apply` does.
    os.environ["PENSTOCK_FEATURE_DATA"] = str(sources)
    os.environ["PENSTOCK_FEAST"] = str(scratch)
    with contextlib.redirect_stdout(io.StringIO()):
        repo = root() / "feature_repo"
        store = FeatureStore(repo_path=str(repo), fs_yaml_file=settings or repo / DECLARED)
        store.apply(_definitions(module))
        yield store


def _definitions(module: str) -> list[Any]:
    """Return every Feast object a feature module defines, with the sources of its views."""
    held = vars(importlib.reload(importlib.import_module(f"feature_repo.{module}"))).values()
    objects = [o for o in held if isinstance(o, Entity | FeatureView | FeatureService)]
    return objects + [o.batch_source for o in objects if isinstance(o, FeatureView)]


def views(store: FeatureStore, *, service: str) -> list[View]:
    """Return the views of a service as the join sees them.

    Raises:
        JoinError: There is no such service, or it names a view that is not defined.
    """
    there = {s.name: s for s in store.list_feature_services()}
    if service not in there:
        raise JoinError(
            f"no feature service {service!r} is defined; there is {', '.join(there) or 'none'}. "
            "Define it in feature_repo, or name another in the workload."
        )
    projections = there[service].feature_view_projections
    defined = [v.name for v in store.list_feature_views()]
    if absent := [p.name for p in projections if p.name not in defined]:
        raise JoinError(
            f"feature service {service} names view {', '.join(absent)}, which is not defined; "
            f"there is {', '.join(defined)}."
        )
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


def unused(store: FeatureStore) -> list[str]:
    """Return the features that no service asks for, as ``view:feature``: computed for nobody."""
    asked = {
        (p.name, f.name)
        for service in store.list_feature_services()
        for p in service.feature_view_projections
        for f in p.features
    }
    held = [(v.name, f.name) for v in store.list_feature_views() for f in v.features]
    return sorted(f"{view}:{feature}" for view, feature in held if (view, feature) not in asked)


def layout(
    store: FeatureStore, *, service: str, definitions: str, freshness: Sequence[Freshness] = ()
) -> Layout:
    """Return where the store keeps the online values of a service.

    Raises:
        JoinError: A freshness limit is declared for a feature that the service does not have.
    """
    if (version := store.config.entity_key_serialization_version) != KEY_VERSION:
        raise JoinError(
            f"entity_key_serialization_version is {version}; online look-ups read {KEY_VERSION}."
        )
    held = [
        _view_layout(store, p) for p in store.get_feature_service(service).feature_view_projections
    ]
    features = [name for view in held for name in view.features]
    if absent := [f.feature for f in freshness if f.feature not in features]:
        raise JoinError(
            f"freshness is declared for {', '.join(absent)}, which {service} does not have; it has "
            f"{', '.join(features)}."
        )
    return Layout(
        project=store.project,
        service=service,
        definitions=definitions,
        views=tuple(held),
        freshness=tuple(freshness),
    )


def _view_layout(store: FeatureStore, projection: FeatureViewProjection) -> ViewLayout:
    view = store.get_feature_view(projection.name)
    keys = sorted(
        (c for c in view.entity_columns if c.name != DUMMY_ENTITY_ID), key=lambda c: c.name
    )
    names = [f.name for f in projection.features]
    return ViewLayout(
        name=view.name,
        keys=tuple(
            KeyColumn(
                name=c.name,
                asked=projection.join_key_map.get(c.name, c.name),
                kind=c.dtype.to_value_type().name,
            )
            for c in keys
        ),
        features=tuple(names),
        fields=tuple(_field(view.name, name) for name in names),
        ttl_s=view.ttl.total_seconds() if view.ttl else None,
    )


def _field(view: str, feature: str) -> str:
    """Return a feature's field in Feast's Redis hashes: murmur3 of its name, little endian."""
    return mmh3.hash(f"{view}:{feature}", signed=False).to_bytes(4, "little").hex()


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
    """Return the labels with every feature of the service as known at each label's time.

    Our own store keeps rows and their order, and gives a proof per view. Of another, only what was
    known is asked for too, each label row is numbered, and the rows come back in order.

    Raises:
        JoinError: The store lost or doubled rows.
    """
    wanted = store.get_feature_service(service)
    if store.config.offline_config["type"] == OWN_STORE:
        job = store.get_historical_features(entity_df=labels.to_pandas(), features=wanted)
        rows = job.to_arrow()
        return rows, job.proofs if isinstance(job, PointInTimeJob) else []
    return _elsewhere(store, wanted, labels), []


def _elsewhere(store: FeatureStore, wanted: FeatureService, labels: pa.Table) -> pa.Table:
    """Join by a store that is not ours."""
    kind, numbers = store.config.offline_config["type"], range(len(labels))
    numbered = labels.append_column(_ROW, pa.array(numbers, pa.int64()))
    job = store.get_historical_features(
        entity_df=numbered.to_pandas(), features=wanted, filter_by_created_timestamp=True
    )
    rows = job.to_arrow()
    if len(rows) > len(labels):
        # SQL stores return a label row once for each of several feature rows of the same key and
        # times; where those say the same, that is no difference.
        rows = rows.group_by(rows.column_names).aggregate([]).select(rows.column_names)
    rows = rows.sort_by(_ROW)
    if rows[_ROW].to_pylist() != list(numbers):
        raise JoinError(
            f"the {kind} store was given {len(labels)} label rows and returned {len(rows)}: it "
            "lost some, or two feature rows of one key and one pair of times differ. Use "
            f"{OWN_STORE}."
        )
    for name in rows.column_names:
        if name not in numbered.column_names:
            labels = labels.append_column(name, rows[name])
    return labels


def fill(store: FeatureStore, *, start: datetime, end: datetime) -> None:
    """Copy each entity's newest values between two times to the online store."""
    with _utc():
        store.materialize(start, end)


def materialize(
    store: FeatureStore, *, start: datetime, end: datetime, scratch: Path, online: Path
) -> None:
    """Fill the online store, which must be SQLite's, and copy it to a file.

    The file appears whole or not at all.

    Args:
        scratch: The folder the store was opened with.
    """
    fill(store, start=start, end=end)
    part = online.with_name(f".part-{online.name}-{os.getpid()}")
    shutil.copy(scratch / ONLINE, part)
    part.replace(online)


@contextmanager
def _utc() -> Iterator[None]:
    """Let local time be UTC in the block: Feast writes to SQLite what UTC would be if it were."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
