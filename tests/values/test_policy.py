"""Laws of a policy: what cannot be judged or cannot be met is refused when it is declared."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.policy import SHARES, check_rules
from penstock.workload import (
    AtLeast,
    AtMost,
    Costs,
    Direction,
    Invariance,
    LeastCost,
    MinimumFunctionality,
    NoWorse,
    Rule,
    Sensitive,
    Slice,
    Workload,
)

SEX = Sensitive(
    name="sex",
    groups=(
        Slice(name="men", column="sex", among=(1,)),
        Slice(name="women", column="sex", among=(2,)),
    ),
)
FAIR = AtLeast(metric="adverse_impact_ratio", value=0.8)
COSTS = Costs(false_positive=1, false_negative=4)


def check(*rules: Rule, **given: Any) -> None:
    """Hold rules against a task of two classes with costs and slices."""
    known: dict[str, Any] = {"classes": 2, "costs": COSTS, "sensitive": (), "slices": 3}
    check_rules(rules, **{**known, **given})


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (AtLeast(metric="f1", value=0.5), "there is no metric 'f1'; there are accuracy, auc"),
        (AtLeast(metric="log_loss", value=0.5), "better when smaller.*use AtMost"),
        (AtMost(metric="auc", value=0.5), "better when greater.*use AtLeast"),
        (NoWorse(metric="latency_p99_ms", margin=0.5), "not compared with the champion's"),
        (AtMost(metric="cold_start_s", value=5, slices=True), "no value on a slice"),
        (AtMost(metric="adverse_impact_ratio", value=0.8), "use AtLeast"),
        (FAIR, "needs sensitive attributes"),
        (LeastCost(max_regret=math.inf), "give a finite number"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_refused(rule: Rule, said: str):
    with pytest.raises(ValueError, match=said):
        check(rule)


@pytest.mark.parametrize("limit", [-1.0, 0.0, math.nan, math.inf])
@pytest.mark.parametrize("metric", ["latency_p99_ms", "log_loss", "brier", "data_age_days"])
def test_a_limit_is_a_finite_number_above_nothing(metric: str, limit: float):
    """A verdict that dies of its own policy helps nobody."""
    with pytest.raises(ValueError, match="value is"):
        check(AtMost(metric=metric, value=limit))


@given(st.sampled_from([m for m in SHARES if m in ("accuracy", "auc", "brier")]), st.floats(1, 1e6))
def test_a_margin_of_everything_asks_nothing(metric: str, margin: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        check(NoWorse(metric=metric, margin=margin))


def test_a_metric_wants_what_it_is_computed_from():
    with pytest.raises(ValueError, match="of two classes; the workload has 10"):
        check(AtLeast(metric="auc", value=0.5), classes=10)
    with pytest.raises(ValueError, match="expected_cost needs costs"):
        check(AtMost(metric="expected_cost", value=0.5), costs=None)
    with pytest.raises(ValueError, match="LeastCost needs costs"):
        check(LeastCost(max_regret=0.1), costs=None)
    with pytest.raises(ValueError, match="declare some, or leave slices out"):
        check(AtLeast(metric="auc", value=0.5, slices=True), slices=0)
    with pytest.raises(ValueError, match="nothing would be judged"):
        check(AtLeast(metric="auc", value=0.5), sensitive=(SEX,))


def test_a_policy_says_each_thing_once():
    with pytest.raises(ValueError, match="asks AtLeast of auc twice"):
        check(AtLeast(metric="auc", value=0.5), AtLeast(metric="auc", value=0.6))

    check(AtLeast(metric="auc", value=0.5), AtLeast(metric="auc", value=0.4, slices=True))


def credit(**over: Any) -> Workload:
    """Return credit's declaration with something else in it."""
    return replace(workloads.load("credit"), **over)


@pytest.mark.parametrize(
    "over",
    [
        {"slices": (Slice(name="a", column="use", low=1), Slice(name="a", column="bill", low=1))},
        {"slices": (Slice(name="all", column="use", low=1),)},
        {"sensitive": (SEX, SEX)},
        {"behaviours": (Direction(name="d", change="x", rises=True),) * 2},
    ],
    ids=["slices", "a slice called all", "attributes", "behaviours"],
)
def test_no_name_hides_another(over: dict[str, Any]):
    """The second of two slices of one name would be judged in place of the first."""
    with pytest.raises(ValueError, match="give each a name of its own"):
        credit(**over)


def test_no_group_hides_another():
    """Two groups of one name would be compared as one."""
    one = Slice(name="men", column="sex", among=(1,))

    with pytest.raises(ValueError, match="two groups of 'sex' are called 'men'"):
        Sensitive(name="sex", groups=(one, replace(one, among=(2,))))


def test_no_slice_is_called_as_a_class_is():
    with pytest.raises(ValueError, match="two slices are called 'class 3'"):
        replace(workloads.load("digits"), slices=(Slice(name="class 3", column="ink_mean", low=1),))


@pytest.mark.parametrize("share", [0.0, -0.5, 95.0, math.nan])
def test_a_share_of_rows_is_a_share(share: float):
    """Asked of none, every model behaves."""
    for kind, more in (
        (Invariance, {"change": "c"}),
        (Direction, {"change": "c", "rises": True}),
        (MinimumFunctionality, {"cases": "c"}),
    ):
        with pytest.raises(ValueError, match="it is a share of rows"):
            kind(name="b", share=share, **more)


def test_a_direction_asks_for_an_effect_of_two_classes():
    """Or it would hold of a model that ignores the column."""
    way = Direction(name="d", change="x", rises=True)

    with pytest.raises(ValueError, match="least_mean is 0"):
        replace(way, least_mean=0.0)
    with pytest.raises(ValueError, match="'digits' has 10 classes"):
        replace(workloads.load("digits"), behaviours=(way,))


def test_an_empty_slice_and_costs_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no row is in it"):
        Slice(name="s", column="c", low=3, high=1)
    for cost in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="give a finite number above 0"):
            Costs(false_positive=cost, false_negative=1)


def test_a_threshold_that_contradicts_the_costs_is_refused():
    with pytest.raises(ValueError, match=r"its costs are least from 0\.2 on"):
        credit(threshold=0.5)


def test_a_workload_without_an_owner_is_refused():
    with pytest.raises(ValueError, match="name who answers for it"):
        credit(owner=" ")
