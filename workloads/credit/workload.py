"""Probability that a client defaults next month. A regulated use."""

from datetime import timedelta

from penstock.workload import (
    Column,
    DataRules,
    Drift,
    Engine,
    Equivalence,
    Export,
    Found,
    Limits,
    Network,
    Quantize,
    Rung,
    Slice,
    Training,
)

WORKLOAD = Network(
    name="credit",
    title="Credit default",
    owner="credit-risk",
    feature_service="credit_v1",
    label="defaulted",
    classes=2,
    metric="auc",
    # The least expected cost, not the most right decisions: a default is taken to lose four times
    # what a refused client who pays would have earned, so refusing is the cheaper from 1 / (1 + 4).
    # The four is an assumption; whoever uses this puts their own costs here.
    threshold=0.2,
    # Where a wrong step would hurt most: who is near or over the limit, who is late, who has little
    # room, and the tails of the amounts, where int8 has its fewest steps.
    slices=(
        Slice(name="heavy use", column="use", low=0.9),
        Slice(name="recently late", column="months_late", low=1),
        Slice(name="two months late", column="months_late", low=2),
        Slice(name="never late", column="late_count", high=1),
        Slice(name="low limit", column="credit_limit", high=50_000),
        Slice(name="large bill", column="bill", low=200_000),
        Slice(name="unused card", column="use", high=0.01),
    ),
    label_delay=timedelta(days=30),
    data=DataRules(
        columns=(
            Column(name="client_id", dtype="int64", low=1),
            Column(name="event_timestamp", dtype="timestamp[us, tz=UTC]"),
            Column(name="defaulted", dtype="int64", low=0, high=1),
            Column(name="credit_limit", dtype="double", low=1),
            # A bill may be negative: the client has paid more than was due.
            Column(name="use", dtype="double", low=-10, high=20),
            Column(name="use_high", dtype="double", low=-10, high=20),
            Column(name="use_trend", dtype="double", low=-20, high=20),
            Column(name="months_late", dtype="double", low=0, high=9),
            Column(name="months_late_high", dtype="double", low=0, high=9),
            Column(name="late_count", dtype="double", low=0, high=6),
            Column(name="late_trend", dtype="double", low=-9, high=9),
            Column(name="repaid_share", dtype="double", low=0, high=1),
            Column(name="repaid_share_low", dtype="double", low=0, high=1),
            Column(name="paid", dtype="double", low=0),
            Column(name="bill", dtype="double"),
        ),
        unique=("client_id",),
        at_least_rows=1_000,
        found=(Found(view="client_month", share=1.0),),
        drift=Drift(columns=("credit_limit", "use", "months_late", "late_count", "repaid_share")),
    ),
    # No search: over twenty settings, the validation AUC of this network moved by less than 0.002.
    training=Training(epochs=8, batch_size=256, learning_rate=2e-3, weight_decay=0.5, seed=42),
    export=Export(),
    quantize=Quantize(examples=2048),
    engine=Engine(batches=(1, 8, 64)),
    equivalence=Equivalence(
        int8=Rung(
            whole=Limits(
                min_agreement=0.99,
                max_metric_drop=0.002,
                min_snr_db=20.0,
                min_rank_correlation=0.995,
                max_probability_change=0.25,
            ),
            slices=Limits(min_agreement=0.98, max_metric_drop=0.01, max_probability_change=0.25),
        ),
    ),
)
