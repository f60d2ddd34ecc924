"""Laws of what predictions, their log and their monitoring cost."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.cost import (
    Prices,
    answers_per_hour,
    bytes_per_s,
    kept_share,
    monitoring,
    stored_per_thousand,
)
from penstock.stats.utilisation import cost_per_thousand

PRICES = Prices(ingest_million=0.30, gb=1.0, query=0.02)
positive = st.floats(1e-3, 1e6)
share = st.floats(0, 1)


def test_a_month_of_three_variants_costs_261_dollars():
    """Fifty metrics of each every 15 s, looked at on two dashboards by three people."""
    queries = 2 * 3 * 12 * 8 * 22

    bill = monitoring(series=3 * 50, every_s=15, days=30, queries=queries, prices=PRICES)

    assert bill.points == 25_920_000
    assert bill.queries == 12_672
    assert [round(part, 2) for part in (bill.ingest, bill.storage, bill.asking)] == [
        7.78, 0.21, 253.44,
    ]  # fmt: skip
    assert round(bill.total, 2) == 261.42


def test_a_gigabyte_a_second_told_once_a_minute_is_a_sixtieth():
    every_second = bytes_per_s(1e6, bytes_each=1000)

    assert every_second == 1e9
    assert bytes_per_s(1e6, bytes_each=1000, every_s=60) == pytest.approx(16.7e6, rel=0.01)


def test_a_sampled_log_keeps_every_error_and_a_hundredth_of_the_rest():
    assert kept_share(0.0) == 0.01
    assert kept_share(1.0) == 1.0
    assert kept_share(0.002) == pytest.approx(0.01 * 0.998 + 0.002)


def test_three_dollars_for_fifty_thousand_answers_are_six_cents_a_thousand():
    assert cost_per_thousand(3.0, 50_000) == pytest.approx(0.06)


@given(cpu_us=positive, cores=positive, busy=st.floats(0.01, 1))
def test_answers_take_the_time_that_there_is(cpu_us: float, cores: float, busy: float):
    """All answers of an hour take together what the cores may work in it."""
    per_hour = answers_per_hour(cpu_us, cores=cores, busy=busy)

    assert math.isclose(per_hour * cpu_us, cores * busy * 3600e6)


@given(bytes_each=positive, days=positive, price=positive, times=st.floats(1, 100))
def test_what_is_stored_longer_costs_as_much_more(
    bytes_each: float, days: float, price: float, times: float
):
    once = stored_per_thousand(bytes_each, kept_days=days, gb_month=price)
    longer = stored_per_thousand(bytes_each, kept_days=days * times, gb_month=price)

    assert longer == pytest.approx(once * times, rel=1e-6, abs=1e-12)


@given(errors=share, of_successes=share)
def test_a_sample_keeps_no_less_than_its_errors_and_no_more_than_all(
    errors: float, of_successes: float
):
    kept = kept_share(errors, of_successes=of_successes)

    assert errors - 1e-12 <= kept <= 1 + 1e-12


@given(series=st.integers(0, 10_000), every_s=st.floats(0.1, 3600), days=positive)
def test_twice_as_often_is_twice_the_points(series: int, every_s: float, days: float):
    slow, fast = (
        monitoring(series=series, every_s=s, days=days, queries=5, prices=PRICES)
        for s in (every_s, every_s / 2)
    )

    assert fast.points == pytest.approx(2 * slow.points)
    assert fast.total - fast.asking == pytest.approx(2 * (slow.total - slow.asking))
    assert fast.asking == slow.asking


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: answers_per_hour(0), "more than 0 of each"),
        (lambda: answers_per_hour(1, busy=1.1), "a share of at most 1"),
        (lambda: stored_per_thousand(-1, kept_days=1, gb_month=1), "bytes -1"),
        (lambda: kept_share(1.5), "1.5 is no share"),
        (lambda: bytes_per_s(1, bytes_each=1, every_s=0), "every 0 s"),
        (
            lambda: monitoring(series=1, every_s=0, days=1, queries=1, prices=PRICES),
            "a point every 0 s",
        ),
        (lambda: Prices(ingest_million=-1, gb=1, query=1), "ingest -1"),
        (lambda: bytes_per_s(math.nan, bytes_each=1), "events nan"),
    ],
)
def test_what_cannot_be_is_refused(wrong: Callable[[], object], said: str):
    with pytest.raises(ValueError, match=said):
        wrong()
