"""Laws of a package's documents: every number is of the evidence, nothing is fetched."""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import report
from penstock.bundle import Bundle
from penstock.register import card as cards
from penstock.report.documents import NOTHING, number
from penstock.workload import settings_of
from tests.register import dossiers

NAMES = ("card", "change", "validation")
FORMS = ("json", "md", "html")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Return the evidence of a challenger of the regulated workload."""
    scores = {"scores.json": dossiers.scores(champion=0.7693)}
    return dossiers.inputs(tmp_path_factory.mktemp("held"), gate=scores)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, held: dict[str, Bundle]) -> Bundle:
    """Return its package, over a champion."""
    folder = tmp_path_factory.mktemp("made")
    one = dossiers.inputs(folder / "one")
    champion = dossiers.package(folder / "champion", dossiers.credit(), one, dossiers.lineage())
    record = dossiers.lineage(seed=43, data="digits-fresher")
    return dossiers.package(folder / "made", dossiers.credit(), held, record, before=champion)


def leaves(document: Any) -> Iterator[Any]:
    """Yield every value of a document that holds no other, and every name in it."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield name
            yield from leaves(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from leaves(value)
    else:
        yield document


def numbers(document: Any) -> set[float]:
    """Return all numbers of a document."""
    return {v for v in leaves(document) if isinstance(v, int | float) and not isinstance(v, bool)}


def plain(text: str, form: str) -> str:
    """Return what a reader sees: no drawings, styles or tags, no escapes."""
    if form == "html":
        text = re.sub(r"(?s)<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", text)
        return html.unescape(text)
    return re.sub(r"\\(.)", r"\1", text)


def counts(document: Any) -> set[int]:
    """Return the lengths of all lists, and how many checks of each did not pass."""
    found: set[int] = set()
    if isinstance(document, dict):
        for value in document.values():
            found |= counts(value)
        if isinstance(document.get("features"), list | dict) or "views" in document:
            found.add(sum(len(v) for v in (document.get("views") or {}).values()))
    elif isinstance(document, list):
        found.add(len(document))
        found.add(sum(isinstance(c, dict) and c.get("outcome") not in ("pass", None)
                      for c in document))  # fmt: skip
        for value in document:
            found |= counts(value)
    return found


@pytest.mark.parametrize("form", ["md", "html"])
@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_text_is_in_its_document(made: Bundle, name: str, form: str):
    """As it is, or as four digits of it; the other digits are parts of names and reasons."""
    document = made.json(f"{name}.json")
    text = plain(made.file(f"{name}.{form}").read_text(encoding="utf-8"), form)
    years = round(document.get("retention_days", 0) / 365.25)
    known = {number(v, sign=s) for v in numbers(document) for s in (False, True)}
    known |= {str(n) for n in counts(document)} | {str(years)}
    words = sorted((w for w in leaves(document) if isinstance(w, str)), key=len, reverse=True)
    for word in words:
        for shown in (word, word.removeprefix("sha256:")[:16]):
            if any(c.isdigit() for c in shown):
                spaced = re.escape(re.sub(r"\s+", " ", shown))
                text = re.sub(rf"(?<![\w.]){spaced}(?![\w.]*\w)", " ", text)

    assert [n for n in NUMBER.findall(text) if n not in known] == []


def test_every_number_of_a_document_is_in_the_evidence(held: dict[str, Bundle], made: Bundle):
    """In a stage's file, the lineage or the declaration, to the last digit."""
    evidence = numbers(dossiers.lineage(seed=43)) | numbers(settings_of(dossiers.credit()))
    for bundle in held.values():
        for file in bundle.manifest["files"]:
            if file.endswith(".json"):
                evidence |= numbers(bundle.json(file))
    declared = dossiers.credit()
    days = {declared.retention.days, declared.label_delay.total_seconds() / 86_400}
    shape = {2, 32}  # tensors and values of the network's weights
    forms = {cards.FORMAT}

    for name in NAMES:
        found = numbers(made.json(f"{name}.json"))
        known = evidence | days | shape | forms
        if name == "validation":
            known |= {1, 3}  # checks of each verdict
        assert found - known == set()


PLANTED = [
    ("gate", "scores.json", ("metrics", "auc", "challenger", "value"), 0.8642, NAMES[:2]),
    ("gate", "scores.json", ("fairness", 0, "adverse_impact_ratio", "value"), 0.8173, NAMES[:1]),
    ("gate", "scores.json", ("slices", 0, "challenger", "low"), 0.6427, NAMES[:1]),
    ("gate", "scores.json", ("costs", "best_threshold"), 0.3491, NAMES[:1]),
    ("gate", "behaviours.json", (0, "share"), 0.7913, NAMES[:1]),
    ("snapshot", "proof.json", ("rows", "train"), 48271, NAMES[:2]),
    ("snapshot", "proof.json", ("rows", "holdout"), 31847, NAMES[:2]),
    ("snapshot", "proof.json", ("online_compared",), 7717, NAMES[:1]),
    ("model", "certificate.json", ("steps",), 8713, NAMES[:1]),
    ("model", "calibration.json", ("error",), 0.0619, NAMES[:1]),
    ("gate", "scores.json", ("fairness", 0, "groups", 0, "favoured"), 0.5519, NAMES[:1]),
    ("gate", "scores.json", ("costs", "regret", "value"), 0.0187, NAMES[:1]),
    ("equivalence", "ladder.json", ("steps", 0, "slices", 0, "agreement"), 0.4127, NAMES[:1]),
    ("engine", "budgets.json", ("artifacts", "int8-cpu", "batches", 0, "latency_p50_ms"), 71.39,
     NAMES[:1]),
    ("serving", "quantize.json", ("examples",), 9173, NAMES[:2]),
]  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a package, over a champion, of evidence in which every one of them was replaced."""
    folder = tmp_path_factory.mktemp("planted")
    changed: dict[str, dict[str, Any]] = {}
    for kind, file, path, value, _ in PLANTED:
        files = changed.setdefault(kind.replace("-", "_"), {})
        at = files.setdefault(file, json.loads(json.dumps(dossiers.DOCUMENTS[kind][file])))
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
    declared, record = dossiers.credit(), dossiers.lineage()
    one = dossiers.inputs(folder / "one")
    champion = dossiers.package(folder / "champion", declared, one, record)
    other = dossiers.inputs(folder / "other", **changed)
    return dossiers.package(folder / "p", declared, other, record, before=champion)


@pytest.mark.parametrize("case", PLANTED, ids=lambda p: ".".join(map(str, p[2])))
def test_another_value_in_the_evidence_is_another_value_in_the_texts(
    planted: Bundle, made: Bundle, case: tuple[str, str, tuple[Any, ...], float, tuple[str, ...]]
):
    """In all three forms of every document that tells it; without it, in none."""
    *_, value, names = case
    shown = number(value)

    assert shown is not None
    for name in names:
        for form in FORMS:
            text, other = (
                plain(package.file(f"{name}.{form}").read_text(encoding="utf-8"), form)
                for package in (planted, made)
            )
            assert shown in text, f"{name}.{form}"
            assert shown not in other


def test_a_reason_of_the_gate_is_told_in_all_three(tmp_path: Path):
    """What decided is the first sentence a reader meets."""
    check = {"name": "auc", "outcome": "fail", "reason": "0.5137 of 0.7", "value": 0.5137,
             "limit": 0.7}  # fmt: skip
    bad = dossiers.inputs(tmp_path, gate={"verdict.json": dossiers.verdict(check)})
    package = dossiers.package(tmp_path / "p", dossiers.credit(), bad, dossiers.lineage())

    for name in NAMES:
        for form in FORMS:
            assert "0.5137 of 0.7" in package.file(f"{name}.{form}").read_text(encoding="utf-8")


TEMPLATES = [
    *(Path(cards.__file__).parent / f"{n}.py" for n in ("card", "change", "validation", "facts")),
    *(Path(report.__file__).parent / f"{n}.py" for n in ("card", "quality", "review")),
]


def said(path: Path) -> Iterator[str]:
    """Yield every text of a module that may be shown: docstrings and format specs are not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            hidden.add(id(node.value))
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            hidden |= {id(inner) for inner in ast.walk(node.format_spec)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in hidden
        ):
            yield node.value


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_no_template_holds_a_number(path: Path):
    """Digits stand only in names, after a letter: ``int8``, ``latency_p99_ms``."""
    texts = [t for t in said(path) if t != "utf-8"]

    assert [t for t in texts if re.search(r"(?<![A-Za-z_\d])\d", t)] == []


HOSTILE = "<script>alert(1)</script> | `x` **y**"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return the package of a rehearsal whose evidence holds what should never be markup."""
    folder = tmp_path_factory.mktemp("spoilt")
    check = {"name": HOSTILE, "outcome": "fail", "reason": HOSTILE, "value": None, "limit": None}
    held = dossiers.inputs(folder, gate={"verdict.json": dossiers.verdict(check)})
    record = dossiers.lineage(trained_by=HOSTILE, rehearsal=f"latency {HOSTILE}")
    return dossiers.package(folder / "p", dossiers.credit(), held, record)


@pytest.mark.parametrize("name", NAMES)
def test_a_rehearsal_is_said_before_anything_else(spoilt: Bundle, made: Bundle, name: str):
    """In every document, in words and not only in a field; no other version says it."""
    for form in ("md", "html"):
        text = spoilt.file(f"{name}.{form}").read_text(encoding="utf-8")
        first = text.index("deliberately broken (latency")
        assert first < text.index("## " if form == "md" else "<h2>")
        assert "deliberately" not in made.file(f"{name}.{form}").read_text(encoding="utf-8")
    assert spoilt.json(f"{name}.json")["rehearsal"].startswith("latency")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_asks_nobody_for_anything(made: Bundle, name: str):
    """Styles and drawings are inside: it opens without a network, and years later."""
    text = made.file(f"{name}.html").read_text(encoding="utf-8")

    assert not re.search(r"src=|<link|<script|@import|url\((?!#)|<iframe", text)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_evidence_becomes_markup(spoilt: Bundle, name: str):
    """A reason that a library printed, a name that somebody gave."""
    written = spoilt.file(f"{name}.md").read_text(encoding="utf-8")

    assert "<script" not in spoilt.file(f"{name}.html").read_text(encoding="utf-8")
    assert re.findall(r"(?<!\\)<script", written) == []
    assert "script" in written


def test_the_same_evidence_gives_the_same_bytes(tmp_path: Path, held: dict[str, Bundle]):
    """Two packages of one candidate can be compared by their digests."""
    one, two = (
        dossiers.package(tmp_path / n, dossiers.credit(), held, dossiers.lineage())
        for n in ("one", "two")
    )

    assert one.digest == two.digest


def test_a_package_without_evidence_has_documents_that_say_so(tmp_path: Path):
    """Every gap is a sentence; nothing is a pass."""
    from penstock.register import documents  # noqa: PLC0415 - plots take a second to import

    documents.write(tmp_path, dossiers.credit(), {}, lineage={}, before=None)

    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert card.startswith("# Credit default: gate error")
    assert card.count(NOTHING) > 20
