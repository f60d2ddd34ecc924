"""Click prediction for a recommender, on simulated users whose true click probability is known."""

from datetime import timedelta

from penstock.workload import (
    About,
    AtLeast,
    AtMost,
    Column,
    DataRules,
    Direction,
    Drift,
    Endpoint,
    Engine,
    Equivalence,
    Export,
    Found,
    Freshness,
    Instead,
    Invariance,
    Limits,
    Measure,
    MinimumFunctionality,
    NoWorse,
    OnStale,
    Quantize,
    Rollout,
    Rung,
    Shadow,
    Slice,
    Training,
    Watch,
    Workload,
)

WORKLOAD = Workload(
    name="streamrec",
    title="Recommender clicks",
    owner="recommendations",
    feature_service="streamrec_v1",
    label="clicked",
    classes=2,
    metric="auc",
    # The share of impressions that are clicked: an item above it is worth more than a usual one.
    threshold=0.23,
    # Devices, every category, and both ends of how much is known: who and what is new, and the
    # busiest, whose counts lie in the tail.
    slices=(
        Slice(name="mobile", column="mobile", among=(1,)),
        Slice(name="unseen user", column="user_rate_24h", missing=True),
        Slice(name="unknown taste", column="taste", missing=True),
        Slice(name="new user", column="tenure_days", high=2),
        Slice(name="busy user", column="user_impressions_24h", low=30),
        Slice(name="little-shown item", column="item_impressions_24h", high=15),
        Slice(name="popular item", column="item_impressions_24h", low=150),
        *(Slice(name=f"category {c}", column="category", among=(c,)) for c in range(8)),
    ),
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
    # No search: what decides here is how soon the embeddings of ids begin to learn users by heart,
    # which few epochs and the weight decay hold off. Ten times as many impressions want one epoch.
    training=Training(epochs=3, batch_size=64, learning_rate=1e-3, weight_decay=2.0, seed=42),
    export=Export(),
    quantize=Quantize(examples=2048),
    # A request ranks many items for one user.
    engine=Engine(batches=(1, 64, 512)),
    equivalence=Equivalence(
        int8=Rung(
            whole=Limits(
                min_agreement=0.99,
                max_metric_drop=0.002,
                min_snr_db=20.0,
                min_rank_correlation=0.995,
                max_probability_change=0.05,
            ),
            # More than a quarter of impressions score within 0.05 of the threshold, so decisions
            # turn with hardly a change. What keeps them honest is the change itself.
            slices=Limits(min_agreement=0.98, max_metric_drop=0.01, max_probability_change=0.05),
        ),
    ),
    gate=(
        AtLeast(metric="auc", value=0.67),
        # Knowing the share of clicks and nothing else would be 0.56.
        AtMost(metric="log_loss", value=0.55),
        # Saying a half to everything would be 0.69; small slices know theirs to about a tenth.
        AtMost(metric="log_loss", value=0.75, slices=True),
        AtMost(metric="calibration_error", value=0.06),
        NoWorse(metric="auc", margin=0.015),
        NoWorse(metric="log_loss", margin=0.01),
        # Not the AUC: on a hundred impressions that says little, whatever the model.
        NoWorse(metric="log_loss", margin=0.05, slices=True),
        AtMost(metric="latency_p99_ms", value=10.0),
        AtMost(metric="peak_memory_mb", value=1000.0),
        AtMost(metric="data_age_days", value=7.0),
    ),
    behaviours=(
        # A good model gives either five points more.
        Direction(
            name="a better item, more likely a click",
            change="a_better_item",
            rises=True,
            least_mean=0.02,
        ),
        Direction(
            name="a better match, more likely a click",
            change="a_better_match",
            rises=True,
            least_mean=0.02,
        ),
        # People click a little more or less by the hour; one in forty lies so near the threshold
        # that it is decided otherwise.
        Invariance(
            name="an hour later",
            change="an_hour_later",
            share=0.93,
            max_probability_change=0.05,
        ),
        Invariance(
            name="an item shown once more",
            change="shown_once_more",
            max_probability_change=0.02,
        ),
        MinimumFunctionality(
            name="what everybody clicks and what nobody does",
            cases="plain_impressions",
            share=0.9,
        ),
    ),
    rollout=Rollout(
        canary_percents=(10, 25, 50, 100),
        shadow_soak=timedelta(days=7),
        soak=timedelta(days=3),
        progressive_soak=timedelta(hours=16),
        bake=timedelta(days=1),
        deadline=timedelta(days=28),
        time_scale=1 / 43_200,  # a day becomes two seconds
        primary=Measure(name="clicks", source="label", margin=0.1, deviation=0.42),
        # Many lie at the threshold: between two seeds one in twenty is decided otherwise.
        shadow=Shadow(max_disagreement_share=0.15, min_spearman=0.8, min_kendall=0.6),
        evidence_timeout=timedelta(days=4),
    ),
    endpoint=Endpoint(
        # An answer of some minutes ago is nearer the truth than one to somebody of whom nothing is
        # known; the model has learned to answer that too.
        lookup=(Instead.CACHED, Instead.VALUES),
        failed=(Instead.CACHED, Instead.RULES),
        hashed=("user_id",),
    ),
    # Tastes fill up for as long as a user stays, so they say nothing of drift.
    watch=Watch(
        columns=("category", "mobile", "user_rate_24h", "item_rate_24h"),
        every=timedelta(days=7),
    ),
    # The simulated weeks are always the same ones.
    recorded=True,
    about=About(
        purpose="Tell how likely a user is to click an item, to choose what to show first.",
        methodology=(
            "Embeddings of who, what and when beside counts of the last day, then a small "
            "perceptron: ids are worth more than any other change that was tried, and a table is "
            "read in no time."
        ),
        assumptions=(
            "Counts of the last day are an hour old when they are read, not more than two days.",
            "Tastes change slowly against the week between two trainings.",
        ),
        limitations=(
            "Users, items and clicks are simulated; no number here says anything about people.",
            "It learns from what was shown; what was never shown it cannot rate well.",
            "Of users seen for less than two days it knows little more than the item does.",
        ),
        out_of_scope=("Prices, credit, jobs, or anything else that changes somebody's chances.",),
        ethical=(
            "Ranking by clicks favours what is clicked, which is not what is good for the user; a "
            "real use needs a goal besides clicks, and a way out for the user."
        ),
    ),
)
