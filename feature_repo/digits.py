"""Features of the digits workload: ink statistics of each captured image."""

import os
from datetime import timedelta
from pathlib import Path

from feast import FeatureService, FeatureView, Field, FileSource
from feast.types import Array, Float32, Float64

from feature_repo.entities import capture

captures = FileSource(
    name="digits_captures",
    path=str(Path(os.environ.get("PENSTOCK_FEATURE_DATA", ".")) / "captures.parquet"),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
)

capture_ink = FeatureView(
    name="capture_ink",
    entities=[capture],
    ttl=timedelta(0),  # the ink of a capture does not change: it never expires
    schema=[
        Field(name="pixels", dtype=Array(Float32)),
        Field(name="ink_mean", dtype=Float64),
        Field(name="ink_spread", dtype=Float64),
        Field(name="centre_row", dtype=Float64),
        Field(name="centre_column", dtype=Float64),
    ],
    source=captures,
    online=True,
)

digits_v1 = FeatureService(name="digits_v1", features=[capture_ink])
