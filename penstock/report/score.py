"""The ML Test Score as a page, made of its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.report.documents import Page, Part, Says, Table, number

Record = Mapping[str, Any]

MARKS = {1.0: "✓ whole", 0.5: "◐ half", 0.0: "✗ none"}
"""How a mark is shown."""


def page(document: Record) -> Page:
    """Return the page of a score: the weakest section first, then every test."""
    sections = document["sections"]
    of = len(sections[0]["tests"])
    weakest = [s["name"] for s in sections if s["points"] == document["minimum"]]
    lowest = number(document["minimum"])
    inside = f"{document['package']}/"
    return Page(
        kicker=f"ML Test Score of {document['workload']}, {scored(document)}",
        title=f"{document['title']}: {lowest} of {of}",
        outcome="",
        reason=f"The score is that of the weakest section: {', '.join(weakest)}.",
        parts=[
            *([Part(title="Notes", blocks=[Says(n) for n in document["notes"]])]
              if document["notes"] else []),
            Part(title="Sections", blocks=[_sections(document)]),
            *(Part(title=s["name"].capitalize(), blocks=[_tests(s, inside)]) for s in sections),
        ],
    )  # fmt: skip


def scored(document: Record) -> str:
    """Return what was scored, in words."""
    if document["package"] is None:
        return "no version"
    version = document["version"]
    named = "a package that is not registered" if version is None else f"version {version}"
    return f"{named}, package {document['package']}"


def _sections(document: Record) -> Table:
    rows = [
        [s["name"], f"{number(s['points'])} of {len(s['tests'])}"] for s in document["sections"]
    ]
    return Table(["section", "points"], rows)


def _tests(section: Record, inside: str) -> Table:
    """Return the tests of a section; what lies in the package that is named above is short."""
    rows = [[MARKS[t["mark"]], t["asks"], told(t).replace(inside, "")] for t in section["tests"]]
    return Table(["", "test", "evidence, and what is missing"], rows)


def told(test: Record) -> str:
    """Return where a test's evidence is, and what would earn it whole."""
    missing = f"missing: {test['earn']}" if test["earn"] else ""
    return "; ".join(text for text in (test["evidence"], missing) if text)
