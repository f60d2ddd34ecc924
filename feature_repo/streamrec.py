"""Features of the streamrec workload: what users and items did lately, and tastes by category."""

import os
from datetime import timedelta
from pathlib import Path

from feast import FeatureService, FeatureView, Field, FileSource
from feast.types import Float64, Int64

from feature_repo.entities import category, item, user


def _source(name: str) -> FileSource:
    folder = Path(os.environ.get("PENSTOCK_FEATURE_DATA", "."))
    return FileSource(
        name=f"streamrec_{name}",
        path=str(folder / f"{name}.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )


user_activity = FeatureView(
    name="user_activity",
    entities=[user],
    ttl=timedelta(days=2),
    schema=[
        Field(name="user_impressions_24h", dtype=Int64),
        Field(name="user_clicks_24h", dtype=Int64),
        Field(name="user_rate_24h", dtype=Float64),
    ],
    source=_source("users"),
    online=True,
)

item_activity = FeatureView(
    name="item_activity",
    entities=[item],
    ttl=timedelta(days=2),
    schema=[
        Field(name="item_impressions_24h", dtype=Int64),
        Field(name="item_clicks_24h", dtype=Int64),
        Field(name="item_rate_24h", dtype=Float64),
    ],
    source=_source("items"),
    online=True,
)

user_taste = FeatureView(
    name="user_taste",
    entities=[user, category],
    ttl=timedelta(days=14),
    schema=[Field(name="taste", dtype=Float64), Field(name="taste_weight", dtype=Float64)],
    source=_source("tastes"),
    online=True,
)

user_profile = FeatureView(
    name="user_profile",
    entities=[user],
    ttl=timedelta(days=90),
    schema=[Field(name="tenure_days", dtype=Float64), Field(name="mobile_share", dtype=Float64)],
    source=_source("profiles"),
    online=True,
)

streamrec_v1 = FeatureService(
    name="streamrec_v1", features=[user_activity, item_activity, user_taste, user_profile]
)
