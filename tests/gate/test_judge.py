"""Laws of the gate: missing or weak evidence is never a pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.gate.judge import Scores, judge, judge_at_least, judge_at_most, judge_no_worse
from penstock.verdict import Outcome
from penstock.workload import AtLeast, AtMost, NoWorse

LABELS = np.tile(np.arange(10), 60)
FLOOR = AtLeast(metric="accuracy", value=0.93)
NO_WORSE = NoWorse(metric="accuracy", margin=0.02)


def scores(wrong: int, *, label: int | None = None) -> Scores:
    """Return scores of 600 rows with so many wrong, of one class if it is given."""
    decided = LABELS.copy()
    where = np.arange(len(LABELS)) if label is None else np.flatnonzero(label == LABELS)
    decided[where[:wrong]] = (decided[where[:wrong]] + 1) % 10
    return Scores(labels_n=LABELS, decided_n=decided)


def no_worse(challenger: Scores, champion: Scores | None) -> Outcome:
    """Return the outcome of the non-inferiority rule."""
    rng = np.random.default_rng(1)
    return judge_no_worse(challenger, champion, NO_WORSE, alpha=0.05, rng=rng).outcome


@pytest.mark.parametrize(
    ("wrong", "outcome"),
    [(10, Outcome.PASS), (40, Outcome.INCONCLUSIVE), (90, Outcome.FAIL)],
)
def test_the_floor_asks_for_the_whole_interval(wrong: int, outcome: Outcome):
    """Surely above passes, surely below fails, between is inconclusive."""
    assert judge_at_least(scores(wrong), FLOOR).outcome is outcome


@pytest.mark.parametrize(
    ("challenger", "champion", "outcome"),
    [
        (10, 10, Outcome.PASS),
        (10, 40, Outcome.PASS),
        (22, 10, Outcome.INCONCLUSIVE),
        (60, 10, Outcome.FAIL),
    ],
)
def test_no_worse_than_the_champion(challenger: int, champion: int, outcome: Outcome):
    """Equal and better pass, clearly worse fails, worse by about the margin is inconclusive."""
    assert no_worse(scores(challenger), scores(champion)) is outcome


def test_the_first_model_has_no_champion_and_says_so():
    """Without a champion the rule passes with that as its reason."""
    check = judge_no_worse(scores(10), None, NO_WORSE, alpha=0.05, rng=np.random.default_rng(1))

    assert check.outcome is Outcome.PASS
    assert "no champion" in check.reason


def test_one_class_made_worse_fails_whatever_the_rest():
    """Half of one class lost is 5 % overall, and its slice fails."""
    rules = (NoWorse(metric="accuracy", margin=0.15, slices=True),)

    verdict = judge(
        rules, scores(30, label=4), scores(0), budget={}, classes=10, rng=np.random.default_rng(1)
    )

    failed = [c.name for c in verdict.checks if c.outcome is Outcome.FAIL]
    assert failed == ["accuracy of class 4 no worse"]


def test_no_examples_are_an_error():
    """An empty holdout is no evidence."""
    empty = Scores(labels_n=np.array([], int), decided_n=np.array([], int))

    assert judge_at_least(empty, FLOOR).outcome is Outcome.ERROR
    assert no_worse(empty, empty) is Outcome.ERROR


def test_other_labels_cannot_be_compared():
    """A champion scored on another holdout is refused."""
    other = Scores(labels_n=LABELS[::-1].copy(), decided_n=LABELS)

    with pytest.raises(ValueError, match="same holdout revision"):
        judge((NO_WORSE,), scores(1), other, budget={}, classes=10, rng=np.random.default_rng(1))


@settings(max_examples=30)
@given(st.integers(0, 100), st.integers(0, 100))
def test_a_better_challenger_is_never_judged_worse(wrong: int, fewer: int):
    """Making fewer mistakes on the same rows never turns a pass into something else."""
    champion, more = scores(50), max(wrong, fewer)
    order = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)

    worse, better = no_worse(scores(more), champion), no_worse(scores(min(wrong, fewer)), champion)

    assert order.index(better) >= order.index(worse)


def test_a_challenger_worse_by_the_margin_passes_at_most_one_time_in_twenty():
    """By simulation: a true loss equal to the margin rarely passes."""
    rng, passed, runs, n = np.random.default_rng(5), 0, 300, 600
    for _ in range(runs):
        right = rng.random(n) < 0.97
        lost = right & (rng.random(n) < NO_WORSE.margin / 0.97)
        champion = Scores(labels_n=np.zeros(n, int), decided_n=(~right).astype(int))
        challenger = Scores(labels_n=np.zeros(n, int), decided_n=(~right | lost).astype(int))
        check = judge_no_worse(challenger, champion, NO_WORSE, alpha=0.05, rng=rng)
        passed += check.outcome is Outcome.PASS

    assert passed / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(
    ("budget", "outcome"),
    [
        ({"latency_p99_ms": 9.9}, Outcome.PASS),
        ({"latency_p99_ms": 10.0}, Outcome.PASS),
        ({"latency_p99_ms": 10.1}, Outcome.FAIL),
        ({"latency_p99_ms": float("nan")}, Outcome.ERROR),
        ({"latency_p99_ms": None}, Outcome.ERROR),
        ({"latency_p50_ms": 1.0}, Outcome.ERROR),
        ({"problem": "measuring ended with 1"}, Outcome.ERROR),
        ({}, Outcome.ERROR),
    ],
)
def test_a_budget_is_kept_exceeded_or_unknown(budget: dict[str, object], outcome: Outcome):
    """What was not measured is an error, never a pass."""
    rule = AtMost(metric="latency_p99_ms", value=10.0)
    rng = np.random.default_rng(1)

    assert judge_at_most(budget, rule).outcome is outcome
    judged = judge((rule,), scores(0), None, budget=budget, classes=10, rng=rng)
    assert judged.outcome is outcome
