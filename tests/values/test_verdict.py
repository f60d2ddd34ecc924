"""Laws of outcome, check and verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.verdict import Check, Outcome, Verdict, worst
from tests.strategies import checks, not_finite, outcomes, verdicts

BEST_FIRST = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.ERROR, Outcome.FAIL]


@given(st.lists(outcomes, min_size=1))
def test_the_worst_outcome_wins(found):
    rank = max(BEST_FIRST.index(outcome) for outcome in found)

    assert worst(tuple(found)) is BEST_FIRST[rank]


def test_no_evidence_is_an_error():
    assert worst(()) is Outcome.ERROR
    assert Verdict(()).outcome is Outcome.ERROR
    assert Verdict(()).reason == "nothing was checked"


@given(verdicts.filter(lambda v: v.checks), checks)
def test_adding_a_check_never_improves_the_outcome(verdict, check):
    longer = Verdict((*verdict.checks, check))

    assert BEST_FIRST.index(longer.outcome) >= BEST_FIRST.index(verdict.outcome)


@given(verdicts)
def test_the_order_of_checks_does_not_decide(verdict):
    assert Verdict(verdict.checks[::-1]).outcome is verdict.outcome


@given(verdicts)
def test_only_checks_that_all_passed_are_a_pass(verdict):
    all_passed = bool(verdict.checks) and all(c.outcome is Outcome.PASS for c in verdict.checks)

    assert (verdict.outcome is Outcome.PASS) == all_passed


@given(verdicts.filter(lambda v: v.outcome is not Outcome.PASS and v.checks))
def test_the_reason_is_that_of_a_deciding_check(verdict):
    deciding = [c for c in verdict.checks if c.outcome is verdict.outcome]

    assert verdict.reason.startswith(f"{deciding[0].name}: {deciding[0].reason}")


@given(verdicts)
def test_a_verdict_reads_back_as_it_was_written(verdict):
    document = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))

    assert Verdict.from_dict(document) == verdict


@given(verdicts, outcomes)
def test_an_edited_outcome_is_refused(verdict, stated):
    document = {**verdict.to_dict(), "outcome": str(stated)}
    if stated is verdict.outcome:
        assert Verdict.from_dict(document) == verdict
    else:
        with pytest.raises(ValueError, match="it was edited"):
            Verdict.from_dict(document)


@pytest.mark.parametrize("field", ["name", "outcome", "reason", "value", "limit"])
@given(checks)
def test_a_check_that_lost_a_field_is_refused(field, check):
    document = Verdict((check,)).to_dict()
    del document["checks"][0][field]

    with pytest.raises(ValueError, match="not a verdict"):
        Verdict.from_dict(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"checks": []},
        {"outcome": "pass"},
        {"outcome": "error", "checks": None},
        {"outcome": "error", "checks": [1]},
        {"outcome": "great", "checks": []},
        [],
        None,
    ],
)
def test_what_is_not_a_verdict_is_refused(document):
    with pytest.raises(ValueError, match=r"not a verdict|is not a valid Outcome"):
        Verdict.from_dict(document)


@pytest.mark.parametrize("field", ["value", "limit"])
@given(checks, not_finite)
def test_a_number_that_is_not_finite_is_refused(field, check, number):
    with pytest.raises(ValueError, match="no evidence"):
        replace(check, **{field: number})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_is_refused_when_read_back(text):
    document = json.loads(
        '{"outcome": "pass", "checks": [{"name": "auc", "outcome": "pass", "reason": "fine", '
        f'"value": {text}, "limit": null}}]}}'
    )

    with pytest.raises(ValueError, match="no evidence"):
        Verdict.from_dict(document)


@given(verdicts)
def test_it_prints_one_line_for_the_outcome_and_one_for_each_check(verdict):
    first, *rows = str(verdict).split("\n")

    assert first == verdict.outcome
    assert len(rows) == len(verdict.checks)


def test_a_check_cannot_be_changed():
    check = Check(name="auc", outcome=Outcome.FAIL, reason="0.4")

    with pytest.raises(AttributeError):
        check.outcome = Outcome.PASS
