"""The checklist's numbers of when training pays (R5 to R7, R12), and the laws behind them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.economics import Decay, silent_failure

EXAMPLE = Decay(queries_a_day=1e6, value=0.5, accuracy=0.95, rate=0.02)
COST = 5_000

decays = st.builds(
    Decay,
    queries_a_day=st.floats(1e3, 1e8),
    value=st.floats(1e-3, 10),
    accuracy=st.floats(0.5, 0.99),
    rate=st.floats(1e-4, 0.2),
)


def test_the_rule_gives_a_day():
    assert EXAMPLE.best_interval(training=COST) == pytest.approx(1.02598, abs=5e-6)
    assert round(EXAMPLE.best_interval(training=COST)) == 1


@pytest.mark.parametrize(("days", "lost"), [(1, 4_718.49), (7, 222_258.09)])
def test_staleness_on_the_exact_curve(days: float, lost: float):
    assert EXAMPLE.staleness(days) == pytest.approx(lost, abs=0.005)


@pytest.mark.parametrize(("days", "cost"), [(1, 9_718.49), (7, 32_465.44), (30, 117_975.88)])
def test_cost_a_day_on_the_exact_curve(days: float, cost: float):
    assert EXAMPLE.cost_a_day(days, training=COST) == pytest.approx(cost, abs=0.005)


def test_the_least_of_the_exact_curve():
    days = EXAMPLE.exact_interval(training=COST)

    assert days == pytest.approx(1.03306, abs=5e-6)
    assert EXAMPLE.cost_a_day(days or 0, training=COST) == pytest.approx(9_713.40, abs=0.005)
    assert EXAMPLE.half_life == pytest.approx(34.657, abs=5e-4)


@given(decays, st.floats(1, 1e6))
def test_four_times_is_twice(decay: Decay, cost: float):
    """Cost lengthens; volume and decay shorten; both together by four."""
    once = decay.best_interval(training=cost)
    more = {**vars(decay), "queries_a_day": 4 * decay.queries_a_day}
    faster = {**vars(decay), "rate": 4 * decay.rate}

    assert decay.best_interval(training=4 * cost) == pytest.approx(2 * once)
    assert Decay(**more).best_interval(training=cost) == pytest.approx(once / 2)
    assert Decay(**faster).best_interval(training=cost) == pytest.approx(once / 2)
    both = Decay(**{**more, "rate": 4 * decay.rate})
    assert both.best_interval(training=cost) == pytest.approx(once / 4)


@given(decays, st.floats(1, 1e6), st.floats(0.2, 5))
def test_no_other_interval_is_cheaper(decay: Decay, cost: float, factor: float):
    """The exact interval is the least of its curve; where there is none, longer is ever cheaper."""
    best = decay.exact_interval(training=cost)
    if best is None:
        least = decay.worth_a_day / decay.rate
        assert cost >= least
        return

    at = decay.cost_a_day(best, training=cost)
    assert at <= decay.cost_a_day(best * factor, training=cost) * (1 + 1e-9)


def test_a_training_that_nothing_earns_back_is_never_due():
    all_that_decay_can_take = EXAMPLE.worth_a_day / EXAMPLE.rate

    assert EXAMPLE.exact_interval(training=all_that_decay_can_take) is None
    assert EXAMPLE.exact_interval(training=0.9 * all_that_decay_can_take) is not None


def test_a_failure_that_nobody_sees():
    """R12: 28 days against one of a twentieth of fifty millions a year, four times a year."""
    late, soon = (silent_failure(50e6, share=0.05, days=days) for days in (28, 1))

    assert late == pytest.approx(191_780.8, abs=0.05)
    assert soon == pytest.approx(6_849.3, abs=0.05)
    assert late - soon == pytest.approx(184_931.5, abs=0.05)
    assert 4 * (late - soon) == pytest.approx(739_726, abs=0.5)
