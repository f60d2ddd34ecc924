"""Laws of the ML Test Score: marks come from evidence that was verified, and only from it."""

from __future__ import annotations

import hashlib
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

from penstock.bundle import Bundle, BundleError, write_json
from penstock.cli import score as command
from penstock.ledger import MOVED, REGISTERED, Entry, Ledger, Stage
from penstock.ledger.standing import standings
from penstock.register import featurecontract
from penstock.register import score as scores
from penstock.register.claims import IN_FORCE, STEP_LEFT, UNPROVEN, Piece
from penstock.register.rubric import ITEMS, Section
from penstock.verdict import Outcome
from penstock.workload import load, load_data
from tests import bundles
from tests.bundles import NOW
from tests.people import person
from tests.register import dossiers
from tests.rollout import carried as releases

ROOT = Path(__file__).parents[2]
MARKS = (scores.NONE, scores.HALF, scores.WHOLE)


def passing(*names: str) -> dict[str, Any]:
    """Return a release step's verdict with a passing check of each name."""
    rows = [{"name": n, "outcome": "pass", "reason": "so", "value": None, "limit": None}
            for n in names]  # fmt: skip
    return {"outcome": "pass", "checks": rows}


def left(percent: float, **checks: str) -> dict[str, Any]:
    """Return the intent with which a step is left, with a passing check of each name and role."""
    rows = [{"name": name, "role": role} for name, role in checks.items()]
    return {"release": "digits/2/all/1", "n": 3, "action": "enter", "share_percent": percent,
            "verdict": passing(*checks), "rows": rows}  # fmt: skip


def released(ledger: Ledger, version: int, package: Bundle, *, percent: int = 10) -> None:
    """Write what a release leaves: registered, through every stage, with the steps' verdicts."""
    actor, name = person(), "digits"
    body = {"fingerprint": package.fingerprint, "digest": package.digest,
            "package": str(package.path), "rehearsal": None}  # fmt: skip
    ledger.append(workload=name, version=version, kind=REGISTERED, body=body, actor=actor, now=NOW)
    for stage in (Stage.STAGING, Stage.SHADOW, Stage.CANARY):
        ledger.move(workload=name, version=version, to=stage, reason="t", actor=actor, now=NOW)
    step = left(percent, errors="errors", slow="latency", clicks="primary")
    ledger.append(workload=name, version=version, kind=STEP_LEFT, body=step, actor=actor, now=NOW)
    ledger.move(
        workload=name, version=version, to=Stage.PRODUCTION, reason="t", actor=actor, now=NOW
    )


def marks_in(pieces: dict[str, Piece]) -> dict[str, float]:
    """Return every test's mark."""
    return {m.item.asks: m.mark for m in scores.score(pieces).marked}


def entry_of(pieces: dict[str, Piece], **over: Any) -> Entry:
    """Return an entry of no particular kind, far behind those that there are."""
    plain: Entry = pieces["entry:2"].document
    named: dict[str, Any] = {"sequence": 99, "kind": "note", "origin": None, "target": None}
    return replace(plain, **{**named, **over})


def with_entries(pieces: dict[str, Piece], *entries: Entry) -> dict[str, Piece]:
    """Return the evidence with more entries, numbered as they come."""
    numbered = enumerate((replace(e, sequence=n) for n, e in enumerate(entries, 99)), 99)
    return {**pieces, **{f"entry:{n}": Piece(e, f"ledger entry {n}") for n, e in numbered}}


def committed(root: Path, files: dict[str, str]) -> str:
    """Write files into a new repository; return its commit."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "x")):
        subprocess.run(["git", *words], cwd=root, check=True)
    head = ["git", "rev-parse", "HEAD"]
    return subprocess.run(head, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def sealed(path: Path, **files: Any) -> Bundle:
    """Return a package that holds some JSON files and nothing else."""

    def fill(folder: Path) -> None:
        for name, document in files.items():
            file = folder / f"{name.replace('__', '/')}.json"
            file.parent.mkdir(exist_ok=True)
            write_json(file, document)

    return bundles.bundle(path, "package", fill)


def traced(path: Path, record: dict[str, Any]) -> Bundle:
    """Return a package that holds a lineage and nothing else."""
    return sealed(path, lineage=record)


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
    return scores.gather(load("digits"), package, entries, standing={}, root=ROOT)


def test_the_rubric_has_its_28_tests():
    """Seven in each section, no two alike."""
    assert Counter(item.section for item in ITEMS) == dict.fromkeys(Section, 7)
    assert len({item.asks for item in ITEMS}) == 28


def test_a_released_version_earns_what_it_shows(pieces: dict[str, Piece]):
    """Canary, budgets held in release and before, quality on slices: whole; by hand: half."""
    marks = marks_in(pieces)

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
        held = scores.gather(
            load("digits"), package, ledger.entries("digits"), standing={}, root=ROOT
        )
    finally:
        ledger.close()
    marks = marks_in(held)

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
        found = scores.gather(
            load("digits"), package, ledger.entries("digits"), standing={}, root=ROOT
        )
    finally:
        ledger.close()
    marks = marks_in(found)

    assert marks["Few users see a model before all do"] == scores.HALF


def test_the_tests_of_another_commit_are_not_the_versions(package: Bundle, tmp_path: Path):
    """Made from changes that no commit holds, a version shares no test of the repository."""
    record = dossiers.lineage(code={"git": "0123abcd+changes", "sources": "sha256:5"})
    held = dossiers.inputs(tmp_path / "held")
    changed = dossiers.package(tmp_path / "package", dossiers.credit(), held, record)
    pieces = scores.gather(load("digits"), changed, [], standing={}, root=ROOT)
    marks = marks_in(pieces)

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


def test_a_signed_contract_is_the_one_in_the_package(tmp_path: Path):
    """Signed is that very document, by somebody who may; not another, not by anybody."""
    asks, declared = "Features keep the rules that are set for them", load("digits")
    contract = featurecontract.compose(declared, definitions="sha256:feed")
    rules = dossiers.DOCUMENTS["data-verdict"]["verdict.json"]
    signed = sealed(tmp_path / "p", contract=contract, **{"verdicts__data-verdict": rules})
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        released(ledger, 1, signed)
        other = {**contract, "holder": "another"}
        featurecontract.sign(ledger, declared, other, actor=person(), now=NOW)
        before = ledger.entries("digits")
        featurecontract.sign(ledger, declared, contract, actor=person(), now=NOW)
        entries = ledger.entries("digits")
        standing = standings(ledger)
    finally:
        ledger.close()

    for given_entries, worth, mark in (
        (entries, standing, scores.WHOLE),
        (before, standing, scores.HALF),
        (entries, {}, scores.HALF),
    ):
        found = scores.gather(declared, signed, given_entries, standing=worth, root=ROOT)
        assert marks_in(found)[asks] == mark


def test_what_the_controller_writes_is_what_counts(tmp_path: Path):
    """A release by canary and one that was rolled back, as the real controller records them."""
    for says, asks in (
        (releases.well, "Few users see a model before all do"),
        (
            lambda state: Outcome.FAIL if state.step else Outcome.PASS,
            "Users return to the model before, quickly and safely",
        ),
    ):
        made = releases.Release(folder=tmp_path / asks[:3], says=says)
        made.folder.mkdir()
        made.open()
        made.carry()
        ledger = made.ledger()
        entries = ledger.entries("digits")
        ledger.close()
        found = scores.gather(load("digits"), None, entries, standing={}, root=tmp_path)
        assert marks_in(found)[asks] == scores.HALF
        found["registered"] = Piece(2, "the ledger")
        assert marks_in(found)[asks] == scores.WHOLE


INTENT = {"release": "digits/2/all/1", "n": 5}
BACK = {"to": "ARCHIVED", "reason": "errors", "evidence": INTENT}
STEP = left(9.375, errors="errors", clicks="primary")
BAD = [{**check, "outcome": "fail"} for check in STEP["verdict"]["checks"]]
ENDLESS = [{**check, "value": 10**400} for check in STEP["verdict"]["checks"]]
MEANT = {"version": 2, "kind": STEP_LEFT, "body": {**INTENT, "action": "roll back"}}
CONFIRMED = {"version": 2, "kind": IN_FORCE, "body": {**INTENT, "milliseconds": 21.0}}
ARCHIVED = {"version": 2, "kind": MOVED, "origin": "CANARY", "target": "ARCHIVED", "body": BACK}
END = {"kind": MOVED, "origin": "CANARY", "target": "PRODUCTION", "body": {"to": "PRODUCTION"}}
FORGED: dict[str, list[dict[str, Any]]] = {
    "a note that reads like a rollback": [MEANT, {**ARCHIVED, "kind": "note"}, CONFIRMED],
    "a rollback that a note confirms": [MEANT, ARCHIVED, {**CONFIRMED, "kind": "note"}],
    "a rollback that no controller timed": [
        MEANT, ARCHIVED, {**CONFIRMED, "body": {**INTENT, "milliseconds": None}}
    ],
    "a rollback that was never read back": [MEANT, ARCHIVED],
    "the reading of another intent": [
        MEANT, ARCHIVED, {**CONFIRMED, "body": {**CONFIRMED["body"], "n": 6}}
    ],
    "a rollback that nobody meant": [
        {**MEANT, "body": {**INTENT, "action": "step back"}}, ARCHIVED, CONFIRMED
    ],
    "a rollback before any user came": [MEANT, {**ARCHIVED, "origin": "SHADOW"}, CONFIRMED],
    "a step back that reads like a step": [
        {"version": 2, "kind": STEP_LEFT, "body": {**STEP, "action": "step back"}},
        {"version": 2, **END},
    ],
    "notes that read like steps": [{"version": 2, "body": STEP}, {"version": 2, **END}],
    "a step of a version that was not promoted": [{"version": 2, "kind": STEP_LEFT, "body": STEP}],
    "a step that comes after the end": [
        {"version": 2, **END}, {"version": 2, "kind": STEP_LEFT, "body": STEP}
    ],
    "a step in the shadow": [
        {"version": 2, "kind": STEP_LEFT, "body": {**STEP, "share_percent": 0}},
        {"version": 2, **END},
    ],
    **{
        name: [
            {"version": 2, "kind": STEP_LEFT, "body": {**STEP, "verdict": verdict}},
            {"version": 2, **END},
        ]
        for name, verdict in {
            "a step that failed": {"outcome": "fail", "checks": BAD},
            "a pass whose checks failed": {"outcome": "pass", "checks": BAD},
            "a pass without checks": {"outcome": "pass", "checks": []},
            "a number that no float holds": {"outcome": "pass", "checks": ENDLESS},
        }.items()
    },
    **{
        f"a share of {share!r}": [
            {"version": 2, "kind": STEP_LEFT, "body": {**STEP, "share_percent": share}},
            {"version": 2, **END},
        ]
        for share in (None, "ten", True, [10])
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_what_only_reads_like_evidence_earns_nothing(pieces: dict[str, Piece], name: str):
    """Kind, stages, order and the controller's own confirmation must agree."""
    forged = [entry_of(pieces, **over) for over in FORGED[name]]

    assert marks_in(with_entries(pieces, *forged)) == marks_in(pieces)


def test_two_releases_with_outcomes_are_half_of_a_comparison(pieces: dict[str, Piece]):
    """The same entries as the forged ones, in their kind and order, do count."""
    asks = "Metrics before release move with what users then get"
    step = entry_of(pieces, version=2, kind=STEP_LEFT, body=STEP)
    held = with_entries(pieces, step, entry_of(pieces, version=2, **END))
    meant, archived, confirmed = (entry_of(pieces, **e) for e in (MEANT, ARCHIVED, CONFIRMED))
    back = with_entries(pieces, meant, archived, confirmed)

    assert marks_in(pieces)[asks] == scores.NONE
    assert marks_in(held)[asks] == scores.HALF
    returned = "Users return to the model before, quickly and safely"
    assert marks_in(back)[returned] == scores.WHOLE > marks_in(pieces)[returned]


WORDS = ("share_percent", "action", "release", "n", "enter", "rows", "role", "verdict", "outcome",
         "checks", "name", "evidence", "milliseconds", "to",
         "digest", "document", "pass", "ARCHIVED", "training", "trials", "slices", "files",
         "fairness", "equivalence", "features", "environment", "libraries")  # fmt: skip
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(allow_nan=False),
    st.sampled_from(WORDS),
)  # fmt: skip
JSON = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)
KINDS = st.sampled_from((STEP_LEFT, MOVED, IN_FORCE, REGISTERED, "contract", "release", "note"))


@given(body=JSON, kind=KINDS, version=st.sampled_from((None, 1, 2)), stage=st.sampled_from(Stage))
@settings(max_examples=300)
def test_a_malformed_body_earns_nothing(
    pieces: dict[str, Piece], body: Any, kind: str, version: int | None, stage: Stage
):
    """Whatever an entry holds, the score ends and is what it was."""
    target = stage if kind == MOVED else None
    entry = entry_of(pieces, kind=kind, version=version, body=body, target=target)
    held = with_entries(pieces, entry)

    assert marks_in(held) == marks_in(pieces)
    scores.choose([entry])


@given(document=JSON)
@settings(max_examples=200)
def test_no_document_stops_the_score(document: Any):
    """Each file of a package may hold any JSON."""
    names = ("card", "scores", "serving", "lineage", "contract", "verdicts/gate")
    held = {f"package:{name}.json": Piece(document, "odd") for name in names}
    lock = Piece({"sha256": "10cc", "pins": {}}, "lock")
    held |= {"tree:lock": lock, "commit:sources": Piece({}, "commit")}

    assert set(marks_in(held).values()) <= set(MARKS)


@pytest.mark.parametrize("body", [{"percent": None}, {"percent": "ten", "verdict": 3}, {}])
def test_one_odd_entry_does_not_end_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
):
    """The ledger keeps it for good, so it must be read over."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    for kind in (REGISTERED, STEP_LEFT):
        ledger.append(workload="digits", version=1, kind=kind, body=body, actor=person(), now=NOW)
    ledger.close()
    done = asked(tmp_path, monkeypatch, "digits", "--json")

    assert done.exit_code == 0, done.output
    assert "names no folder" in json.loads(done.stdout)["notes"][0]


EMPTY = {
    **dict.fromkeys(scores.TESTS, ""),
    "tests/features/test_features.py": "# from workloads.digits import data\ndef test_a(): f()",
    "tests/workloads/test_networks.py": "from workloads.digits.model import build\n",
    "tests/train/test_train.py": "from workloads.digits.model import build\ndef test_a(): pass\n",
}
WRITTEN = {
    **dict.fromkeys(scores.TESTS, "def test_a():\n    assert f()\n"),
    "tests/features/test_features.py": "from workloads.digits import data\ndef test_a(): f()",
    "tests/train/test_train.py": "import workloads.digits.model\ndef test_a(): assert f()",
}
CODE = ("The whole pipeline has an integration test", "A new feature is added quickly",
        "The code that makes features is tested", "The code of the model has unit tests",
        "Users return to the model before, quickly and safely")  # fmt: skip


@pytest.mark.parametrize(
    ("files", "mark"), [(EMPTY, scores.NONE), (WRITTEN, scores.HALF)], ids=["empty", "written"]
)
def test_a_test_that_nobody_saw_pass_is_half_and_an_empty_one_nothing(
    tmp_path: Path, files: dict[str, str], mark: float
):
    """Names and comments are no tests; a commit that holds some is no record of their passing."""
    root = tmp_path / "repository"
    revision = committed(root, files)
    held = traced(tmp_path / "package", dossiers.lineage(code={"git": revision}))
    found = scores.gather(load("digits"), held, [], standing={}, root=root)
    found["registered"] = Piece(1, "the ledger")
    marked = {m.item.asks: m for m in scores.score(found).marked}

    assert {marked[asks].mark for asks in CODE} == {mark}
    for asks in CODE if mark else ():
        assert UNPROVEN in (marked[asks].evidence or "")
        assert revision[:12] in (marked[asks].evidence or "")


def test_a_commit_counts_if_it_holds_what_the_model_was_made_of(tmp_path: Path):
    """The hashes that lineage has of the model's sources, not a file of that name."""
    asks = "Every change of the model is reviewed and in version control"
    text, name = "def build(): ...\n", "workloads/digits/model.py"
    revision = committed(tmp_path / "repository", {name: text})
    same = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    for number, (files, mark) in enumerate(
        [({name: same}, scores.HALF), ({name: "sha256:5"}, scores.NONE), ({}, scores.NONE)]
    ):
        record = dossiers.lineage(code={"git": revision}, files=files)
        held = traced(tmp_path / str(number), record)
        found = scores.gather(load("digits"), held, [], standing={}, root=tmp_path / "repository")
        assert marks_in(found)[asks] == mark


def test_a_package_that_nobody_registered_earns_no_whole_mark(
    package: Bundle, pieces: dict[str, Piece]
):
    """Whoever writes a package seals it, so it cannot vouch for itself."""
    alone = scores.gather(load("digits"), package, [], standing={}, root=ROOT)
    told = {m.item.asks: m.evidence for m in scores.score(alone).marked}
    asks = "What features may be is written down and checked"

    assert marks_in(pieces)[asks] == scores.WHOLE
    assert max(marks_in(alone).values()) == scores.HALF
    assert "not registered" in (told[asks] or "")


def test_the_bytes_of_one_version_are_not_another(package: Bundle, tmp_path: Path):
    """A package belongs to the version that the ledger has it under."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    try:
        released(ledger, 1, package)
        entries = ledger.entries("digits")
    finally:
        ledger.close()

    assert scores.opened(package.path, entries, version=1).digest == package.digest
    with pytest.raises(BundleError, match="of version 2"):
        scores.opened(package.path, entries, version=2)


LOCKED = {"lock": "10cc", "libraries": {"Torch_x": "2.13.0+cpu"}, "seen_at": "training"}


@pytest.mark.parametrize(
    ("environment", "mark"),
    [
        (LOCKED, scores.WHOLE),
        ({**LOCKED, "libraries": {"Torch_x": "2.12.0"}}, scores.HALF),
        ({**LOCKED, "libraries": {}}, scores.HALF),
        ({**LOCKED, "seen_at": "registration"}, scores.HALF),
        ({**LOCKED, "lock": "20cc"}, scores.HALF),
    ],
)
def test_a_lock_file_says_nothing_of_what_is_installed(
    pieces: dict[str, Piece], environment: dict[str, Any], mark: float
):
    """The libraries of the training are held against what the lock pins."""
    lock = Piece({"sha256": "10cc", "pins": {"torch-x": "2.13.0", "numpy": "2.4.6"}}, "lock")
    record = Piece(dossiers.lineage(environment=environment), "lineage")
    held = {**pieces, "tree:lock": lock, "package:lineage.json": record}

    assert marks_in(held)["Training gives the same bits again"] == mark


ONLY_NAMED: dict[str, tuple[str, Any]] = {
    "Hyper-parameters are tuned": ("card.json", {"training": {"trials": 1}}),
    "Quality is enough on every slice that matters": (
        "scores.json", {"slices": [{"name": "few", "n": 0, "outcome": "pass"}]}
    ),
    "Nobody is treated worse for who they are": (
        "scores.json",
        {"fairness": [{"attribute": "sex", "groups": [], "adverse_impact_ratio": None,
                       "equal_opportunity_difference": None}]},
    ),
    "What holds of training data holds of requests": (
        "serving.json", {"features": [{"name": "x", "low": None, "high": None, "among": None}]}
    ),
}  # fmt: skip
MEASURED: dict[str, tuple[str, Any]] = {
    "Hyper-parameters are tuned": ("card.json", {"training": {"trials": 2}}),
    "Quality is enough on every slice that matters": (
        "scores.json", {"slices": [{"name": "few", "n": 41, "outcome": "pass"}]}
    ),
    "What holds of training data holds of requests": (
        "serving.json", {"features": [{"name": "x", "low": 0.0, "high": None, "among": None}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("asks", ONLY_NAMED)
def test_what_is_named_and_not_measured_earns_nothing(pieces: dict[str, Piece], asks: str):
    """One trial is no search, a slice without rows no quality, names alone no fairness."""
    name, document = ONLY_NAMED[asks]
    assert marks_in({**pieces, f"package:{name}": Piece(document, name)})[asks] == scores.NONE

    name, document = MEASURED.get(asks, ("scores.json", dossiers.scores()))
    assert marks_in({**pieces, f"package:{name}": Piece(document, name)})[asks] > scores.NONE


def test_a_file_that_is_no_json_is_no_evidence(tmp_path: Path):
    """A whole package may hold one; what is beside it is read all the same."""

    def fill(folder: Path) -> None:
        (folder / "card.json").write_text("{")
        write_json(folder / "lineage.json", dossiers.lineage())

    held = bundles.bundle(tmp_path / "package", "package", fill)
    found = scores.gather(load("digits"), held, [], standing={}, root=tmp_path)

    assert [name for name in found if name.startswith("package:")] == ["package:lineage.json"]


def test_the_screen_shows_what_a_package_says_and_does_not_obey_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Neither markup nor a terminal's control codes."""
    held = traced(tmp_path / "package", dossiers.lineage(rehearsal="[red]x[/blue]\x1b[2J\n\n"))
    done = asked(tmp_path, monkeypatch, "digits", "--package", str(held.path))

    assert done.exit_code == 0, done.output
    assert "[red]x[/blue]" in done.stdout
    assert "\x1b" not in done.stdout


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
