"""Laws of the gate's report: the verdict first, every number told, nothing drawn that is not so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.report import gateplots
from penstock.report.documents import html, markdown
from penstock.report.gate import gate_page, metric_rows, write
from penstock.verdict import Check, Outcome, Verdict
from tests.report import judged

FACTS = [("snapshot", "digits-1"), ("champion", "none serves yet")]
GOOD = Check(name="accuracy", outcome=Outcome.PASS, reason="0.98 [0.97, 0.99], at least 0.93")
BAD = Check(name="auc", outcome=Outcome.FAIL, reason="0.71 [0.70, 0.72],\nat least 0.75")
KINDS = {
    "ten classes": judged.ten_classes(),
    "ten classes alone": judged.ten_classes(alone=True),
    "two classes": judged.two_classes(),
    "two classes alone": judged.two_classes(alone=True),
    "no slices": judged.two_classes(slices=0),
}


def page(numbers: Any, *checks: Check) -> Any:
    """Return the report of a gate with these checks."""
    verdict = Verdict(checks or (GOOD,))
    return gate_page("Digits", verdict, numbers, judged.BEHAVIOURS, facts=FACTS)


@pytest.mark.parametrize(
    ("checks", "first"),
    [
        ((GOOD,), "# Promote: 1 of 1 checks passed"),
        ((GOOD, BAD), "# Reject: auc: 0.71 [0.70, 0.72], at least 0.75"),
    ],
)
def test_the_first_line_is_the_verdict_with_what_decided(checks: tuple[Check, ...], first: str):
    """In one line, whatever the reason's form, and in both documents."""
    report = page(judged.ten_classes(), *checks)

    assert markdown(report).splitlines()[0].replace("\\", "") == first
    assert f">{first[2:]}</h1>" in html(report)


def test_what_did_not_pass_comes_first():
    """A reader finds the reason of a rejection without looking for it."""
    text = markdown(page(judged.ten_classes(), GOOD, BAD))

    assert text.index("| fail |") < text.index("| pass |")


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_task_is_drawn_and_tabled(name: str):
    """All metrics, each slice with its rows; a plot for all that there is, and for nothing else."""
    numbers = KINDS[name]
    report = page(numbers)
    text, shown = markdown(report), html(report)

    for metric in numbers["metrics"]:
        assert f"| {gateplots.worded(metric)} |" in text
    for part in numbers["slices"]:
        assert f"| {part['name']} |" in text
    wanted = 1 + (2 if numbers["costs"] else 1) + len(numbers["fairness"])
    assert shown.count("<svg") == wanted
    assert text.count("Drawn in report.html") == wanted


def test_without_a_champion_nothing_is_said_of_differences():
    """Neither a column nor an axis for them."""
    head, rows = metric_rows(judged.two_classes(alone=True))
    drawn = gateplots.slices(judged.two_classes(alone=True))[0].svg

    assert head == ["metric", "challenger"]
    assert {len(row) for row in rows} == {2}
    assert "champion" not in drawn
    assert "margin" not in drawn
    assert "no champion" in markdown(page(judged.two_classes(alone=True)))


def test_costs_without_a_threshold_that_was_chosen_are_drawn():
    """Where no rule asks for the least cost there is none, and no regret: the curve stays."""
    numbers = judged.two_classes()
    numbers["costs"] = {**numbers["costs"], "best_threshold": None, "regret": None}
    drawn = gateplots.decisions(numbers)

    assert "cost by threshold" in drawn[-1].text
    assert "best on validation" not in drawn[-1].svg
    assert "best on validation" in gateplots.decisions(judged.two_classes())[-1].svg
    assert "| best on validation rows | *no evidence yet* |" in markdown(page(numbers))


def test_a_champion_that_could_not_be_scored_is_not_none():
    """The page says that it serves and was not compared with."""
    alone = judged.two_classes(alone=True)

    assert "with no champion to compare with" in markdown(page(alone))
    text = markdown(page({**alone, "incomparable": "another transform"}))
    assert "A champion serves and could not be scored" in text
    assert "no champion" not in text


def test_a_forest_says_which_slices_have_no_number():
    """A slice without evidence keeps its line."""
    numbers = judged.two_classes(slices=4)
    drawn = gateplots.slices(numbers)[0].svg

    assert numbers["slices"][3]["challenger"] is None
    assert drawn.count("no number") == 1
    assert "slice 3 with a name" in drawn


def test_scores_that_are_no_numbers_have_a_report_too():
    """It says so, draws an axis without a number, and still tells the checks."""
    report = page(judged.nothing(), BAD)

    text = markdown(report)
    assert "nothing could be measured" in text
    assert "| accuracy | *no evidence yet* |" in text
    assert "| fail | auc |" in text
    assert html(report).count("<svg") == 1


def test_a_slice_that_nothing_is_asked_of_is_drawn_without_a_verdict():
    """Neither in the colour of a pass nor as missing evidence."""
    numbers = judged.ten_classes(alone=True)
    numbers["slices"] = [{**part, "outcome": None} for part in numbers["slices"]]

    drawn = gateplots.slices(numbers)[0].svg

    assert "nothing asked" in drawn
    assert "passed" not in drawn
    assert "| not asked | class 3 |" in markdown(page(numbers))


def test_a_better_side_is_named_for_each_metric():
    """Smaller is better of a loss, and its forest says so."""
    numbers = judged.ten_classes()
    losses = [{**part, "metric": "log_loss"} for part in numbers["slices"]]

    accuracy, loss = gateplots.slices({**numbers, "slices": [*numbers["slices"], *losses]})

    assert "better to the right" in accuracy.svg
    assert "better to the left" in loss.svg


def test_a_group_without_deserving_rows_has_no_bar_of_them():
    """It says that there are none rather than drawing a zero alone."""
    assert "no rows" in gateplots.groups(judged.two_classes())[0].svg


def test_behaviours_tell_their_worst_rows_and_what_was_no_evidence():
    """A function that does not exist is a line with its reason; text stays text."""
    report = page(judged.ten_classes())

    assert "has no function &#x27;plain&#x27;" in html(report)
    assert "a month later is a &lt;worse&gt; client" in html(report)
    assert "| 7 | 1 | 0.31 | 0.12 | 0 | no |" in markdown(report)


@pytest.mark.parametrize("name", ["ten classes alone", "two classes"])
def test_the_same_numbers_give_the_same_bytes(name: str, tmp_path: Path):
    """Two reports can be compared with diff: no time and no random name is in them."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, page(json.loads(json.dumps(KINDS[name]))))

    for file in ("report.md", "report.html"):
        one, two = (tmp_path / folder / file for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_the_gate_imports_no_plotting_until_it_draws():
    """A verb that only asks for help does not wait for matplotlib."""
    asked = "import sys, penstock.gate.step; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
