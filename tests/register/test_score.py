"""Laws of the ML Test Score: marks come from evidence that was verified, and only from it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from penstock.bundle import Bundle, BundleError
from penstock.cli import score as command
from penstock.ledger import REGISTERED, Ledger, Stage
from penstock.register import score as scores
from penstock.register.claims import Piece
from penstock.register.rubric import ITEMS, Section
from penstock.workload import load, load_data
from tests.bundles import NOW
from tests.people import person
from tests.register import dossiers

ROOT = Path(__file__).parents[2]
MARKS = (scores.NONE, scores.HALF, scores.WHOLE)


def passing(*names: str) -> dict[str, Any]:
    """Return a release step's verdict with a passing check of each name."""
    rows = [{"name": n, "outcome": "pass", "reason": "so", "value": None, "limit": None}
            for n in names]  # fmt: skip
    return {"outcome": "pass", "checks": rows}


def released(ledger: Ledger, version: int, package: Bundle, *, percent: int = 10) -> None:
    """Write what a release leaves: registered, through every stage, with the steps' verdicts."""
    actor, name = person(), "digits"
    body = {"fingerprint": package.fingerprint, "digest": package.digest,
            "package": str(package.path), "rehearsal": None}  # fmt: skip
    ledger.append(workload=name, version=version, kind=REGISTERED, body=body, actor=actor, now=NOW)
    for stage in (Stage.STAGING, Stage.SHADOW, Stage.CANARY):
        ledger.move(workload=name, version=version, to=stage, reason="t", actor=actor, now=NOW)
    step = {"name": f"canary {percent} %", "percent": percent, "seconds": 9.0,
            "verdict": passing("errors", "slower than 20 ms", "wrong answers")}  # fmt: skip
    ledger.append(workload=name, version=version, kind="verdict", body=step, actor=actor, now=NOW)
    ledger.move(
        workload=name, version=version, to=Stage.PRODUCTION, reason="t", actor=actor, now=NOW
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a package with all the documents there are, made from this checkout's commit."""
    folder = tmp_path_factory.mktemp("scored")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    record = dossiers.lineage(code={"git": head or None, "sources": "sha256:5"})
    held = dossiers.inputs(folder / "held")
    return dossiers.package(folder / "package", dossiers.credit(), held, record)


@pytest.fixture(scope="module")
def pieces(package: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Piece]:
    """Return the evidence of a version that was released by canary."""
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"
    ledger = Ledger(url)
    try:
        released(ledger, 1, package)
        entries = ledger.entries("digits")
    finally:
        ledger.close()
    return scores.gather(load("digits"), package, entries, root=ROOT)


def test_the_rubric_has_its_28_tests():
    """Seven in each section, no two alike."""
    assert Counter(item.section for item in ITEMS) == dict.fromkeys(Section, 7)
    assert len({item.asks for item in ITEMS}) == 28


def test_a_released_version_earns_what_it_shows(pieces: dict[str, Piece]):
    """Canary, budgets held in release and before, quality on slices: whole; by hand: half."""
    marks = {m.item.asks: m.mark for m in scores.score(pieces).marked}

    assert marks["Few users see a model before all do"] == scores.WHOLE
    assert marks["Neither latency nor memory gets worse"] == scores.WHOLE
    assert marks["Quality is judged before a model serves"] == scores.WHOLE
    assert marks["Quality is enough on every slice that matters"] == scores.WHOLE
    assert marks["Quality for users does not get worse"] == scores.HALF
    assert marks["A simpler model is not as good"] == scores.NONE


def test_each_mark_has_its_evidence_or_what_is_missing(pieces: dict[str, Piece]):
    """No credit without a place to look, no gap without a way to close it."""
    for marked in scores.score(pieces).marked:
        assert marked.mark in MARKS
        assert (marked.evidence is None) == (marked.mark == scores.NONE)
        assert marked.item.earn


def test_nothing_earns_nothing():
    """Without evidence every test is missing."""
    assert {m.mark for m in scores.score({}).marked} == {scores.NONE}


@given(data=st.data())
@settings(max_examples=150)
def test_less_evidence_never_scores_higher(pieces: dict[str, Piece], data: st.DataObject):
    """Whatever is taken away, no test gains, so no section and not the minimum."""
    kept = data.draw(st.sets(st.sampled_from(sorted(pieces))))
    fewer = kept - data.draw(st.sets(st.sampled_from(sorted(kept)))) if kept else kept
    more = scores.score({n: p for n, p in pieces.items() if n in kept})
    less = scores.score({n: p for n, p in pieces.items() if n in fewer})

    for one, other in zip(more.marked, less.marked, strict=True):
        assert other.mark <= one.mark
    assert less.minimum <= more.minimum


@given(marks=st.lists(st.sampled_from(MARKS), min_size=28, max_size=28))
def test_the_score_is_that_of_the_weakest_section(marks: list[float]):
    """Not the sum, not the mean: no section makes up for another."""
    marked = tuple(
        scores.Marked(item=i, mark=m, evidence=None) for i, m in zip(ITEMS, marks, strict=True)
    )
    found = scores.Score(marked)
    by_section = [sum(marks[at : at + 7]) for at in range(0, 28, 7)]

    assert found.minimum == min(by_section)
    assert [s["points"] for s in found.to_dict()["sections"]] == by_section


def test_evidence_that_shows_harm_earns_nothing(pieces: dict[str, Piece]):
    """A verdict that failed is there, and no test is the better for it."""
    name = "package:verdicts/gate.json"
    bad = {**passing("auc"), "outcome": "fail"}
    found = scores.score({**pieces, name: Piece(bad, "gate")})
    marks = {m.item.asks: m.mark for m in found.marked}

    assert marks["Quality is judged before a model serves"] == scores.NONE
    assert marks["Quality is enough on every slice that matters"] == scores.NONE


@pytest.mark.parametrize("document", [None, [], "text", {}, {"outcome": "pass"}, 7])
def test_a_document_of_another_form_earns_nothing(pieces: dict[str, Piece], document: Any):
    """It is as if it were not there."""
    names = [n for n in pieces if n.startswith("package:")]
    garbled = {**pieces, **{n: Piece(document, "odd") for n in names}}
    without = {n: p for n, p in pieces.items() if n not in names}

    found, least = scores.score(garbled), scores.score(without)

    assert [m.mark for m in found.marked] == [m.mark for m in least.marked]


def test_a_first_version_was_seen_by_all_at_once(package: Bundle, tmp_path: Path):
    """Its one step has every user in it, so it is no canary."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        released(ledger, 1, package, percent=100)
        held = scores.gather(load("digits"), package, ledger.entries("digits"), root=ROOT)
    finally:
        ledger.close()
    marks = {m.item.asks: m.mark for m in scores.score(held).marked}

    assert marks["Few users see a model before all do"] == scores.NONE


def test_the_canary_of_another_version_is_half(package: Bundle, tmp_path: Path):
    """It shows that releases go so, and not that this one did."""
    held = dossiers.inputs(tmp_path / "held")
    earlier = dossiers.package(
        tmp_path / "earlier", dossiers.credit(), held, dossiers.lineage(seed=9)
    )
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        released(ledger, 1, earlier)
        released(ledger, 2, package, percent=100)
        found = scores.gather(load("digits"), package, ledger.entries("digits"), root=ROOT)
    finally:
        ledger.close()
    marks = {m.item.asks: m.mark for m in scores.score(found).marked}

    assert marks["Few users see a model before all do"] == scores.HALF


def test_the_tests_of_another_commit_are_not_the_versions(package: Bundle, tmp_path: Path):
    """Made from changes that no commit holds, a version shares no test of the repository."""
    record = dossiers.lineage(code={"git": "0123abcd+changes", "sources": "sha256:5"})
    held = dossiers.inputs(tmp_path / "held")
    changed = dossiers.package(tmp_path / "package", dossiers.credit(), held, record)
    pieces = scores.gather(load("digits"), changed, [], root=ROOT)
    marks = {m.item.asks: m.mark for m in scores.score(pieces).marked}

    assert not [n for n in pieces if n.startswith("commit:")]
    assert marks["The whole pipeline has an integration test"] == scores.HALF
    assert marks["Every change of the model is reviewed and in version control"] == scores.NONE


def test_another_package_than_the_registered_one_is_refused(package: Bundle, tmp_path: Path):
    """Whole, but not what the ledger has: somebody put it there."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        released(ledger, 1, package)
        entries = ledger.entries("digits")
    finally:
        ledger.close()
    held = dossiers.inputs(tmp_path / "held")
    other = dossiers.package(tmp_path / "other", dossiers.credit(), held, dossiers.lineage(seed=9))

    with pytest.raises(BundleError, match="not the package that the ledger has"):
        scores.opened(other.path, entries, version=1)


def asked(home: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    """Run ``penstock score`` in a home."""
    monkeypatch.setenv("PENSTOCK_HOME", str(home))
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    app = typer.Typer()
    app.command()(command.score)
    return CliRunner().invoke(app, list(words))


def marks_of(output: str) -> dict[str, float]:
    """Return every test's mark from the JSON that was printed."""
    sections = json.loads(output)["sections"]
    return {t["asks"]: t["mark"] for s in sections for t in s["tests"]}


def test_a_workload_without_a_version_is_scored_from_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With a sentence, and without making a ledger."""
    done = asked(tmp_path, monkeypatch, "streamrec", "--json")
    marks = marks_of(done.stdout)

    assert done.exit_code == 0, done.output
    assert "No version of streamrec is registered" in json.loads(done.stdout)["notes"][0]
    assert marks["What features may be is written down and checked"] == scores.HALF
    assert marks["Training gives the same bits again"] == scores.NONE
    assert list(tmp_path.iterdir()) == []


def test_a_tampered_package_earns_nothing(
    package: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One byte changed after it was sealed, and none of its files is read."""
    home = tmp_path / "home"
    copied = dossiers.package(
        home / "package", dossiers.credit(), dossiers.inputs(tmp_path / "held"), dossiers.lineage()
    )
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    released(ledger, 1, copied)
    ledger.close()
    sound = asked(home, monkeypatch, "digits", "--json")
    card = copied.path / "card.json"
    card.write_text(card.read_text().replace('"holds": true', '"holds": true '))
    done = asked(home, monkeypatch, "digits", "--json")

    assert marks_of(sound.stdout)["Training gives the same bits again"] == scores.HALF
    assert marks_of(done.stdout)["Training gives the same bits again"] == scores.NONE
    assert marks_of(done.stdout)["Quality is judged before a model serves"] == scores.NONE
    assert "was altered" in json.loads(done.stdout)["notes"][0]


def test_an_altered_ledger_earns_nothing(
    package: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One that was written to behind its back says nothing that counts."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    released(ledger, 1, package)
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as behind:
        named = behind.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (trigger,) in named:
            behind.execute(f"DROP TRIGGER {trigger}")
        behind.execute("UPDATE entries SET at = '2020-01-01T00:00:00+00:00' WHERE sequence = 5")
        behind.commit()
    done = asked(tmp_path, monkeypatch, "digits", "--json")

    assert "The ledger gives no credit" in json.loads(done.stdout)["notes"][0]
    assert marks_of(done.stdout)["Few users see a model before all do"] == scores.NONE


def test_a_signed_contract_is_the_one_in_the_package(pieces: dict[str, Piece]):
    """Signed is that very document, not another one."""
    asks = "Features keep the rules that are set for them"
    contract = {"definitions": "sha256:feed", "columns": []}
    entry = replace(
        pieces["entry:2"].document, kind="contract", body={"document": contract}, version=None
    )
    held = {**pieces, "entry:99": Piece(entry, "ledger entry 99")}

    signed = {**held, "package:contract.json": Piece(contract, "contract")}
    other = {**held, "package:contract.json": Piece({**contract, "columns": [1]}, "contract")}

    for given_pieces, mark in ((signed, scores.WHOLE), (other, scores.HALF), (held, scores.HALF)):
        assert {m.item.asks: m.mark for m in scores.score(given_pieces).marked}[asks] == mark


def test_a_drill_is_a_return_that_was_timed(pieces: dict[str, Piece]):
    """A version that was archived without users on it is no drill."""
    asks = "Users return to the model before, quickly and safely"
    moved = pieces[max(pieces, key=lambda n: int(n[6:]) if n.startswith("entry:") else 0)].document
    back = {"to": "ARCHIVED", "reason": "errors", "evidence": {"milliseconds": 21.0}}
    drilled = replace(moved, body=back)
    idle = replace(moved, body={**back, "evidence": {}})

    for entry, mark in ((drilled, scores.WHOLE), (idle, scores.HALF)):
        held = {**pieces, "entry:99": Piece(entry, "ledger entry 99")}
        assert {m.item.asks: m.mark for m in scores.score(held).marked}[asks] == mark


def test_one_screen_and_one_page_say_the_same(
    package: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every test with its mark; the page needs nothing else."""
    out = tmp_path / "score.html"
    monkeypatch.setenv("COLUMNS", "240")
    done = asked(tmp_path, monkeypatch, "digits", "--package", str(package.path), "--out", str(out))
    page = out.read_text(encoding="utf-8")

    assert done.exit_code == 0, done.output
    for item in ITEMS:
        assert item.asks in done.stdout
        assert item.asks in page
    assert len(done.stdout.splitlines()) < 50
    assert "src=" not in page
    assert load_data("digits").title in page
