"""Laws of behavioural tests: rows that do not behave are found, and no evidence is never a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import workload as workloads
from penstock.gate.behaviour import Found, judge_behaviours, judge_share
from penstock.gate.tried import changed
from penstock.verdict import Outcome
from penstock.workload import Behaviour, Direction, Invariance, MinimumFunctionality
from tests import bundles
from workloads.digits import behaviour as digits

DIGITS = workloads.load("digits")
SAME = Invariance(name="same", change="change", share=0.9)
RISES = Direction(name="rises", change="change", rises=True, share=0.9)
CASES = MinimumFunctionality(name="cases", cases="change")


def rows(n: int = 100) -> pa.Table:
    """Return rows of one number, 0 to 1, with the label that a half divides."""
    x = np.linspace(0, 1, n)
    return pa.table({"x": x, "label": (x >= 0.5).astype(np.int64), "note": ["a"] * n})


def answer(table: pa.Table) -> np.ndarray:
    """Return logits whose probability of class 1 is the row's number."""
    x = np.clip(table["x"].to_numpy(), 1e-6, 1 - 1e-6)
    return np.stack([np.zeros(len(x)), np.log(x / (1 - x))], axis=1)


def moved(by: float, *, first: int | None = None) -> Callable[[pa.Table], pa.Table]:
    """Return a change that adds to the number of the first rows, or of all."""

    def change(table: pa.Table) -> pa.Table:
        x = table["x"].to_numpy().copy()
        x[:first] += by
        return table.set_column(0, "x", pa.array(x))

    return change


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch):
    """Return a judge of one behaviour with the function that it names."""

    def judge(behaviour: Behaviour, change: object, table: pa.Table | None = None) -> Found:
        monkeypatch.setattr(digits, "change", change, raising=False)
        declared = replace(DIGITS, behaviours=(behaviour,), classes=2, threshold=0.5, gate=TWO)
        (found,) = judge_behaviours(declared, rows() if table is None else table, answer)
        return found

    return judge


TWO = tuple(rule for rule in DIGITS.gate if not getattr(rule, "slices", False))


def test_rows_that_change_their_decision_are_counted(judged):
    """Five of a hundred cross a half; one that stays on its side behaves."""
    found = judged(SAME, moved(0.0501))

    assert (found.n, found.share) == (100, 0.95)
    assert [e["behaved"] for e in found.examples] == [False] * 5
    assert {e["row"] for e in found.examples} == {45, 46, 47, 48, 49}


def test_a_probability_may_be_asked_to_stay_too(judged):
    """All decisions hold, and all probabilities move too far."""
    still = replace(SAME, max_probability_change=0.001)
    ends = pa.concat_tables([rows(400).slice(0, 100), rows(400).slice(300, 100)])

    assert judged(SAME, moved(0.002), ends).outcome is Outcome.PASS
    assert judged(still, moved(0.002), ends).outcome is Outcome.FAIL


@pytest.mark.parametrize(
    ("by", "rises", "tolerance", "outcome"),
    [
        (0.01, True, 0.0, Outcome.PASS),
        (0.01, False, 0.0, Outcome.FAIL),
        (-0.01, True, 0.0, Outcome.FAIL),
        (-0.01, False, 0.0, Outcome.PASS),
        (-0.01, True, 0.02, Outcome.FAIL),
    ],
)
def test_a_direction_is_of_the_probability_of_class_1(judged, by, rises, tolerance, outcome):
    """The other way fails, and so does a move of all rows that is tolerated of each."""
    asked = replace(RISES, rises=rises, tolerance=tolerance)

    assert judged(asked, moved(by), rows(1000).slice(100, 800)).outcome is outcome


@pytest.mark.parametrize(("tolerance", "outcome"), [(0.02, Outcome.PASS), (0.0, Outcome.FAIL)])
def test_what_is_tolerated_of_a_row_is_made_up_for_by_the_others(judged, tolerance, outcome):
    """A quarter of the rows moves a little the other way, and the mean moves as it should."""

    def change(table: pa.Table) -> pa.Table:
        return moved(0.05)(moved(-0.06, first=200)(table))

    asked = replace(RISES, tolerance=tolerance)
    assert judged(asked, change, rows(1000).slice(100, 800)).outcome is outcome


@pytest.mark.parametrize("rises", [True, False])
@pytest.mark.parametrize("tolerance", [0.0, 0.01])
def test_a_model_that_ignores_what_was_changed_does_not_behave(judged, rises, tolerance):
    """No row of it moves the wrong way, and the mean that must move tells it."""
    asked = replace(RISES, rises=rises, tolerance=tolerance)
    found = judged(asked, lambda t: t.set_column(2, "note", pa.array(["b"] * len(t))))

    assert (found.share, found.outcome) == (1.0, Outcome.FAIL)
    assert "by 0.0000 on average, at least 0.001: the model hardly looks" in found.reason


@pytest.mark.parametrize(("by", "outcome"), [(0.019, Outcome.FAIL), (0.021, Outcome.PASS)])
def test_the_mean_must_move_as_far_as_is_asked(judged, by, outcome):
    """Whoever moves all rows the right way by too little hardly looks; so is the reverse."""
    table = rows(1000).slice(100, 800)
    for rises, sign in ((True, 1), (False, -1)):
        asked = replace(RISES, rises=rises, least_mean=0.02)

        assert judged(asked, moved(sign * by), table).outcome is outcome
        assert f"by {by:.4f} on average" in judged(asked, moved(sign * by), table).reason


def test_plain_cases_are_held_against_their_label(judged):
    """One wrong case of a handful fails where all are asked; a handful of right ones passes."""
    plain = rows(10)
    one_wrong = plain.set_column(1, "label", pa.array([1, *plain["label"].to_pylist()[1:]]))

    assert judged(CASES, lambda _: plain).outcome is Outcome.PASS
    found = judged(CASES, lambda _: one_wrong)
    assert found.outcome is Outcome.FAIL
    assert found.examples[0] == {
        "row": 0, "class": 1, "before": None, "after": 1e-06, "decided": 0, "behaved": False,
    }  # fmt: skip


def test_rows_that_the_change_leaves_alone_do_not_count(judged):
    """They behave by nothing that the model does, and would water the share down."""
    found = judged(SAME, moved(0.6, first=40))

    assert (found.n, found.share) == (40, 0.0)
    assert found.outcome is Outcome.FAIL


def test_a_change_of_what_the_model_does_not_see_counts(judged):
    """Not to see it is how such a model behaves."""
    found = judged(SAME, lambda t: t.set_column(2, "note", pa.array(["b"] * len(t))))

    assert (found.n, found.share, found.outcome) == (100, 1.0, Outcome.PASS)


def test_answers_that_are_no_numbers_do_not_behave(judged):
    """Not even as before, and not in any direction."""
    none = rows().set_column(0, "x", pa.array([float("nan")] * 100))

    for asked in (SAME, RISES, CASES):
        found = judged(asked, lambda _: none)
        assert found.outcome is Outcome.FAIL
        assert found.share == 0.0
        assert found.examples[0]["after"] is None


def test_no_number_before_and_after_is_not_the_same_decision(judged):
    """Whoever answers nothing at all would be invariant to everything."""
    none = rows().set_column(0, "x", pa.array([float("nan")] * 100))

    found = judged(SAME, lambda t: t.set_column(2, "note", pa.array(["b"] * len(t))), none)

    assert (found.share, found.outcome) == (0.0, Outcome.FAIL)


def test_the_worst_rows_are_the_examples(judged):
    """Those that do not behave first, and of them those that moved most."""
    by = np.linspace(0, 0.3, 100)

    found = judged(SAME, lambda t: t.set_column(0, "x", pa.array(t["x"].to_numpy() + by)))

    crossed = [i for i in range(100) if i < 50 and i / 99 + by[i] >= 0.5]
    assert [e["row"] for e in found.examples] == sorted(crossed, reverse=True)[:5]


def test_too_few_rows_are_inconclusive(judged):
    """As they are of a slice, though all of them behave."""
    found = judged(replace(SAME, share=0.5), moved(0.001, first=10))

    assert found.outcome is Outcome.INCONCLUSIVE
    assert "judged from 30 rows on" in found.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.slice(1), "returned 99 rows for 100; return every row"),
        (lambda t: t, "changed no row"),
        (lambda t: 1 / 0, r"raised ZeroDivisionError\('division by zero'\); mend it"),
        (lambda t: t.to_pandas(), "returned a DataFrame; a pyarrow Table was wanted"),
        (lambda t: t.drop_columns(["x"]), "have no column 'x'; keep all columns"),
        (None, "has no function 'change'; write it"),
    ],
    ids=["rows lost", "no change", "raises", "no table", "column lost", "no function"],
)
def test_a_function_that_cannot_be_used_is_an_error_that_says_why(judged, change, said):
    """And the check is no pass."""
    found = judged(SAME, change)

    assert found.outcome is Outcome.ERROR
    assert found.check.outcome is Outcome.ERROR
    assert (found.n, found.share) == (0, None)
    with pytest.raises(ValueError, match=said):
        raise ValueError(found.reason)


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (lambda t: t.slice(0, 0), "gave no case"),
        (lambda t: t.drop_columns(["label"]), "have no label 'label'"),
        (lambda t: t.set_column(1, "label", pa.array([7] * 100)), "is no class; they are 0 to 1"),
    ],
    ids=["none", "no label", "no class"],
)
def test_cases_without_a_usable_label_are_an_error(judged, cases, said):
    """What a case should be decided as is its point."""
    found = judged(CASES, cases)

    assert found.outcome is Outcome.ERROR
    assert said in found.reason


@given(n=st.integers(1, 400), wrong=st.integers(0, 400), share=st.floats(0.05, 1.0))
def test_more_rows_that_behave_never_come_out_worse(n: int, wrong: int, share: float):
    """Whatever the share, and where all are asked."""
    asked = replace(SAME, share=share)
    order = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
    bad = min(wrong, n)

    worse = judge_share(asked, n - bad, n, min_support=30)
    better = judge_share(asked, n - bad // 2, n, min_support=30)

    assert order.index(better) >= order.index(worse)


def test_a_true_share_at_what_is_asked_passes_at_most_one_time_in_forty():
    """By simulation: nothing that barely fails its share is often let through."""
    rng = np.random.default_rng(3)
    behaved = rng.binomial(600, SAME.share, 2000)

    passed = np.mean([judge_share(SAME, int(k), 600, min_support=30) is Outcome.PASS
                      for k in behaved])  # fmt: skip

    assert passed <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 2000)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, None, float("nan")]), st.booleans())))
def test_rows_differ_where_a_value_does(pairs: list[tuple[float | None, bool]]):
    """What is missing, or no number, equals itself."""
    column = pa.array([v for v, _ in pairs], pa.float64())
    other = pa.array([7.0 if flip else v for v, flip in pairs], pa.float64())

    found = changed(pa.table({"v": column}), pa.table({"v": other}))

    assert found.tolist() == [flip for _, flip in pairs]


def test_the_functions_of_digits_change_what_they_say():
    """The stored features follow the pixels, no ink is cut off, and each digit has its case."""
    table = bundles.rows().slice(1197)
    ink = table["ink_mean"].to_numpy()

    faint = digits.fainter(table)
    right = digits.one_to_the_right(table)

    assert np.abs(faint["ink_mean"].to_numpy() / ink - 0.8).max() < 0.04
    assert np.allclose(right["ink_mean"].to_numpy(), ink)
    stayed = right["centre_column"].to_numpy() == table["centre_column"].to_numpy()
    assert np.allclose((right["centre_column"].to_numpy() - table["centre_column"].to_numpy())[
        ~stayed], 1)  # fmt: skip
    assert digits.mean_digits(table)["label"].to_pylist() == list(range(10))
    for made in (faint, right):
        assert made.schema.names == table.schema.names


def test_a_model_that_only_reads_strong_ink_does_not_behave():
    """A planted fault: its answers are of whoever presses the pen, and the behaviour finds it."""
    table = bundles.rows().slice(1197)
    whole = np.random.default_rng(0).integers(0, 10, 10_000)

    def pressed(rows: pa.Table) -> np.ndarray:
        return np.eye(10)[whole[(rows["ink_mean"].to_numpy() * 100).astype(int)]]

    (faint, *_) = judge_behaviours(DIGITS, table, pressed)

    assert faint.outcome is Outcome.FAIL
