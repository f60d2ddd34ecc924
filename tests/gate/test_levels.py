"""By simulation: how often each rule lets through what it should not, and stops what it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from penstock.gate.evidence import Evidence
from penstock.gate.judge import judge_rule
from penstock.stats import operating
from penstock.stats.means import Draws
from penstock.stats.measures import Measures
from penstock.stats.miscalibration import noise
from penstock.stats.scored import Scored
from penstock.verdict import Outcome
from penstock.workload import (
    AtLeast,
    AtMost,
    Costs,
    LeastCost,
    NoWorse,
    Rule,
    Slice,
)
from workloads.digits.workload import WORKLOAD

N, RUNS, PARTS = 500, 400, 6
SLOW_RUNS = 100
"""Of calibration, whose bounds are a search."""

CHANCE = np.random.default_rng(1)
DRAWS, NOISE_RB = Draws(N, rng=CHANCE, resamples=999), noise(rng=CHANCE)
"""Of every run: weights do not depend on the scores, and drawing them is most of the work."""

FEW, FEW_RUNS = (40, 60), 1200
"""Rows of a small slice, of which a run takes little."""

COSTS = Costs(false_positive=1, false_negative=4)
WORKLOAD_2 = replace(
    WORKLOAD,
    classes=2,
    metric="auc",
    threshold=0.2,
    costs=COSTS,
    favourable=0,
    slices=tuple(Slice(name=str(p), column="part", among=(p,)) for p in range(PARTS)),
)
Pair = tuple[Scored, Scored]


def pair(n: int, rng: np.random.Generator, *, off: float = 0.8, shift: float = 0.0) -> Pair:
    """Return a challenger whose odds are off by chance and a shift, and a good champion."""
    odds_n = rng.normal(-1.2, 1.2, n)
    labels_n = (rng.random(n) < 1 / (1 + np.exp(-odds_n))).astype(np.int64)
    ours_n, theirs_n = odds_n + rng.normal(0, off, n) + shift, odds_n + rng.normal(0, 0.2, n)
    one, other = (
        Scored(labels_n=labels_n, logits_nk=np.stack([0 * x, x], axis=1), threshold=0.2)
        for x in (ours_n, theirs_n)
    )
    return one, other


def worse(rng: np.random.Generator) -> Pair:
    """Return a holdout with a challenger that is truly worse."""
    return pair(N, rng)


def alike(rng: np.random.Generator) -> Pair:
    """Return a holdout with a challenger that is as good as the champion, and not the same."""
    return pair(N, rng, off=0.2)


def ends(
    rule: Rule,
    drawn: Callable[[np.random.Generator], Pair],
    *,
    validate: Callable[[np.random.Generator], Scored] | None = None,
    draws: Draws = DRAWS,
    runs: int = RUNS,
) -> list[set[Outcome]]:
    """Return in which outcomes a rule ends, run by run; each row is in a slice by chance."""
    rng, found = np.random.default_rng(8), []
    for _ in range(SLOW_RUNS if getattr(rule, "metric", "") == "calibration_error" else runs):
        challenger, champion = drawn(rng)
        validation = validate(rng) if validate else None
        part_n = rng.integers(0, PARTS, challenger.n)
        slices = {str(p): part_n == p for p in range(PARTS)}
        measures = Measures(
            challenger, champion, slices, costs=COSTS, draws=draws, noise_rb=NOISE_RB
        )
        evidence = Evidence(
            declared=WORKLOAD_2,
            challenger=challenger,
            champion=champion,
            slices=slices,
            groups={},
            validation=validation,
            budget={},
            data_age_days=None,
            measures=measures,
        )
        found.append({finding.check.outcome for finding in judge_rule(evidence, rule)})
    return found


def seldom(found: list[set[Outcome]], outcome: Outcome) -> bool:
    """Tell whether in no more runs than a chance of 2.5 % gives, but for one test of a thousand."""
    return share(found, outcome) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / len(found))


def share(found: list[set[Outcome]], outcome: Outcome) -> float:
    """Return how often a rule ended in an outcome, in every part that it was asked of."""
    return sum(end == {outcome} for end in found) / len(found)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep products of small matrices from waiting for each other's threads: thrice as fast."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def truths() -> Measures:
    """Return what is true of a worse challenger, from so many rows that chance adds nothing.

    Of 400 000 it was off by a twentieth of the standard error of 500, which shows in the levels.
    """
    n = 3_000_000
    few = Draws(n, rng=np.random.default_rng(3), resamples=9)
    ours, theirs = pair(n, np.random.default_rng(2))
    return Measures(ours, theirs, {}, costs=COSTS, draws=few, noise_rb=NOISE_RB[:9])


RISES = ["accuracy", "auc"]
FALLS = ["log_loss", "brier", "expected_cost", "calibration_error"]


@pytest.mark.parametrize("metric", RISES + FALLS)
def test_a_challenger_worse_by_exactly_the_margin_seldom_passes_and_seldom_fails(
    metric: str, truths: Measures
):
    """Either in 2.5 % at most: at the margin it is neither surely good nor surely bad."""
    lost = truths.difference(metric)
    assert lost is not None
    found = ends(NoWorse(metric=metric, margin=abs(lost.value)), worse)

    assert seldom(found, Outcome.PASS)
    assert seldom(found, Outcome.FAIL)


@pytest.mark.parametrize("metric", RISES + FALLS)
def test_a_challenger_exactly_at_a_limit_seldom_passes_and_seldom_fails(
    metric: str, truths: Measures
):
    """A floor of what is better when greater, a ceiling of what is better when smaller."""
    true = truths.challenger(metric)
    assert true is not None
    kind = AtLeast if metric in RISES else AtMost
    found = ends(kind(metric=metric, value=true.value), worse)

    assert seldom(found, Outcome.PASS)
    assert seldom(found, Outcome.FAIL)


@pytest.mark.parametrize(
    ("metric", "margin"),
    [
        ("accuracy", 0.05), ("auc", 0.03), ("log_loss", 0.03), ("brier", 0.01),
        ("expected_cost", 0.12), ("calibration_error", 0.09),
    ],
)  # fmt: skip
def test_a_challenger_as_good_as_the_champion_passes_a_margin_that_500_rows_can_show(
    metric: str, margin: float
):
    """Four times in five at least."""
    assert share(ends(NoWorse(metric=metric, margin=margin), alike), Outcome.PASS) >= 0.8


@pytest.mark.parametrize("metric", ["accuracy", "brier", "auc"])
def test_of_six_slices_exactly_at_their_limit_any_fails_no_more_often_than_one(
    metric: str, truths: Measures
):
    """And all of them pass together far more seldom than one alone would."""
    true = truths.challenger(metric)
    assert true is not None
    kind = AtLeast if metric in RISES else AtMost
    found = ends(kind(metric=metric, value=true.value, slices=True), worse)

    # All rows are asked too, by themselves: 2.5 % more.
    assert sum(Outcome.FAIL in end for end in found) / RUNS <= 0.05 + 0.025
    assert seldom(found, Outcome.PASS)


def test_a_harmless_challenger_is_not_failed_for_its_many_slices():
    """Nor stopped by them, where each has the rows to show it."""
    found = ends(AtMost(metric="brier", value=0.3, slices=True), alike)

    assert share(found, Outcome.PASS) >= 0.95


def test_a_regret_of_exactly_the_most_seldom_passes_and_seldom_fails():
    """And where the threshold is the best one, it passes."""
    many, _ = pair(400_000, np.random.default_rng(5), shift=-1.0)
    best = operating.best_threshold(many, COSTS, usual=0.2)
    most = float(operating.regret(many, COSTS, best=best).values_n.mean())

    def shifted(rng: np.random.Generator) -> Pair:
        return pair(N, rng, shift=-1.0)

    def fewest(rng: np.random.Generator) -> Scored:
        return pair(operating.ENOUGH_TO_CHOOSE, rng, shift=-1.0)[0]

    found = ends(LeastCost(max_regret=most), shifted, validate=fewest)
    assert seldom(found, Outcome.PASS)
    assert seldom(found, Outcome.FAIL)
    right, _ = pair(20_000, np.random.default_rng(6), off=0.2)
    passed = share(ends(LeastCost(max_regret=0.1), alike, validate=lambda _: right), Outcome.PASS)
    assert passed >= 0.8


@pytest.mark.parametrize("n", FEW)
def test_of_few_rows_a_worse_loss_seldom_passes_either(n: int, truths: Measures):
    """A small slice is no way round the level: a plain bootstrap-t passes 40 rows in 5.3 %."""
    lost = truths.difference("log_loss")
    assert lost is not None
    draws = Draws(n, rng=np.random.default_rng(1), resamples=999)
    found = ends(
        NoWorse(metric="log_loss", margin=lost.value), lambda rng: pair(n, rng), draws=draws,
        runs=FEW_RUNS,
    )  # fmt: skip

    assert seldom(found, Outcome.PASS)
    assert seldom(found, Outcome.FAIL)
