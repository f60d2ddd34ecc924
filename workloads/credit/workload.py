"""Probability that a client defaults next month. A regulated use."""

from datetime import timedelta

from penstock.workload import Column, DataRules, Dataset, Drift, Found

WORKLOAD = Dataset(
    name="credit",
    title="Credit default",
    owner="credit-risk",
    feature_service="credit_v1",
    label="defaulted",
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
)
