"""A Feast offline store whose training joins hold only what was known, and lose no row.

Chosen in ``feature_store.yaml``; Feast's own calls work unchanged::

    offline_store:
      type: penstock.features.offline.PointInTimeOfflineStore
    materialization:
      pull_latest_features: true

The second setting lets Feast ask the store for each entity's newest row; without it, it sorts every
row itself, by event time alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureView
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.utils import (
    _get_requested_feature_views_to_features_dict,  # pyright: ignore[reportPrivateUsage]
    _get_requested_on_demand_feature_views,  # pyright: ignore[reportPrivateUsage]
)
from pyarrow import fs

from penstock.features.join import Proof, View, joined, newest
from penstock.features.source import Columns, SourceError

TIME = "event_timestamp"
"""The labels' timestamp column, unless there is just one column of timestamps."""


class PointInTimeOfflineStoreConfig(FeastConfigBaseModel):
    """Settings of the store in ``feature_store.yaml``."""

    type: Literal["penstock.features.offline.PointInTimeOfflineStore"] = (
        "penstock.features.offline.PointInTimeOfflineStore"
    )

    naive_timestamps: Literal["refuse", "utc"] = "refuse"
    """What a timestamp without a time zone means."""


class PointInTimeJob(RetrievalJob):
    """A join that is carried out when its rows are asked for."""

    def __init__(
        self,
        work: Callable[[], tuple[pa.Table, list[Proof]]],
        *,
        full_feature_names: bool = False,
        on_demand: list[OnDemandFeatureView] | None = None,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        """Keep the work for later."""
        self._work, self._full, self._on_demand = work, full_feature_names, on_demand or []
        self._metadata = metadata
        self.proofs: list[Proof] = []
        """Of each view, once the rows were asked for."""

    @property
    def full_feature_names(self) -> bool:
        """Whether names are prefixed with their view's."""
        return self._full

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Views that Feast computes from the joined rows."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's
        rows, self.proofs = self._work()
        return rows

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool | None = False,
        timeout: int | None = None,
    ) -> None:
        """Write the rows to a Parquet file, under a temporary name first."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise SourceError(f"rows are persisted to files, not to {type(storage).__name__}.")
        path = Path(storage.file_options.uri)
        if path.exists() and not allow_overwrite:
            raise SourceError(f"{path} exists; allow overwriting or name another.")
        part = path.with_name(f".part-{path.name}")
        pq.write_table(self.to_arrow(timeout=timeout), part)
        part.replace(path)

    def supports_remote_storage_export(self) -> bool:
        """Say that rows are handed out here only."""
        return False


class PointInTimeOfflineStore(OfflineStore):
    """Bitemporal point-in-time joins over Parquet files, on one machine."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_options: Any,
    ) -> PointInTimeJob:
        """Return the label rows, in their order, with the features known at each one's time.

        A source that names a created timestamp column is joined on it too, whether or not
        ``filter_by_created_timestamp`` is asked for.

        Raises:
            SourceError: ``entity_df`` is a query or missing, or a view's source is no Parquet file.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise SourceError(
                f"entity_df is {type(entity_df).__name__}; a DataFrame of label rows was wanted."
            )
        naive_is_utc = _naive_is_utc(config)
        time = _time_column(entity_df)
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        wanted, _ = _get_requested_feature_views_to_features_dict(
            feature_refs, feature_views, on_demand
        )
        views = [
            view_of(config, view, names, full=full_feature_names, naive_is_utc=naive_is_utc)
            for view, names in wanted.items()
        ]

        def work() -> tuple[pa.Table, list[Proof]]:
            try:
                labels: pa.Table = pa.Table.from_pandas(entity_df, preserve_index=False)
            except (pa.ArrowInvalid, TypeError) as e:
                raise SourceError(f"the label rows have no one type in each column: {e}") from e
            plain: pa.Table = labels.replace_schema_metadata(None)
            return joined(plain, views, time=time, naive_is_utc=naive_is_utc)

        return PointInTimeJob(
            work,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
            metadata=RetrievalMetadata(
                features=feature_refs, keys=[c for c in entity_df.columns if c != time]
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PointInTimeJob:
        """Return each entity's newest row between two times, by the same rule as the join."""
        filesystem, path = _located(config, _file(data_source))
        columns = Columns(
            keys=tuple(k for k in join_key_columns if k != DUMMY_ENTITY_ID),
            event=timestamp_field,
            created=created_timestamp_column or None,
            naive_is_utc=_naive_is_utc(config),
        )
        end = _aware(end_date) if end_date else datetime.now(UTC)
        span = None if start_date is None else end - _aware(start_date)
        view = View(
            name=path,
            path=path,
            columns=columns,
            label_keys=columns.keys,
            features={n: n for n in dict.fromkeys([*feature_name_columns, *_times(columns)])},
            ttl=span,
            filesystem=filesystem,
        )
        return PointInTimeJob(lambda: (_keyed(newest(view, at=end), join_key_columns), []))

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> PointInTimeJob:
        """Return every row between two times, both included."""
        filesystem, path = _located(config, _file(data_source))
        keys = [k for k in join_key_columns if k != DUMMY_ENTITY_ID]
        named = [*keys, *feature_name_columns, timestamp_field]
        named += [created_timestamp_column] if created_timestamp_column else []

        def work() -> tuple[pa.Table, list[Proof]]:
            rows = pq.read_table(path, columns=list(dict.fromkeys(named)), filesystem=filesystem)
            for bound, compare in ((start_date, pc.greater_equal), (end_date, pc.less_equal)):
                if bound is not None:
                    rows = rows.filter(compare(rows[timestamp_field], pa.scalar(_aware(bound))))
            return _keyed(rows, join_key_columns), []

        return PointInTimeJob(work)


def _keyed(rows: pa.Table, keys: list[str]) -> pa.Table:
    """Return rows with a key column; Feast writes one for a view that has no entities, too."""
    if any(k != DUMMY_ENTITY_ID for k in keys):
        return rows
    return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * len(rows)))


def _naive_is_utc(config: RepoConfig) -> bool:
    settings = config.offline_store
    return (
        isinstance(settings, PointInTimeOfflineStoreConfig) and settings.naive_timestamps == "utc"
    )


def _times(columns: Columns) -> list[str]:
    return [columns.event, *([columns.created] if columns.created else [])]


def _aware(time: datetime) -> datetime:
    """Return a time with its zone; Feast hands its own times without one, in UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _time_column(labels: pd.DataFrame) -> str:
    if TIME in labels.columns:
        return TIME
    stamps = labels.select_dtypes(include=["datetime", "datetimetz"])
    found: list[str] = list(stamps.columns)
    if len(found) != 1:
        raise SourceError(
            f"the labels have no column {TIME!r} and {len(found)} columns of timestamps; name one "
            "of them so."
        )
    return found[0]


def _file(source: DataSource | None) -> FileSource:
    if not isinstance(source, FileSource):
        raise SourceError(
            f"the source is a {type(source).__name__}; this store reads Parquet files, declare a "
            "FileSource."
        )
    return source


def _located(config: RepoConfig, source: FileSource) -> tuple[fs.FileSystem, str]:
    """Return where a view's Parquet file or folder lies."""
    uri = FileSource.get_uri_for_file_path(repo_path=config.repo_path, uri=source.file_options.uri)
    endpoint = source.file_options.s3_endpoint_override
    filesystem, path = FileSource.create_filesystem_and_path(uri, endpoint)
    return filesystem or fs.LocalFileSystem(), path


def view_of(
    config: RepoConfig, view: FeatureView, names: list[str], *, full: bool, naive_is_utc: bool
) -> View:
    """Return what the join needs to know of a Feast view."""
    source = _file(view.batch_source)
    filesystem, path = _located(config, source)
    in_source = {mapped: column for column, mapped in source.field_mapping.items()}
    keys = [c.name for c in view.entity_columns if c.name != DUMMY_ENTITY_ID]
    prefix = f"{view.projection.name_to_use()}__" if full else ""
    return View(
        name=view.name,
        path=path,
        columns=Columns(
            keys=tuple(in_source.get(k, k) for k in keys),
            event=source.timestamp_field,
            created=source.created_timestamp_column or None,
            naive_is_utc=naive_is_utc,
        ),
        label_keys=tuple(view.projection.join_key_map.get(k, k) for k in keys),
        features={f"{prefix}{n}": in_source.get(n, n) for n in names},
        ttl=view.ttl,
        filesystem=filesystem,
    )
