"""Laws of profiles: what they say of drift is what the data say, within a stated error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.bundle import read
from penstock.register.profile import KINDS, POINTS, column, distance, profile
from penstock.stats import drift
from tests import bundles

SHARE_ERROR = 2 / (POINTS - 1)
"""Most that a bin's share may be off by: each of its two edges by less than one point's share."""


def of(values: object, kind: pa.DataType | None = None) -> dict:
    """Return the profile of values, as it reads back from a file."""
    return json.loads(json.dumps(column(pa.chunked_array([pa.array(values, kind)]))))


def drawn(seed: int, n: int, shape: str, shift: float) -> np.ndarray:
    """Return numbers of a distribution, some of them missing."""
    rng = np.random.default_rng(seed)
    made = {
        "normal": lambda: rng.normal(shift, 1 + shift / 3, n),
        "skewed": lambda: rng.lognormal(shift / 2, 0.7, n),
        "tied": lambda: np.maximum(0, rng.normal(shift - 0.5, 1, n).round(1)),
        "two heaps": lambda: np.where(rng.random(n) < 0.5 + shift / 5, 0.0, 9.0) + rng.random(n),
    }[shape]()
    return np.where(rng.random(n) < 0.05, np.nan, made)


def worst(reference_k: np.ndarray, other_k: np.ndarray, error: float) -> float:
    """Return the most that PSI can move when each share of the other is off by an error."""
    r, a = drift.shares(reference_k), drift.shares(other_k)

    def term(share: np.ndarray) -> np.ndarray:
        held = np.maximum(share, drift.EMPTY)
        return (held - r) * np.log(held / r)

    ends = [np.abs(term(np.clip(a + sign * error, 0, 1)) - term(a)) for sign in (-1, 1)]
    # Between the ends lies the least term, where the shares are equal.
    ends.append(np.where(np.abs(a - r) <= error, np.abs(term(a)), 0.0))
    return float(np.max(ends, axis=0).sum())


@settings(max_examples=100, deadline=None)
@given(
    shape=st.sampled_from(["normal", "skewed", "tied", "two heaps"]),
    shift=st.floats(0, 1.5),
    seed=st.integers(0, 10_000),
    sizes=st.tuples(st.integers(400, 3000), st.integers(400, 3000)),
)
@example(shape="tied", shift=0.0, seed=0, sizes=(479, 400))
def test_psi_of_profiles_is_psi_of_the_data_within_the_stated_error(
    shape: str, shift: float, seed: int, sizes: tuple[int, int]
):
    """It differs by no more than shares off by 1/100 make; of smooth columns by 0.01 or a tenth."""
    reference, other = drawn(seed, sizes[0], shape, 0.0), drawn(seed + 1, sizes[1], shape, shift)
    inner = drift.edges(reference[~np.isnan(reference)])
    pair = [drift.counts(values, inner) for values in (reference, other)]
    held = (pair[0] > 0) | (pair[1] > 0)
    exact = drift.psi_distance(pair[0][held], pair[1][held])

    found = distance(of(reference), of(other))

    assert found is not None
    assert abs(found.value - exact.value) <= worst(*pair, SHARE_ERROR) + 0.001
    if shape in ("normal", "skewed"):
        assert found.value == pytest.approx(exact.value, abs=0.01, rel=0.1)


@given(values=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3), n=st.integers(1, 5))
def test_counts_are_exact(values: list[str | None], n: int):
    """Of text, PSI of profiles is PSI of the data, missing values apart."""
    other = [*values, *["b"] * n]
    kinds = [k for k in ("a", "b", "c", None) if k in other]
    pair = [np.array([side.count(k) for k in kinds]) for side in (values, other)]

    found = distance(of(values, pa.string()), of(other, pa.string()))

    assert found is not None
    assert found.value == pytest.approx(drift.psi_distance(*pair).value)


def test_equal_columns_are_at_no_distance():
    """Of any kind."""
    lists = [[1.0], [2.0]]
    for values in ([0.1, 0.7, None, 3.5], ["x", "y", "y"], [1, 2, 2], [True, False], lists):
        found = distance(of(values), of(values))
        assert found is not None
        assert found.value == 0


def test_noise_knows_the_rows():
    """Few rows reach by chance what many do not; values in one list count as one row."""
    rng = np.random.default_rng(7)
    few, many = of(rng.normal(size=50)), of(rng.normal(size=5000))
    lists = of([rng.normal(size=64).tolist() for _ in range(50)])

    noise = [distance(side, side).noise for side in (few, many, lists)]  # pyright: ignore[reportOptionalMemberAccess]

    assert noise[0] > 50 * noise[1]
    assert noise[2] == pytest.approx(noise[0])


def test_many_kinds_are_counted_up_to_a_cap():
    """No profile grows with its data; what is beyond the cap is counted together."""
    names = [f"item {i}" for i in range(200)] + ["item 7"] * 3
    counts = of(names)["counts"]

    assert len(counts) == KINDS + 1
    assert counts["item 7"] == 4
    assert sum(counts.values()) == len(names)
    numbers = of(np.arange(100_000.0))
    assert len(numbers["at"]) <= POINTS + drift.BINS


def test_whole_numbers_that_became_many_are_still_compared():
    """A column of 20 different values is counted, of 21 it has points; both are numbers."""
    few, many = of([i % 20 for i in range(400)]), of([i % 40 for i in range(400)])

    assert "counts" in few
    assert "at" in many
    found, back = distance(few, many), distance(many, few)
    assert found is not None
    assert back is not None
    assert found.value > 0.2
    assert distance(of(["a"]), many) is None


def test_what_is_not_finite_counts_as_missing():
    """An infinite value has no place among quantiles, and the file must be read back."""
    made = of([1.0, float("inf"), float("nan"), None, 2.0])

    assert (made["n"], made["missing"]) == (5, 3)
    assert distance(of([None, None], pa.float64()), made) is not None


def test_a_profile_of_the_real_digits(tmp_path: Path):
    """Each training column but keys and times, the label among them; size and period."""
    made = profile({"snapshot": read(bundles.snapshot(tmp_path / "s"))})

    assert (made["rows"], made["holdout_rows"], made["label"]) == (1197, 600, "label")
    assert set(made["columns"]) == {
        "label", "pixels", "ink_mean", "ink_spread", "centre_row", "centre_column",
    }  # fmt: skip
    assert sum(made["columns"]["label"]["counts"].values()) == 1197
    assert made["columns"]["pixels"]["n"] == 1197 * 64
    first, last = (datetime.fromisoformat(t) for t in made["period"])
    assert first < last <= datetime(2026, 1, 6, tzinfo=UTC)
    assert len(json.dumps(made)) < 40_000
