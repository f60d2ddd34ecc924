"""Laws of the calibration error's interval: chance is no error, and no error is hidden by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stats.calibration import binned, expected_error, reliability
from penstock.stats.miscalibration import calibration_error, difference, noise

NOISE_RB = noise(rng=np.random.default_rng(1))
RUNS = 200
MOST = 0.025 + 3 * np.sqrt(0.025 * 0.975 / RUNS)

Shape = Callable[[np.random.Generator, int], np.ndarray]
Happens = Callable[[np.ndarray, float], np.ndarray]


def usual(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return probabilities of something that happens in a quarter."""
    return rng.beta(2, 6, n)


def sure(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return probabilities of a class that is nearly always right."""
    return 1 - rng.beta(0.3, 6, n)


def off(p: np.ndarray, by: float) -> np.ndarray:
    """Return what truly happens, so much nearer the middle in every bin."""
    return np.clip(p + np.where(p > 0.5, -by, by), 0, 1)


def concentrated(p: np.ndarray, by: float) -> np.ndarray:
    """Return what truly happens, wrong in the greatest tenth alone."""
    return np.clip(np.where(p > np.quantile(p, 0.9), p - 10 * by, p), 0, 1)


def true_error(
    shape: Shape, happens: Callable[[np.ndarray, float], np.ndarray], by: float
) -> float:
    """Return the error of very many rows, whose chance is too small to matter."""
    p = shape(np.random.default_rng(2), 200_000)
    truth = happens(p, by)
    return float(np.mean([abs((truth - p)[part].mean()) for part in binned(p, 10)]))


@pytest.mark.parametrize("shape", [usual, sure])
@pytest.mark.parametrize("happens", [off, concentrated])
@pytest.mark.parametrize(("n", "by"), [(400, 0.05), (1500, 0.03)])
def test_an_error_of_exactly_the_limit_is_seldom_let_through_or_called_too_great(
    shape: Shape, happens: Happens, n: int, by: float
):
    """Either in 2.5 % at most, wherever the error is."""
    rng, limit, wrong = np.random.default_rng(4), true_error(shape, happens, by), np.zeros(2)
    for _ in range(RUNS):
        p = shape(rng, n)
        found = calibration_error(p, rng.random(n) < happens(p, by), NOISE_RB)
        assert found is not None
        wrong += found.low > limit, found.high < limit

    assert (wrong / RUNS <= MOST).all()


@pytest.mark.parametrize(("n", "limit"), [(1500, 0.05), (6000, 0.03)])
def test_perfect_calibration_passes_a_realistic_limit(n: int, limit: float):
    """Nine times in ten at least."""
    rng, passed = np.random.default_rng(5), 0
    for _ in range(60):
        p = usual(rng, n)
        happened = rng.random(n) < p
        found = calibration_error(p, happened, NOISE_RB)
        assert found is not None
        passed += found.high <= limit

    assert passed / 60 >= 0.9


def test_a_great_error_is_seen():
    """Predictions a tenth too small fail a limit of 0.03."""
    rng = np.random.default_rng(6)
    p = usual(rng, 3000)
    found = calibration_error(p, rng.random(3000) < off(p, 0.1), NOISE_RB)

    assert found is not None
    assert found.low > 0.03


def test_the_lower_bound_takes_off_what_chance_adds_in_one_run_of_forty():
    """Ten bins of a hundred rows at a half, all of which happened: half-normal gaps, averaged."""
    found = calibration_error(np.linspace(0.4999, 0.5001, 1000), np.ones(1000, bool), NOISE_RB)
    gaps_rb = np.abs(np.random.default_rng(8).standard_normal((100_000, 10)))
    added = np.quantile(0.5 / np.sqrt(100) * gaps_rb.mean(axis=1), 0.975)

    assert found is not None
    assert found.low == pytest.approx(0.5 - added, abs=0.03 * added)


def test_of_a_model_that_is_always_right_and_sure_something_stays_open():
    """All that happened was predicted; the true rate may still be lower by about 3.8 / n."""
    found = calibration_error(np.ones(200), np.ones(200, bool), NOISE_RB)

    assert found is not None
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1.96**2 / (200 + 1.96**2), rel=0.1)


@given(st.integers(1, 300), st.integers(0, 99), st.floats(0.001, 0.2))
def test_the_interval_holds_the_estimate_that_reports_show(n: int, seed: int, alpha: float):
    """And is wider at a stricter level; of no row there is none."""
    rng = np.random.default_rng(seed)
    p, happened = rng.random(n), rng.random(n) < 0.4
    found = calibration_error(p, happened, NOISE_RB)

    assert found is not None
    assert found.value == pytest.approx(expected_error(reliability(p, happened)))
    (low, high), (lower, higher) = found.at(alpha), found.at(alpha / 3)
    assert 0 <= lower <= low <= found.value <= high <= higher + 1e-4
    assert calibration_error(p[:0], happened[:0], NOISE_RB) is None


def test_one_error_is_less_than_another_by_no_more_than_either_allows():
    """The difference takes a bound of each, so that equal models have one around zero."""
    rng = np.random.default_rng(7)
    p = usual(rng, 2000)
    found = calibration_error(p, rng.random(2000) < p, NOISE_RB)

    assert found is not None
    less = difference(found, found)
    assert less.value == 0
    assert -less.low == less.high == pytest.approx(found.at(0.025)[1] - found.at(0.025)[0])
