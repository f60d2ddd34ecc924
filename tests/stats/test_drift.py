"""Laws of the drift statistics: known values, and no alarm from noise."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats import drift

TRAIN = np.array([0.15, 0.25, 0.20, 0.18, 0.12, 0.10])
SERVE = np.array([0.12, 0.22, 0.18, 0.20, 0.15, 0.13])


def test_the_textbook_table():
    """PSI with its contributions, Jensen-Shannon in nats and bits and as a distance."""
    contributions = (SERVE - TRAIN) * np.log(SERVE / TRAIN)

    assert np.round(contributions, 4).tolist() == [0.0067, 0.0038, 0.0021, 0.0021, 0.0067, 0.0079]
    assert np.round(np.log(SERVE / TRAIN), 3).tolist() == [
        -0.223, -0.128, -0.105, 0.105, 0.223, 0.262,
    ]  # fmt: skip
    assert drift.psi(TRAIN, SERVE) == pytest.approx(0.029309, abs=5e-7)
    nats = drift.js_divergence(TRAIN, SERVE)
    assert nats == pytest.approx(0.003657, abs=5e-7)
    assert nats / math.log(2) == pytest.approx(0.005276, abs=5e-7)
    counts = [np.round(shares * 100_000).astype(int) for shares in (TRAIN, SERVE)]
    assert drift.js_distance(*counts).value == pytest.approx(0.060471, abs=5e-7)
    assert drift.psi_distance(*counts).value == pytest.approx(0.029309, abs=5e-7)
    assert np.abs(np.cumsum(TRAIN) - np.cumsum(SERVE)).max() == pytest.approx(0.08)


def test_the_noise_of_ks_is_the_known_critical_value():
    """About 370 rows on each side are the least for a threshold of 0.1."""
    rng = np.random.default_rng(1)
    at = {n: drift.ks_distance(rng.random(n), rng.random(n)).noise for n in (100, 370)}

    assert at[370] == pytest.approx(0.0998, abs=1e-4)
    assert at[100] == pytest.approx(0.192, abs=1e-3)


counts = st.lists(st.integers(0, 50), min_size=2, max_size=8)


@given(st.integers(2, 8).flatmap(lambda k: st.tuples(*[st.lists(st.integers(0, 50), min_size=k,
                                                                max_size=k)] * 2)))  # fmt: skip
def test_distances_are_symmetric_finite_and_nothing_of_itself(pair: tuple[list[int], list[int]]):
    """Empty bins included; only the PSI of equal shares is zero."""
    one, other = (np.array(c) + (0 if sum(c) else 1) for c in pair)
    for measure in (drift.psi_distance, drift.js_distance):
        there, back, same = measure(one, other), measure(other, one), measure(one, one)
        assert math.isfinite(there.value)
        assert there.value == pytest.approx(back.value, abs=1e-9)
        assert same.value == pytest.approx(0, abs=1e-6)
        assert 0 <= there.p <= 1
    assert drift.js_distance(one, other).value <= math.sqrt(math.log(2)) + 1e-9


@pytest.mark.parametrize("n", [150, 2_000])
def test_noise_is_what_chance_exceeds_once_in_twenty(n: int):
    """Without drift each measure exceeds its own noise in about five per cent of all tries."""
    rng = np.random.default_rng(7)
    above = np.zeros(3)
    tries = 400
    for _ in range(tries):
        one, other = rng.normal(size=n), rng.normal(size=n)
        inner = np.linspace(-1.3, 1.3, 9)
        binned = [drift.counts(v, inner)[:-1] for v in (one, other)]
        found = (drift.psi_distance(*binned), drift.js_distance(*binned),
                 drift.ks_distance(one, other))  # fmt: skip
        above += [d.value > d.noise for d in found]

    # Binomial of 400 tries at 5 %: between 2 and 9 % but once in ten thousand.
    assert (above / tries > 0.015).all()
    assert (above / tries < 0.095).all()


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.2))
def test_more_tests_stand_at_a_higher_rate_and_the_smallest_first(p: list[float], rate: float):
    """Whoever stands has no smaller p beside it that does not."""
    standing = drift.significant(p, rate=rate)

    assert len(standing) == len(p)
    kept = [v for v, s in zip(p, standing, strict=True) if s]
    assert all(v > max(kept) for v, s in zip(p, standing, strict=True) if not s) if kept else True
    assert sum(standing) <= sum(drift.significant(p, rate=rate * 2))


def test_missing_values_are_a_bin_of_their_own():
    """A column that stops coming has moved."""
    values = np.array([0.1, 0.9, np.nan, np.nan])

    assert drift.counts(values, np.array([0.5])).tolist() == [1, 1, 2]


def test_m4_how_long_a_thousand_labels_take():
    """At one a second, and at a hundred a day."""
    assert drift.collecting(1_000, each=timedelta(seconds=1)) == timedelta(seconds=1_000)
    assert (
        round(drift.collecting(1_000, each=timedelta(seconds=1)) / timedelta(minutes=1), 1) == 16.7
    )
    assert drift.collecting(1_000, each=timedelta(days=1) / 100) == timedelta(days=10)
