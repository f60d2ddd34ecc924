"""Laws of the ladder: equal outputs pass, a broken slice fails however good the whole is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.equivalence.ladder import ALL, compare, judge, worst
from penstock.verdict import Outcome, Verdict
from penstock.workload import Rung

RUNG = Rung(
    min_agreement=0.98,
    min_snr_db=20.0,
    max_accuracy_drop=0.02,
    min_slice_agreement=0.9,
    max_slice_accuracy_drop=0.1,
)
CLASSES, EACH = 10, 100
LABELS = np.repeat(np.arange(CLASSES), EACH)


def right() -> np.ndarray:
    """Return logits that decide every label rightly."""
    return np.eye(CLASSES)[LABELS] * 10.0


def verdict(before: np.ndarray, after: np.ndarray, *, support: int = 30) -> Verdict:
    """Return the verdict of one step."""
    found = compare(before, after, LABELS, classes=CLASSES)
    return Verdict(tuple(judge("int8", found, RUNG, min_support=support)))


def test_equal_outputs_pass_every_check():
    """A step that changes nothing passes, overall and on each slice."""
    assert verdict(right(), right()).outcome is Outcome.PASS


def test_one_broken_slice_fails_a_ladder_that_looks_fine_overall():
    """Fifteen wrong of one class are 1.5 % of all and 15 % of their slice: the slice decides."""
    after = right()
    after[:15] = np.roll(after[:15], 1, axis=1)

    found = verdict(right(), after)

    failed = [c.name for c in found.checks if c.outcome is Outcome.FAIL]
    assert "int8 class 0 agreement" in failed
    assert not any(name.startswith(f"int8 {ALL} ") for name in failed)


def test_decisions_that_hold_with_noisy_outputs_fail_on_the_signal():
    """Accuracy alone cannot vouch for a step whose outputs drown in noise."""
    noisy = right() + np.random.default_rng(1).normal(0, 1.2, (len(LABELS), CLASSES))
    noisy[np.arange(len(LABELS)), LABELS] += 20

    found = verdict(right(), noisy)

    assert [c.name for c in found.checks if c.outcome is Outcome.FAIL] == [
        "int8 signal to noise (dB)"
    ]


def test_a_slice_too_small_to_judge_is_inconclusive():
    """Few rows are no evidence, and not green."""
    assert verdict(right(), right(), support=EACH + 1).outcome is Outcome.INCONCLUSIVE


@given(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 999))
def test_one_output_that_is_not_finite_fails(value: float, row: int):
    """A single NaN or infinity anywhere fails the step."""
    after = right()
    after[row, 0] = value

    assert verdict(right(), after).outcome is Outcome.FAIL


def test_outputs_of_other_rows_are_refused():
    """Outputs that cannot be paired with the labels are a mistake, not a number."""
    with pytest.raises(ValueError, match="same, non-empty holdout"):
        compare(right(), right()[:-1], LABELS, classes=CLASSES)


@given(st.integers(0, 999), st.integers(0, 30))
def test_the_worst_inputs_are_those_decided_otherwise_and_then_the_largest_errors(
    row: int, most: int
):
    """However small the error of a changed decision and however large that of a kept one."""
    before, after = right(), right()
    before[row, 0] += 10.001 - before[row, 0] if LABELS[row] else 0.0
    after[:5] *= 3

    found = worst(before, after, most=most)

    assert len(found) == most
    flipped = LABELS[row] != 0 and row >= 5
    if most and flipped:
        assert found[0][:3] == (row, 0, LABELS[row])
    kept = [f for f in found if f[1] == f[2]]
    assert [f[3] for f in kept] == sorted((f[3] for f in kept), reverse=True)


def test_an_output_that_is_not_finite_is_among_the_worst():
    """And does not hide behind not being a number."""
    after = right()
    after[77, 3] = np.nan

    assert 77 in [f[0] for f in worst(right(), after, most=1)]
