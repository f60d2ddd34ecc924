"""Laws of ranges: what was observed, how each calibrator cuts it, and that order is no matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from penstock.quantize import ranges
from penstock.workload import Calibrator
from tests.quantize import graphs

HEAVY = np.random.default_rng(2).standard_t(2, 20_000).astype(np.float32)
COUNTS = st.lists(st.integers(0, 50), min_size=6, max_size=24)


def observed(values: np.ndarray) -> ranges.Observed:
    """Return what one activation of these values is seen as, by the graph that passes them on."""
    network = graphs.model([helper.make_node("Abs", ["x"], ["y"], "abs")], {}, given=["n"],
                           made=["n"])  # fmt: skip
    return ranges.observe(network, ["x"], values)["x"]


def divergence(counts: list[int], kept: int, levels: int) -> float:
    """Return Kullback and Leibler's divergence, straight from its definition."""
    total, inside = sum(counts), sum(counts[:kept])
    if not inside:
        return math.inf
    clipped = counts[:kept]
    clipped[-1] += total - inside
    found = 0.0
    for level in range(levels):
        bins = range(kept * level // levels, kept * (level + 1) // levels)
        filled = [b for b in bins if clipped[b]]
        for b in filled:
            height = sum(counts[i] for i in bins) / len(filled) / inside
            found += (
                math.inf
                if not height
                else clipped[b] / total * math.log(clipped[b] / total / height)
            )
    return found


@given(counts=COUNTS, levels=st.integers(2, 6))
def test_entropy_keeps_the_bins_of_the_least_divergence(counts: list[int], levels: int):
    """No other number of bins has less, by the definition, one candidate at a time."""
    kept = ranges.least_divergent(np.array(counts), levels=levels)

    tried = {c: divergence(counts, c, levels) for c in range(levels, len(counts) + 1)}
    if sum(counts):
        assert tried[kept] <= min(tried.values()) + 1e-9
    assert levels <= kept <= len(counts)


def test_entropy_cuts_a_heavy_tail_that_minmax_keeps():
    """The search does search: a few far values do not stretch the range of all the others."""
    seen = observed(HEAVY)

    cut = ranges.threshold(seen, Calibrator.ENTROPY, percentile=99.99)

    assert cut < 0.5 * ranges.threshold(seen, Calibrator.MINMAX, percentile=99.99)
    assert ranges.saturated(seen, cut) < 0.01


def test_zeros_do_not_move_the_entropy_range():
    """A closed rectifier says nothing about the values of an open one."""
    seen, more = observed(HEAVY), observed(np.concatenate([HEAVY, np.zeros(500_000, np.float32)]))

    assert more.zeros == 500_000
    assert ranges.threshold(more, Calibrator.ENTROPY, percentile=99.9) == ranges.threshold(
        seen, Calibrator.ENTROPY, percentile=99.9
    )


@given(percentile=st.floats(50, 100), seed=st.integers(0, 9))
def test_percentile_keeps_its_share_in_range_and_no_bin_more(percentile: float, seed: int):
    """The share beyond the range is at most what was asked; one bin less would be too few."""
    seen = observed(np.random.default_rng(seed).normal(0, 1, 3000).astype(np.float32))

    cut = ranges.threshold(seen, Calibrator.PERCENTILE, percentile=percentile)

    beyond = 1 - percentile / 100
    assert ranges.saturated(seen, cut) <= beyond + 1e-12
    one_less = cut - seen.amax / ranges.BINS
    assert one_less <= 0 or ranges.saturated(seen, one_less) > beyond - 1e-12


@pytest.mark.parametrize("method", list(Calibrator))
def test_the_saturated_share_is_that_of_the_values(method: Calibrator):
    """Counted from the histogram, it is what the values themselves say."""
    seen = observed(HEAVY)
    cut = ranges.threshold(seen, method, percentile=99.0)

    assert ranges.saturated(seen, cut) == pytest.approx((np.abs(HEAVY) > cut).mean(), abs=1e-12)


def test_minmax_saturates_nothing_and_wastes_next_to_nothing():
    """Its range holds the largest value, rounded up in the twelfth bit."""
    cut = ranges.threshold(observed(HEAVY), Calibrator.MINMAX, percentile=99.0)

    assert 0 <= cut - np.abs(HEAVY).max() <= cut * 2**-11


@given(value=st.floats(1e-30, 1e30))
def test_rounding_up_forgets_the_last_bits(value: float):
    """What differs in the last bits of a float32 is the same afterwards, but at a step."""
    once = ranges.round_up(value)

    assert value <= once <= value * (1 + 2**-11)
    assert ranges.round_up(once) == once


@pytest.mark.parametrize("method", list(Calibrator))
def test_noise_in_the_last_bit_does_not_move_a_range(method: Calibrator):
    """As another order of summing has it."""
    other = np.nextafter(HEAVY, np.float32(np.inf) * np.sign(HEAVY))

    cuts = [ranges.threshold(observed(v), method, percentile=99.9) for v in (HEAVY, other)]

    assert cuts[0] == cuts[1]


@pytest.mark.parametrize("method", list(Calibrator))
def test_an_activation_that_is_always_zero_has_range_zero(method: Calibrator):
    """Nothing is divided by its range."""
    seen = observed(np.zeros(100, np.float32))

    assert ranges.threshold(seen, method, percentile=99.9) == 0
    assert ranges.saturated(seen, 0.0) == 0


def test_memory_of_rows_is_a_batch_and_order_is_no_matter(monkeypatch: pytest.MonkeyPatch):
    """Shuffled rows in batches of another size give the same ranges, to the bit."""
    of = graphs.tabular()
    names = ["x", "r1", "r2"]
    found = ranges.observe(of.network, names, of.inputs_n)
    monkeypatch.setattr("penstock.quantize.running.BATCH", 7)
    shuffled = np.random.default_rng(1).permutation(of.inputs_n)

    again = ranges.observe(of.network, names, shuffled)

    for name in names:
        for method in Calibrator:
            assert ranges.threshold(found[name], method, percentile=99.9) == ranges.threshold(
                again[name], method, percentile=99.9
            )


def test_what_is_not_finite_has_no_range():
    """An overflow is named, with the activation where it is."""
    with pytest.raises(ValueError, match="'x' is not finite"):
        observed(np.array([1.0, np.inf], np.float32))


def test_no_rows_give_no_range():
    with pytest.raises(ValueError, match="no calibration rows"):
        observed(np.zeros(0, np.float32))
