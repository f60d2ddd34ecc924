"""Laws of a release's page: verdict first, every decision with its numbers, nothing fetched."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.report import releaseplots
from penstock.report.documents import html, markdown
from penstock.report.evidence import interval, lasting, limit, quantity, users
from penstock.report.release import release_page
from penstock.rollout import telling
from penstock.rollout.past import PAGED, past_of
from penstock.rollout.state import Act
from tests.report import browser
from tests.rollout.tales import RELEASE, Tale, looks_of, rolled_back

HOSTILE = "<script>alert(1)</script>"


def told_of(tale: Tale, looks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a page is drawn from."""
    return telling.timeline(tale.entries, RELEASE, looks, now=tale.now + timedelta(seconds=5))


def page(tale: Tale, looks: list[dict[str, Any]]) -> str:
    """Return the page of a tale."""
    return html(release_page(told_of(tale, looks), title="Handwritten digits"))


def test_the_verdict_comes_first_and_every_decision_is_there(tmp_path: Path):
    """Headline, reason, plots; then steps, decisions, shadow, slices, people, hashes."""
    tale, looks = rolled_back(tmp_path)
    text = page(tale, looks)

    parts = ["Rolled back: version 2, over version 1", "clicks: -0.0280", "Traffic",
             "Evidence over time", "Steps", "Decisions", "Shadow", "Slices of users",
             "Who agreed, who asked", "Hashes"]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.count("<svg") == 4
    assert text.count("41.5 ms") >= 5
    for shown in ("new viewers", "0.92 [0.88, 0.95]", "-0.02 [-0.05, 0.01]", "sha256:77aa"):
        assert shown in text
    assert tale.plan.fingerprint() in text
    assert past_of(tale.entries, RELEASE).opened.hash in text


def test_each_stay_at_a_step_is_a_row(tmp_path: Path):
    """Climbed twice, as the first strike went one step down: how long, and what ended it."""
    tale, looks = rolled_back(tmp_path)
    text = markdown(release_page(told_of(tale, looks), title="Digits"))

    rows = [r for r in text[text.index("## Steps") : text.index("## Decisions")].splitlines()
            if r.startswith(("| shadow", "| canary"))]  # fmt: skip
    assert [r.split(" | ")[4] for r in rows] == [
        "step entered",
        "strike",
        "step entered",
        "rolled back",
    ]
    assert all("41 min" in row for row in rows)


@pytest.mark.parametrize("steps", [0, 1, 2], ids=["opened", "shadow", "canary"])
def test_a_release_that_goes_on_has_a_page(tmp_path: Path, steps: int):
    """Also before its first step and without a single look."""
    tale = Tale.begun(tmp_path)
    tale.climb(steps - 1)

    text = page(tale, [])

    assert "Going on: version 2, over version 1" in text
    assert "Next: enter" in text


def test_people_are_on_the_page(tmp_path: Path):
    """Who approved, who asked for what, and who was called, each with its entry."""
    tale = Tale.begun(tmp_path)
    tale.climb(0)
    tale.decide(Act.AWAIT, 1, table=None)
    tale.approve()
    tale.command("pause", reason="lunch")
    tale.append(PAGED, {"release": RELEASE, "n": 2, "cause": "drill", "why": "none for 40 days"})

    text = page(tale, [])

    for said in ("approved by tester: looked at it", "pause, by tester: lunch", "none for 40 days"):
        assert said in text


def test_nothing_that_anybody_wrote_becomes_markup(tmp_path: Path):
    """Reasons, names of slices and of checks are text, in plots too."""
    tale = Tale.begun(tmp_path)
    tale.decide(Act.ENTER, 0, why=HOSTILE)
    looks = looks_of(tale, "shadow", 0.0, count=3)
    for look in looks:
        look["rows"][1]["name"] = HOSTILE
    tale.command("pause", reason=HOSTILE)
    tale.decide(Act.ROLL_BACK, why=HOSTILE)

    text = page(tale, looks)

    assert "<script" not in text
    assert "src=" not in text
    assert "@import" not in text


def test_the_same_release_gives_the_same_bytes(tmp_path: Path):
    """Two pages can be compared with diff."""
    tale, looks = rolled_back(tmp_path)

    assert page(tale, looks) == page(tale, looks)


@pytest.mark.parametrize("width", [1200, 420], ids=["desk", "phone"])
def test_it_opens_in_a_browser(tmp_path: Path, width: int):
    """A real browser shows the verdict and every plot, and needs no sideways scrolling."""
    tale, looks = rolled_back(tmp_path)
    path = tmp_path / "release.html"
    path.write_text(page(tale, looks), encoding="utf-8")

    title, drawn, whole = browser.shown(path, width=width)

    assert (title, drawn, whole) == ("Rolled back: version 2, over version 1", 4, True)


def test_no_line_joins_the_evidence_of_two_steps(tmp_path: Path):
    """Evidence starts anew at each step: a check has as many runs as there were stays."""
    tale, looks = rolled_back(tmp_path)
    rows = releaseplots.series(told_of(tale, looks))["clicks"]

    runs = releaseplots._runs(rows)

    assert [len(run) for run in runs] == [40] * 4
    assert all(len({row["step"] for row in run}) == 1 for run in runs)


def test_a_check_whose_limit_moves_is_one_line(tmp_path: Path):
    """The milliseconds in its name follow the champion's speed."""
    tale, looks = rolled_back(tmp_path)
    looks[0]["rows"][2]["name"] = "slow users, over 31 ms"

    assert len(releaseplots.series(told_of(tale, looks))["slow users"]) == len(looks)


@given(seconds=st.floats(0, 1e8))
def test_a_time_is_said_in_two_parts_at_most_and_never_too_long(seconds: float):
    """What is said is the time but for its smallest parts."""
    sizes = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    words = lasting(seconds).split()
    said = sum(float(n) * sizes[unit] for n, unit in zip(words[::2], words[1::2], strict=True))

    assert len(words) <= 4
    assert said <= seconds + 1
    assert said >= seconds * 0.95 - 1


numbers = st.none() | st.floats(-1e6, 1e6)


@given(estimate=numbers, low=numbers, high=numbers, unit=st.sampled_from(["share", "×", "ms", ""]))
def test_any_row_can_be_said(
    estimate: float | None, low: float | None, high: float | None, unit: str
):
    """What was not measured says nothing; an end that is not known is never a number."""
    row = {"estimate": estimate, "low": low, "high": high, "unit": unit, "limit": high}

    said = interval(row)

    assert (said == "") == (estimate is None)
    if estimate is not None and (low is None) != (high is None):
        assert "…" in said
    assert (limit(row) == "") == (high is None)
    assert users(row) == ""
    assert "nan" not in quantity(estimate, unit)
    assert not math.isnan(estimate or 0)
