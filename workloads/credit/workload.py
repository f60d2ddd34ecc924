"""Probability that a client defaults next month. A regulated use."""

from datetime import timedelta

from penstock.workload import (
    About,
    Approval,
    AtLeast,
    AtMost,
    Column,
    Costs,
    DataRules,
    Direction,
    Drift,
    Endpoint,
    Engine,
    Equivalence,
    Export,
    Fallback,
    Found,
    Instead,
    Invariance,
    LeastCost,
    Limits,
    Market,
    Measure,
    MinimumFunctionality,
    NoWorse,
    Quantize,
    Rollout,
    Rung,
    Sensitive,
    Shadow,
    Slice,
    Training,
    Watch,
    Workload,
)

# A default is taken to lose four times what a refused client who pays would have earned, so
# refusing is the cheaper from 1 / (1 + 4) on. The four is an assumption; whoever uses this puts
# their own costs here.
COSTS = Costs(false_positive=1, false_negative=4)

WORKLOAD = Workload(
    name="credit",
    title="Credit default",
    owner="credit-risk",
    feature_service="credit_v1",
    label="defaulted",
    classes=2,
    metric="auc",
    # The least expected cost, not the most right decisions.
    threshold=COSTS.threshold,
    costs=COSTS,
    # The decision 0 grants the credit.
    favourable=0,
    # Decades; those over fifty together, since of the sixties and older a holdout of this size has
    # sixty-four, on whom no model could show four fifths. The codes are UCI's; education 0 and 4 to
    # 6 are others and unknown, too few and too mixed to be a group.
    sensitive=(
        Sensitive(
            name="sex",
            groups=(
                Slice(name="men", column="sex", among=(1,)),
                Slice(name="women", column="sex", among=(2,)),
            ),
        ),
        Sensitive(
            name="age",
            groups=(
                Slice(name="under 30", column="age", high=30),
                Slice(name="30 to 39", column="age", low=30, high=40),
                Slice(name="40 to 49", column="age", low=40, high=50),
                Slice(name="50 and over", column="age", low=50),
            ),
        ),
        Sensitive(
            name="education",
            groups=(
                Slice(name="graduate school", column="education", among=(1,)),
                Slice(name="university", column="education", among=(2,)),
                Slice(name="high school", column="education", among=(3,)),
            ),
        ),
    ),
    prohibited=("marriage",),
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
    gate=(
        AtLeast(metric="auc", value=0.75),
        # Better than a coin, wherever it is asked.
        AtLeast(metric="auc", value=0.55, slices=True),
        AtMost(metric="calibration_error", value=0.04),
        # Refusing everybody would cost 0.78, granting everybody 0.89.
        AtMost(metric="expected_cost", value=0.6),
        LeastCost(max_regret=0.03),
        NoWorse(metric="auc", margin=0.01),
        NoWorse(metric="auc", margin=0.05, slices=True),
        NoWorse(metric="log_loss", margin=0.01),
        NoWorse(metric="expected_cost", margin=0.03),
        # Four fifths: a level to look closer from, not a limit that the law draws. Three quarters
        # of those who pay are granted, and four fifths of that are fifteen points fewer.
        AtLeast(metric="adverse_impact_ratio", value=0.8),
        AtMost(metric="equal_opportunity_difference", value=0.15),
        AtMost(metric="latency_p99_ms", value=10.0),
        AtMost(metric="peak_memory_mb", value=1000.0),
        AtMost(metric="data_age_days", value=45.0),
    ),
    behaviours=(
        Direction(
            name="a month later, more likely to default",
            change="a_month_later",
            rises=True,
            share=0.95,
            tolerance=0.01,
            # A good model gives ten points more.
            least_mean=0.03,
        ),
        Invariance(
            name="a dollar more on the bill",
            change="a_dollar_more",
            share=0.99,
            max_probability_change=0.01,
        ),
        MinimumFunctionality(name="clients nobody would dispute", cases="plain_clients"),
    ),
    rollout=Rollout(
        canary_percents=(10, 25, 50, 100),
        shadow_soak=timedelta(days=7),
        soak=timedelta(days=3),
        # Three steps in two days, as every check has passed at the canary.
        progressive_soak=timedelta(hours=16),
        bake=timedelta(days=3),
        # Labels come after thirty days.
        deadline=timedelta(days=90),
        time_scale=1 / 100_000,  # a week becomes six seconds
        primary=Measure(name="right decisions", source="right", margin=0.15, deviation=0.45),
        shadow=Shadow(max_disagreement_share=0.08, min_spearman=0.9),
        evidence_timeout=timedelta(days=14),
        kill_to=Fallback.RULES,
        markets=(
            Market(name="us", canary_percents=(10, 25, 50, 100)),
            # GDPR, Articles 22 and 35: a person lets each step in, on a canary of fewer users for
            # longer, and what the law asks for lies there before the first of them.
            Market(
                name="eu",
                canary_percents=(5, 10, 25, 50, 100),
                soak=timedelta(days=7),
                progressive_soak=timedelta(days=1),
                approve=True,
                documents=("dpia", "prohibited-features", "human-review"),
            ),
        ),
    ),
    endpoint=Endpoint(
        # No cached answer: a decision rests on what is known of the client now, or on rules that
        # can be explained.
        lookup=(Instead.RULES,),
        failed=(Instead.RULES,),
        # Regulation B, 12 CFR 1002.12(b): twenty-five months from the decision.
        log_kept=timedelta(days=775),
    ),
    # A validator of its own takes up to a week, and each version another two: four times a year.
    watch=Watch(
        columns=("credit_limit", "use", "months_late", "late_count", "repaid_share"),
        every=timedelta(days=91),
        min_interval=timedelta(days=14),
        max_silence=timedelta(days=1),
    ),
    recorded=True,
    approval=Approval.PERSON,
    retention=timedelta(days=7 * 365 + 2),
    about=About(
        purpose="Tell how likely a card client is not to pay next month, to decide on new credit.",
        methodology=(
            "A small perceptron on numbers cut into steps at fixed edges, which come from what the "
            "columns mean. It ranks as well as boosted trees on this data, what any one number can "
            "do ends at its last edge, and it runs in int8."
        ),
        assumptions=(
            "Clients have six months of statements, the last one known.",
            "A default costs four times what a client who pays earns.",
            "What made clients default then makes them default now.",
        ),
        limitations=(
            "One bank in Taiwan, April to September 2005: too old and too narrow for any decision.",
            "All clients are decided on at one time, so nothing here shows how it ages.",
            "Of applicants who were refused a card the data know nothing.",
            (
                "Clients under 25 are granted less often than others, and the holdout has too few "
                "to tell whether by more than the screening level; they are judged with all under "
                "30."
            ),
            "A few clients score a little better for one month of delay more.",
        ),
        out_of_scope=(
            "Deciding without a person on who is given credit.",
            "Clients without a history of statements; companies.",
        ),
        ethical=(
            "A wrong refusal hurts a client who would have paid, a wrong grant one who falls into "
            "debt. Sex, age, education and marriage are no features; the gate compares who is "
            "granted, among all and among those who pay, by the first three."
        ),
    ),
)
