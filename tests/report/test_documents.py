"""Laws of a document's two forms: the same words, nothing that becomes markup, fit for a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.report.documents import (
    NOTHING,
    Commands,
    Facts,
    Listed,
    Page,
    Part,
    Plot,
    Says,
    Table,
    ToSign,
    estimate,
    html,
    markdown,
    number,
)
from tests.strategies import finite, words


def a_page(*blocks: Any, **over: str) -> Page:
    """Return a page of one part."""
    plain = {"kicker": "of a test", "title": "A title", "outcome": "pass", "reason": "so"}
    return Page(**{**plain, **over}, parts=[Part(title="A part", blocks=blocks)])


@given(value=finite.filter(lambda v: abs(v) < 1e300))
def test_a_number_is_shown_to_four_digits(value: float):
    """Read back, it is what was measured, up to its fifth digit; nothing is nothing."""
    shown = number(value)

    assert shown is not None
    assert float(shown) == pytest.approx(value, rel=1e-3, abs=1e-300)
    assert number(None) is None


@given(value=finite, within=st.floats(0, 1e6))
def test_a_difference_always_has_its_sign(value: float, within: float):
    """Better or worse is seen at a glance, at all three numbers."""
    found = {"value": value, "low": value - within, "high": value + within, "n": 9}
    shown = estimate(found, sign=True)

    assert shown is not None
    assert len(re.findall(r"(?:^|[\[ ])[-+]\d", shown)) == 3


@given(cell=words, name=words)
def test_no_text_opens_a_column_or_a_tag(cell: str, name: str):
    """Whatever stands in a cell, the table has its columns and the page its tags."""
    hostile = f"{cell}|<b>{name}"
    table = Table(["left", "right"], [[hostile, None], [name, hostile]])
    written = markdown(a_page(table)).splitlines()
    rows = [line for line in written if line.startswith("| ")]

    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows] == [3, 3, 3]
    assert "<b>" not in html(a_page(table))


BLOCKS = (
    Says("a sentence"),
    Listed(["one point"]),
    Listed([]),
    Facts([("a name", "a value"), ("a gap", None)]),
    Table(["a head"], [["a cell"], [None]], folded="behind a line"),
    Table(["a head"], []),
    Commands(["penstock status"]),
    Plot("<svg></svg>", "what is drawn"),
    ToSign([("validator", "the validation")]),
)


def test_both_forms_say_the_same(tmp_path: Path):
    """Each word of a block is in both, but for a drawing, which one of them tells in words."""
    page = a_page(*BLOCKS, warning="take care")
    written, drawn = markdown(page), html(page)

    for word in ("A title", "take care", "a sentence", "one point", "a name", "a value", "a cell",
                 "penstock status", "validator", "the validation", "signature"):  # fmt: skip
        assert word in written
        assert word in drawn
    assert "what is drawn" in written
    assert "<svg></svg>" in drawn
    assert written.count(NOTHING) == drawn.count(NOTHING) == 3


def test_an_outcome_has_its_colour_and_its_word():
    """Also for who sees no colours: the word is always there."""
    table = Table(["", "check"], [["fail", "auc"], ["pass", "brier"]])
    drawn = html(a_page(table, outcome="fail"))

    assert '<span class="bad">fail</span>' in drawn
    assert '<span class="good">pass</span>' in drawn
    assert '<h1 class="bad">' in drawn


@pytest.mark.parametrize("width", [1200, 400], ids=["desk", "phone"])
def test_it_opens_in_a_browser(tmp_path: Path, width: int):
    """A real browser shows the title, and needs no sideways scrolling."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser; on Debian: apt-get install chromium")
    wide = Table([f"column {n}" for n in range(9)], [["sha256:" + "ab" * 32] * 9])
    page = a_page(*BLOCKS, wide, Facts([("content", "sha256:" + "cd" * 32)]))
    (tmp_path / "page.html").write_text(html(page), encoding="utf-8")
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="page.html" style="width:{width}px;height:900px"></iframe>'
        "<script>f.onload=()=>{const d=f.contentDocument,r=d.documentElement;"
        "document.title=[d.querySelector('h1').textContent,"
        "r.scrollWidth<=r.clientWidth].join('|')}</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    flags += ["--allow-file-access-from-files", "--virtual-time-budget=5000"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]

    shown = subprocess.run(
        [*command, probe.as_uri()], capture_output=True, text=True, timeout=60, check=True
    ).stdout

    assert "<title>A title|true</title>" in shown
