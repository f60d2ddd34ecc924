"""Laws of the gate: the whole interval decides, and missing or weak evidence is never a pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.gate.judge import Judgement, judge
from penstock.stats.scored import Scored
from penstock.verdict import Check, Outcome
from penstock.workload import (
    AtLeast,
    AtMost,
    Costs,
    LeastCost,
    NoWorse,
    Rule,
    Sensitive,
    Slice,
    Workload,
)
from workloads.digits.workload import WORKLOAD

LABELS = np.tile(np.arange(10), 60)
CLASSES = {f"class {c}": c == LABELS for c in range(10)}
FLOOR = AtLeast(metric="accuracy", value=0.93)
NO_WORSE = NoWorse(metric="accuracy", margin=0.02)
RATIO = AtLeast(metric="adverse_impact_ratio", value=0.8)
OPPORTUNITY = AtMost(metric="equal_opportunity_difference", value=0.15)
COSTS = Costs(false_positive=1, false_negative=4)
SEX = Sensitive(
    name="sex",
    groups=(
        Slice(name="men", column="sex", among=(1,)),
        Slice(name="women", column="sex", among=(2,)),
    ),
)


def digits(*rules: Rule, **changed: Any) -> Workload:
    """Return a workload of ten classes with these rules."""
    return replace(WORKLOAD, gate=rules, **changed)


def credit(*rules: Rule, **changed: Any) -> Workload:
    """Return a workload of two classes with costs and these rules; of sexes where one asks."""
    task = {"classes": 2, "metric": "auc", "threshold": 0.2, "costs": COSTS, "favourable": 0}
    fair = any(rule in (RATIO, OPPORTUNITY) for rule in rules)
    return replace(WORKLOAD, gate=rules, **{"sensitive": (SEX,) * fair, **task, **changed})


def scores(wrong: int, *, label: int | None = None) -> Scored:
    """Return scores of 600 digits with so many wrong, of one class if it is given."""
    decided = LABELS.copy()
    where = np.arange(len(LABELS)) if label is None else np.flatnonzero(label == LABELS)
    decided[where[:wrong]] = (decided[where[:wrong]] + 1) % 10
    return Scored(labels_n=LABELS, logits_nk=np.eye(10)[decided] * 5, threshold=None)


def clients(n: int, *, seed: int = 3, noise: float = 0.1, shift: float = 0.0) -> Scored:
    """Return scores of clients, calibrated but for noise and shift; the same clients for a seed."""
    rng = np.random.default_rng(seed)
    odds_n = rng.normal(-1.4, 1, n)
    labels_n = (rng.random(n) < 1 / (1 + np.exp(-odds_n))).astype(np.int64)
    odds_n = odds_n + rng.normal(0, noise, n) + shift
    logits_nk = np.stack([np.zeros(n), odds_n], axis=1)
    return Scored(labels_n=labels_n, logits_nk=logits_nk, threshold=0.2)


def judged(declared: Workload, challenger: Scored, champion: Scored | None = None, *,
           seed: int = 1, **given: Any) -> Judgement:  # fmt: skip
    """Judge with what is given and nothing besides."""
    usual = {"slices": {}, "groups": {}, "validation": None, "budget": {}, "data_age_days": None}
    return judge(
        declared, challenger, champion, **{**usual, **given}, rng=np.random.default_rng(seed)
    )


def checks(judgement: Judgement) -> dict[str, Check]:
    """Return the checks by name; no name is there twice."""
    found = {check.name: check for check in judgement.verdict.checks}
    assert len(found) == len(judgement.verdict.checks)
    return found


def outcome(rule: Rule, challenger: Scored, champion: Scored | None = None) -> Outcome:
    """Return what one rule says of digits."""
    return judged(digits(rule), challenger, champion).verdict.outcome


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [(10, Outcome.PASS), (40, Outcome.INCONCLUSIVE), (90, Outcome.FAIL)],
)
def test_the_floor_asks_for_the_whole_interval(wrong: int, expected: Outcome):
    """Surely above passes, surely below fails, between is inconclusive."""
    assert outcome(FLOOR, scores(wrong)) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.6, Outcome.PASS), (0.47, Outcome.INCONCLUSIVE), (0.3, Outcome.FAIL)],
)
@pytest.mark.parametrize("metric", ["log_loss", "expected_cost"])
def test_the_ceiling_asks_for_the_whole_interval(metric: str, value: float, expected: Outcome):
    """Surely below passes, surely above fails, between is inconclusive."""
    value = value * 1.15 if metric == "expected_cost" else value
    rule = AtMost(metric=metric, value=value)

    assert judged(credit(rule), clients(1000)).verdict.outcome is expected


@pytest.mark.parametrize(
    ("challenger", "champion", "expected"),
    [
        (10, 10, Outcome.PASS),
        (10, 40, Outcome.PASS),
        (22, 10, Outcome.INCONCLUSIVE),
        (60, 10, Outcome.FAIL),
    ],
)
def test_no_worse_than_the_champion(challenger: int, champion: int, expected: Outcome):
    """Equal and better pass, clearly worse fails, worse by about the margin is inconclusive."""
    assert outcome(NO_WORSE, scores(challenger), scores(champion)) is expected


@pytest.mark.parametrize(
    ("metric", "margin"),
    [
        ("accuracy", 0.02), ("auc", 0.01), ("log_loss", 0.02),
        ("brier", 0.01), ("expected_cost", 0.05), ("calibration_error", 0.06),
    ],
)  # fmt: skip
def test_worse_is_the_way_that_hurts_whatever_way_the_metric_goes(metric: str, margin: float):
    """A ruined challenger fails against a good champion, and the other way round passes."""
    rule, good = NoWorse(metric=metric, margin=margin), clients(3000)
    bad = clients(3000, noise=2.5, shift=1.0)

    assert judged(credit(rule), bad, good).verdict.outcome is Outcome.FAIL
    assert judged(credit(rule), good, bad).verdict.outcome is Outcome.PASS


def test_the_first_model_has_no_champion_and_says_so():
    """Without a champion the rule passes with that as its reason, for slices too."""
    rules = (NO_WORSE, replace(NO_WORSE, margin=0.1, slices=True))
    found = judged(digits(*rules), scores(10), slices=CLASSES)

    assert found.verdict.outcome is Outcome.PASS
    assert len(checks(found)) == 2
    assert all("no champion" in check.reason for check in found.verdict.checks)
    assert found.numbers["metrics"]["accuracy"]["difference"] is None


def test_a_champion_that_could_not_be_scored_is_not_one_that_is_not_there():
    """Every rule that compares is an error, whether of slices or not; the numbers say so too."""
    rules = (NO_WORSE, NoWorse(metric="log_loss", margin=0.1, slices=True))
    found = judged(digits(*rules), scores(0), slices=CLASSES, incomparable="another transform")

    assert [c.outcome for c in found.verdict.checks] == [Outcome.ERROR] * 2
    for check in found.verdict.checks:
        assert check.reason == "the champion could not be scored: another transform"
    assert found.numbers["incomparable"] == "another transform"
    assert judged(digits(*rules), scores(0), slices=CLASSES).numbers["incomparable"] == ""


def test_one_class_made_worse_fails_whatever_the_rest():
    """Half of one class lost is 5 % overall, and its slice fails."""
    rules = (NO_WORSE, NoWorse(metric="accuracy", margin=0.15, slices=True))
    found = judged(digits(*rules), scores(30, label=4), scores(0), slices=CLASSES)

    failed = [c.name for c in found.verdict.checks if c.outcome is Outcome.FAIL]
    assert failed == ["accuracy no worse than the champion's", "accuracy of class 4 no worse"]
    told = {s["name"]: s for s in found.numbers["slices"]}
    assert told["class 4"]["outcome"] == "fail"
    assert told["class 4"]["margin"] == 0.15
    assert told["class 5"]["outcome"] == "pass"


def test_a_rule_of_slices_asks_all_rows_too_unless_another_does():
    """So that no rule of slices leaves out what is in none of them."""
    of_slices = AtLeast(metric="accuracy", value=0.5, slices=True)
    alone = judged(digits(of_slices), scores(10), slices=CLASSES)
    both = judged(digits(FLOOR, of_slices), scores(10), slices=CLASSES)

    assert list(checks(alone)) == ["accuracy", *(f"accuracy of {name}" for name in CLASSES)]
    assert checks(alone)["accuracy"].limit == 0.5
    assert checks(both)["accuracy"].limit == 0.93


def test_a_slice_beyond_its_limit_by_chance_among_many_is_inconclusive():
    """By itself it would fail; of ten judged together it does not, and says why."""
    challenger = scores(12, label=4)
    few = {"class 4": CLASSES["class 4"]}
    rule = AtLeast(metric="accuracy", value=0.9, slices=True)
    one, ten = (judged(digits(rule), challenger, slices=s) for s in (few, CLASSES))

    assert checks(one)["accuracy of class 4"].outcome is Outcome.FAIL
    assert checks(ten)["accuracy of class 4"].outcome is Outcome.INCONCLUSIVE
    assert "one of 10" in checks(ten)["accuracy of class 4"].reason


def test_slices_with_few_rows_or_none_do_not_pass():
    """Twenty rows are too few, none is an error, and no slice at all is one too."""
    rule = AtLeast(metric="accuracy", value=0.5, slices=True)
    slices = {"few": np.arange(600) < 20, "none": np.zeros(600, bool)}
    found = judged(digits(rule), scores(0), slices=slices)

    assert checks(found)["accuracy of few"].outcome is Outcome.INCONCLUSIVE
    assert "20 rows, 30 needed" in checks(found)["accuracy of few"].reason
    assert checks(found)["accuracy of none"].outcome is Outcome.ERROR
    assert "no rows" in checks(found)["accuracy of none"].reason
    assert judged(digits(rule), scores(0)).verdict.outcome is Outcome.ERROR
    assert [s["n"] for s in found.numbers["slices"]] == [20, 0]


def test_an_auc_of_one_label_is_an_error():
    """However many rows there are."""
    challenger = clients(600)
    slices = {"paid": challenger.labels_n == 0}
    rule = AtLeast(metric="auc", value=0.5, slices=True)
    declared = credit(rule, slices=(Slice(name="paid", column="defaulted", high=1),))
    found = judged(declared, challenger, slices=slices)

    assert checks(found)["auc of paid"].outcome is Outcome.ERROR
    assert "both labels" in checks(found)["auc of paid"].reason


@pytest.mark.parametrize("rule", [FLOOR, NO_WORSE, AtMost(metric="log_loss", value=1.0)])
def test_no_examples_are_an_error(rule: Rule):
    """An empty holdout is no evidence."""
    empty = Scored(labels_n=LABELS[:0], logits_nk=np.zeros((0, 10)), threshold=None)
    found = judged(digits(rule), empty, empty)

    assert found.verdict.outcome is Outcome.ERROR
    json.dumps(found.numbers, allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whose", ["challenger", "champion", "validation"])
def test_scores_that_are_no_numbers_are_an_error_that_says_where(value: float, whose: str):
    """Of whichever model; and no metric comes of them."""
    given = {name: clients(100) for name in ("challenger", "champion", "validation")}
    given[whose].logits_nk[[7, 9], 1] = value
    found = judged(credit(AtLeast(metric="accuracy", value=0.01)), **given)
    (check,) = found.verdict.checks

    assert check.outcome is Outcome.ERROR
    assert check.name.startswith("finite scores")
    assert (whose in check.name) == (whose != "challenger")
    assert "2 of 100 rows" in check.reason
    assert "first row 7" in check.reason
    assert set(found.numbers["metrics"]["accuracy"].values()) == {None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"champion": clients(100, seed=4)}, "mismatched holdouts"),
        ({"champion": clients(99)}, "mismatched holdouts"),
        ({"champion": scores(0)}, "for 10 classes"),
        ({"validation": replace(clients(100), threshold=None)}, "threshold None"),
        ({"slices": {"odd": np.ones(99, bool)}}, "shape \\(99,\\) for 100 rows"),
        ({"slices": {"odd": np.ones(100, int)}}, "is int64"),
        ({"slices": {"all": np.ones(100, bool)}}, "another name"),
        ({"groups": {"sex": {"men": np.ones(100, bool)}}}, "women is declared"),
    ],
)
def test_what_is_not_of_one_holdout_and_task_is_refused(given: Mapping[str, Any], said: str):
    """With what came and what was wanted."""
    with pytest.raises(ValueError, match=said):
        judged(credit(FLOOR, RATIO), clients(100), **given)


def test_a_champion_decides_by_the_threshold_it_serves_with():
    """Which may be of an earlier policy: it is then what users get now."""
    champion = replace(clients(100), threshold=0.9)
    found = judged(credit(NoWorse(metric="accuracy", margin=0.5)), clients(100), champion)

    told = found.numbers["metrics"]["accuracy"]["champion"]["value"]
    assert told == pytest.approx((champion.labels_n == 0).mean(), abs=0.02)


def test_a_declared_slice_that_did_not_come_is_refused():
    """Or it would pass unseen."""
    declared = digits(FLOOR, slices=(Slice(name="faint", column="ink_mean", high=2),))

    with pytest.raises(ValueError, match="faint is declared"):
        judged(declared, scores(0), slices=CLASSES)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100))
def test_a_better_challenger_is_never_judged_worse(wrong: int, fewer: int):
    """Making fewer mistakes on the same rows never turns a pass into something else."""
    champion, (few, many) = scores(50), sorted((wrong, fewer))
    order = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)

    for rule in (FLOOR, NO_WORSE):
        worse, better = (outcome(rule, scores(k), champion) for k in (many, few))
        assert order.index(better) >= order.index(worse)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"latency_p99_ms": 9.9}, Outcome.PASS),
        ({"latency_p99_ms": 10.0}, Outcome.PASS),
        ({"latency_p99_ms": 10.1}, Outcome.FAIL),
        ({"latency_p99_ms": float("nan")}, Outcome.ERROR),
        ({"latency_p99_ms": None}, Outcome.ERROR),
        ({"latency_p99_ms": True}, Outcome.ERROR),
        ({"latency_p50_ms": 1.0}, Outcome.ERROR),
        ({"problem": "measuring ended with 1"}, Outcome.ERROR),
        ({"problem": "measuring ended with 1", "latency_p99_ms": 3.0}, Outcome.ERROR),
        ({"latency_p99_ms": -1.0}, Outcome.ERROR),
        ({"latency_p99_ms": 0}, Outcome.ERROR),
        ({}, Outcome.ERROR),
    ],
)
def test_a_budget_is_kept_exceeded_or_unknown(budget: dict[str, object], expected: Outcome):
    """What was not measured is an error, never a pass."""
    rule = AtMost(metric="latency_p99_ms", value=10.0)

    assert judged(digits(rule), scores(0), budget=budget).verdict.outcome is expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (29.9, Outcome.PASS), (30.0, Outcome.PASS), (30.1, Outcome.FAIL),
        (None, Outcome.ERROR), (float("nan"), Outcome.ERROR), (-1.0, Outcome.ERROR),
    ],
)  # fmt: skip
def test_data_are_young_enough_too_old_or_of_unknown_age(age: float | None, expected: Outcome):
    """Data from the future have no age."""
    rule = AtMost(metric="data_age_days", value=30)

    assert judged(digits(rule), scores(0), data_age_days=age).verdict.outcome is expected


def test_the_age_of_a_recording_says_until_when_it_counts():
    """A reader must not take it for the age today."""
    rule, said = AtMost(metric="data_age_days", value=30), "until the recording was taken"
    for recorded in (True, False):
        found = judged(digits(rule, recorded=recorded), scores(0), data_age_days=2)

        assert (said in found.verdict.checks[0].reason) == recorded
        assert found.verdict.checks[0].reason.startswith("2, at most 30 days; ")


def test_the_operating_threshold_is_held_against_the_best_of_validation_rows():
    """Of calibrated scores it costs no more; of shifted ones it does; without such rows: error."""
    declared = credit(LeastCost(max_regret=0.03))
    good, shifted = (
        judged(declared, clients(4000, shift=s), validation=clients(4000, seed=5, shift=s))
        for s in (0.0, -1.5)
    )

    assert good.verdict.outcome is Outcome.PASS
    assert shifted.verdict.outcome is Outcome.FAIL
    assert shifted.numbers["costs"]["best_threshold"] < 0.1
    assert judged(declared, clients(4000)).verdict.outcome is Outcome.ERROR
    few = judged(declared, clients(4000), validation=clients(999, seed=5))
    assert few.verdict.outcome is Outcome.INCONCLUSIVE
    assert "999 rows, 1000 needed" in few.verdict.reason


def sexes(n: int, men: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the rows of so many men, and the rest."""
    return {"sex": {"men": np.arange(n) < men, "women": np.arange(n) >= men}}


def unfair(n: int, men: int, *, shift: float) -> Scored:
    """Return scores by which the first rows, the men, are riskier than they are."""
    found = clients(n)
    found.logits_nk[:men, 1] += shift
    return found


@pytest.mark.parametrize("rule", [RATIO, OPPORTUNITY])
def test_decisions_that_fall_on_one_group_fail(rule: Rule):
    """And those that fall on both alike pass."""
    found = {
        shift: judged(credit(rule), unfair(3000, 1500, shift=shift), groups=sexes(3000, 1500))
        for shift in (0.0, 1.5)
    }

    assert found[0.0].verdict.outcome is Outcome.PASS
    assert found[1.5].verdict.outcome is Outcome.FAIL
    told = found[1.5].numbers["fairness"][0]
    assert told["attribute"] == "sex"
    assert told["groups"][0]["favoured"] < told["groups"][1]["favoured"]


@pytest.mark.parametrize("rule", [RATIO, OPPORTUNITY])
def test_a_group_too_small_to_judge_is_named_and_nothing_passes(rule: Rule):
    """Nor without the groups' rows."""
    found = judged(credit(rule), clients(3000), groups=sexes(3000, 20))

    assert found.verdict.outcome is Outcome.INCONCLUSIVE
    assert "group 'men' has" in found.verdict.reason
    assert judged(credit(rule), clients(3000)).verdict.outcome is Outcome.ERROR


def test_a_small_group_beside_two_that_are_alike_still_keeps_it_from_passing():
    """What the two show is no statement on the third; what they show of harm stands."""
    third = replace(SEX, groups=(*SEX.groups, Slice(name="others", column="sex", among=(3,))))
    ends: list[Outcome] = []
    for shift in (0.0, 1.5):
        rows = sexes(3000, 1500)["sex"] | {"others": np.arange(3000) < 20}
        declared = replace(credit(RATIO), sensitive=(third,))
        found = judged(declared, unfair(3000, 1500, shift=shift), groups={"sex": rows})
        assert "group 'others' has 20 rows" in found.verdict.checks[0].reason
        ends.append(found.verdict.outcome)

    assert ends == [Outcome.INCONCLUSIVE, Outcome.FAIL]


def test_where_nobody_is_favoured_nothing_is_fair():
    """A share of nothing over a share of nothing."""
    found = judged(credit(RATIO), clients(3000, shift=50), groups=sexes(3000, 1500))

    assert found.verdict.outcome is Outcome.ERROR


def test_probabilities_that_the_log_loss_clips_are_counted():
    """A certain answer that is wrong costs 13.8, and the reason says of how many."""
    found = judged(digits(AtMost(metric="log_loss", value=20)), replace_logits(scores(3), 200))

    assert "3 probabilities below 1e-06 count as that" in found.verdict.checks[0].reason
    assert found.numbers["metrics"]["log_loss"]["challenger"]["value"] == pytest.approx(
        3 * 13.8155 / 600, rel=1e-4
    )


def replace_logits(scored: Scored, times: float) -> Scored:
    """Return scores that are surer."""
    return replace(scored, logits_nk=scored.logits_nk * times)


def test_numbers_are_plain_finite_and_the_same_again():
    """They are JSON without NaN, hold every metric of the task, and depend on the seed alone."""
    challenger, champion = clients(800), clients(800, noise=0.5)
    given = {
        "slices": {"first": np.arange(800) < 300},
        "groups": sexes(800, 300),
        "validation": clients(700, seed=5),
    }
    first = Slice(name="first", column="row", high=300)
    declared = credit(NoWorse(metric="brier", margin=0.02, slices=True), slices=(first,))
    one, other = (judged(declared, challenger, champion, **given) for _ in range(2))
    text = json.dumps(one.numbers, allow_nan=False)

    assert text == json.dumps(other.numbers, allow_nan=False)
    assert one.verdict == other.verdict
    assert list(one.numbers["metrics"]) == [
        "accuracy", "auc", "log_loss", "brier", "calibration_error", "expected_cost"
    ]  # fmt: skip
    assert [(s["metric"], s["outcome"]) for s in one.numbers["slices"]] == [
        ("auc", None), ("brier", "pass")
    ]  # fmt: skip
    for estimates in one.numbers["metrics"].values():
        for estimate in estimates.values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert len(one.numbers["roc"]["challenger"]) <= 201
    assert one.numbers["roc"]["champion"][0] == [0, 0]
    assert one.numbers["roc"]["champion"][-1] == [1, 1]
    assert np.sum(one.numbers["confusion"]) == 800
    assert sum(b["n"] for b in one.numbers["reliability"]) == 800
    assert [c["n"] for c in one.numbers["by_class"]] == np.bincount(challenger.labels_n).tolist()


def test_of_ten_classes_there_is_no_roc_and_no_cost():
    """And the shape of the numbers stays."""
    numbers = judged(digits(FLOOR), scores(10), scores(5), slices=CLASSES).numbers

    assert (numbers["roc"], numbers["costs"], numbers["fairness"]) == (None, None, [])
    assert list(numbers["metrics"]) == ["accuracy", "log_loss", "brier", "calibration_error"]
    assert np.trace(numbers["confusion"]) == 590
