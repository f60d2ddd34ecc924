"""Click prediction for a recommender, on simulated users whose true click probability is known."""

from datetime import timedelta

from penstock.workload import Column, DataRules, Dataset, Drift, Found, Freshness, OnStale

WORKLOAD = Dataset(
    name="streamrec",
    title="Recommender clicks",
    owner="recommendations",
    feature_service="streamrec_v1",
    label="clicked",
    label_delay=timedelta(hours=1),
    data=DataRules(
        columns=(
            Column(name="impression_id", dtype="int64", low=0),
            Column(name="user_id", dtype="int64", low=0),
            Column(name="item_id", dtype="int64", low=0),
            Column(name="category", dtype="int64", low=0, high=7),
            Column(name="mobile", dtype="int64", low=0, high=1),
            Column(name="event_timestamp", dtype="timestamp[us, tz=UTC]"),
            Column(name="clicked", dtype="int64", low=0, high=1),
            # Nothing is known of a user or an item that is new: missing is a value here.
            Column(name="user_impressions_24h", dtype="int64", low=0, nullable=True),
            Column(name="user_clicks_24h", dtype="int64", low=0, nullable=True),
            Column(name="user_rate_24h", dtype="double", low=0, high=1, nullable=True),
            Column(name="item_impressions_24h", dtype="int64", low=0, nullable=True),
            Column(name="item_clicks_24h", dtype="int64", low=0, nullable=True),
            Column(name="item_rate_24h", dtype="double", low=0, high=1, nullable=True),
            Column(name="taste", dtype="double", low=0, high=1, nullable=True),
            Column(name="taste_weight", dtype="double", low=0, nullable=True),
            Column(name="tenure_days", dtype="double", low=0, nullable=True),
            Column(name="mobile_share", dtype="double", low=0, high=1, nullable=True),
        ),
        unique=("impression_id",),
        at_least_rows=500,
        found=(
            Found(view="user_activity", share=0.8),
            Found(view="item_activity", share=0.8),
        ),
        # As long as the views keep values, so that serving falls back only where training had none.
        freshness=tuple(
            Freshness(
                feature=name,
                max_staleness=timedelta(days=2),
                on_stale=OnStale.FALLBACK_TO_DEFAULT,
                channels=("recommendations",),
            )
            for name in ("user_rate_24h", "item_rate_24h")
        ),
        # Tastes and profiles fill up during the first days; their share of missing values moves.
        drift=Drift(columns=("category", "mobile", "user_rate_24h", "item_rate_24h")),
    ),
)
