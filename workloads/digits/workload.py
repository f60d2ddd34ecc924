"""Handwritten digits, read from 8×8 images. The smallest complete example, and the int8 one."""

from datetime import timedelta

from penstock.workload import (
    About,
    AtLeast,
    AtMost,
    Column,
    DataRules,
    Endpoint,
    Engine,
    Equivalence,
    Export,
    Instead,
    Invariance,
    Limits,
    Measure,
    MinimumFunctionality,
    NoWorse,
    Quantize,
    Rollout,
    Rung,
    Training,
    Watch,
    Workload,
)

WORKLOAD = Workload(
    name="digits",
    title="Handwritten digits",
    owner="ml-platform",
    feature_service="digits_v1",
    label="label",
    classes=10,
    data=DataRules(
        columns=(
            Column(name="capture_id", dtype="int64", low=0),
            Column(name="event_timestamp", dtype="timestamp[us, tz=UTC]"),
            Column(name="label", dtype="int64", low=0, high=9),
            Column(name="pixels", dtype="list<element: float>", low=0, high=16, length=64),
            Column(name="ink_mean", dtype="double", low=0.5, high=16),
            Column(name="ink_spread", dtype="double", low=0.5, high=16),
            Column(name="centre_row", dtype="double", low=0, high=7),
            Column(name="centre_column", dtype="double", low=0, high=7),
        ),
        unique=("capture_id",),
        at_least_rows=500,
    ),
    training=Training(epochs=10, batch_size=64, learning_rate=4e-3, weight_decay=0.05, seed=42),
    export=Export(),
    quantize=Quantize(examples=320),
    engine=Engine(batches=(1, 8, 64)),
    equivalence=Equivalence(
        int8=Rung(
            whole=Limits(min_agreement=0.98, max_metric_drop=0.01, min_snr_db=20.0),
            slices=Limits(min_agreement=0.93, max_metric_drop=0.05),
        ),
    ),
    gate=(
        AtLeast(metric="accuracy", value=0.93),
        AtLeast(metric="accuracy", value=0.7, slices=True),
        AtMost(metric="calibration_error", value=0.03),
        AtMost(metric="latency_p50_ms", value=100.0),
        AtMost(metric="peak_memory_mb", value=1500.0),
        AtMost(metric="cold_start_s", value=5.0),
        AtMost(metric="data_age_days", value=30.0),
        # What 600 images can show: of two models that are as good, most pass.
        NoWorse(metric="accuracy", margin=0.03),
        NoWorse(metric="accuracy", margin=0.15, slices=True),
    ),
    behaviours=(
        Invariance(name="a fifth less ink", change="fainter", share=0.95),
        Invariance(name="one pixel to the right", change="one_to_the_right", share=0.93),
        MinimumFunctionality(name="the mean of each digit", cases="mean_digits"),
    ),
    rollout=Rollout(
        canary_percents=(10, 25, 50, 100),
        soak=timedelta(days=1),
        deadline=timedelta(days=14),
        time_scale=1 / 21_600,  # a day becomes four seconds
        progressive_soak=timedelta(hours=8),
        bake=timedelta(days=1),
        primary=Measure(name="right answers", source="right", margin=0.08, deviation=0.2),
        evidence_timeout=timedelta(days=2),
    ),
    serve="int8",
    # A capture does not change, nor does what is read from it.
    endpoint=Endpoint(
        lookup=(Instead.CACHED,), failed=(Instead.CACHED,), cached_for=timedelta(days=1)
    ),
    # Writers change slowly.
    watch=Watch(every=timedelta(days=30)),
    # The captures are always the same ones.
    recorded=True,
    about=About(
        purpose="Read one handwritten digit from an image of 8×8 grey values.",
        methodology=(
            "A small residual network, of which the int8 graph serves: images are where int8 saves "
            "most and where its harm is easiest to see."
        ),
        assumptions=(
            "One digit fills the image, upright, dark ink as large values.",
            "Captures come from hands like those of the training writers.",
        ),
        limitations=(
            "Eight by eight pixels leave some digits undecidable for people too.",
            "It has no answer for an image that holds no digit: it names one nevertheless.",
        ),
        out_of_scope=("Reading amounts or names on documents.",),
    ),
)
