"""Features of the credit workload: how a client used and repaid the card, month by month."""

import os
from datetime import timedelta
from pathlib import Path

from feast import FeatureService, FeatureView, Field, FileSource
from feast.types import Float64

from feature_repo.entities import client

months = FileSource(
    name="credit_months",
    path=str(Path(os.environ.get("PENSTOCK_FEATURE_DATA", ".")) / "months.parquet"),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
)

client_month = FeatureView(
    name="client_month",
    entities=[client],
    ttl=timedelta(days=62),
    schema=[
        Field(name=name, dtype=Float64)
        for name in (
            "credit_limit",
            "use",
            "use_high",
            "use_trend",
            "months_late",
            "months_late_high",
            "late_count",
            "late_trend",
            "repaid_share",
            "repaid_share_low",
            "paid",
            "bill",
        )
    ],
    source=months,
    online=True,
)

credit_v1 = FeatureService(name="credit_v1", features=[client_month])
