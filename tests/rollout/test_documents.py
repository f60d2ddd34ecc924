"""Laws of documents: kept by their hash, and none where it was altered, failed or made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.bundle import Bundle, write_json
from penstock.ledger import Ledger
from penstock.rollout import documents, prohibited
from penstock.rollout.documents import attach, lacking, newest
from penstock.stage import Refused
from penstock.workload import load
from tests.bundles import bundle
from tests.people import person
from tests.rollout.markets import Story

REQUIRED = ("dpia", "human-review")


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Ledger, Story]]:
    """A ledger in which versions 3 and 4 are registered."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    story = Story(ledger)
    story.register(3)
    story.register(4)
    yield ledger, story
    ledger.close()


def attached(
    told: tuple[Ledger, Story], home: Path, name: str, text: str, version: int = 3, **named: Any
) -> Any:
    """Attach a document of some text."""
    file = home / "given.pdf"
    file.write_text(text)
    who = {"actor": person("robot"), "now": told[1].now}
    return attach(home, told[0], "credit", version, name, file, **who, **named)


def missing(told: tuple[Ledger, Story], version: int = 3) -> tuple[str, ...]:
    """Return what lacks."""
    return lacking(told[0].entries("credit"), version, REQUIRED)


def test_what_is_required_lacks_until_it_is_attached(told: tuple[Ledger, Story], tmp_path: Path):
    """Each by its name, to its version, and in the order in which it is asked for."""
    assert missing(told) == tuple(f"{n}: it was never attached" for n in REQUIRED)

    attached(told, tmp_path, "human-review", "a route")
    attached(told, tmp_path, "dpia", "of another version", version=4)
    assert missing(told) == ("dpia: it was never attached",)

    attached(told, tmp_path, "dpia", "an assessment")
    assert missing(told) == ()
    assert lacking(told[0].entries("credit"), 3, ()) == ()


@pytest.mark.parametrize("what", ["altered", "gone", "emptied"])
def test_a_copy_that_is_not_what_was_attached_lacks(
    told: tuple[Ledger, Story], tmp_path: Path, what: str
):
    """Whatever became of it; attaching it again mends it."""
    for name in REQUIRED:
        attached(told, tmp_path, name, f"the {name}")
    copy = Path(newest(told[0].entries("credit"), 3)["dpia"].body["file"])
    copy.chmod(0o644)
    if what == "gone":
        copy.unlink()
    else:
        copy.write_text("" if what == "emptied" else "the dpia!")

    assert len(missing(told)) == 1
    assert missing(told)[0].startswith("dpia: its copy ")

    attached(told, tmp_path, "dpia", "the dpia")
    assert missing(told) == ()


def test_the_newest_of_a_name_counts(told: tuple[Ledger, Story], tmp_path: Path):
    """The one before stays below the home, under its own hash."""
    first = attached(told, tmp_path, "dpia", "draft")
    second = attached(told, tmp_path, "dpia", "final")

    assert newest(told[0].entries("credit"), 3)["dpia"].sequence == second.sequence
    assert Path(first.body["file"]).read_text() == "draft"
    assert Path(second.body["file"]).name == f"{second.body['sha256']}.pdf"


@pytest.mark.parametrize("outcome", ["fail", "error", "inconclusive"])
def test_the_result_of_a_check_counts_only_as_a_pass(
    told: tuple[Ledger, Story], tmp_path: Path, outcome: str
):
    """A document that says no is no document."""
    attached(told, tmp_path, "human-review", "a route")
    attached(told, tmp_path, "dpia", "{}", outcome=outcome)
    assert missing(told) == (f"dpia: its outcome is {outcome}",)

    attached(told, tmp_path, "dpia", "{}", outcome="pass")
    assert missing(told) == ()


def test_the_check_of_features_is_computed_or_lacks(told: tuple[Ledger, Story], tmp_path: Path):
    """A file that somebody wrote says nothing of what the version reads."""
    attached(told, tmp_path, prohibited.NAME, "fine", outcome="pass")
    entries = told[0].entries("credit")
    assert "attached by hand" in lacking(entries, 3, (prohibited.NAME,))[0]

    attached(told, tmp_path, prohibited.NAME, "{}", outcome="pass", computed=True)
    assert lacking(told[0].entries("credit"), 3, (prohibited.NAME,)) == ()


def test_what_cannot_be_kept_is_refused(
    told: tuple[Ledger, Story], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No file, an empty or too large one, no name, no version: a sentence, and no entry."""
    monkeypatch.setattr(documents, "LARGEST_BYTES", 4)
    before = told[0].head()
    who = {"actor": person("robot"), "now": told[1].now}

    with pytest.raises(Refused, match="is no file"):
        attach(tmp_path, told[0], "credit", 3, "dpia", tmp_path, **who)
    for text in ("", "12345"):
        with pytest.raises(Refused, match="a document has 1 to 4"):
            attached(told, tmp_path, "dpia", text)
    for name in ("../dpia", "", "DPIA", "a" * 50):
        with pytest.raises(Refused, match="no name of a document"):
            attached(told, tmp_path, name, "x")
    with pytest.raises(LookupError, match="version 9 is not in the ledger"):
        attached(told, tmp_path, "dpia", "x", version=9)
    assert told[0].head() == before


def package(path: Path, *, served: list[str], promised: list[str]) -> Bundle:
    """Return a package as far as it says what it reads."""

    def make(folder: Path) -> None:
        write_json(folder / "serving.json", {"features": [{"name": n} for n in served]})
        write_json(folder / "contract.json", {"schema": [{"name": n} for n in promised]})

    return bundle(path, "package", make)


@pytest.mark.parametrize(
    ("served", "promised", "found"),
    [
        (["bill", "use"], ["client_id"], {}),
        (["bill", "sex"], [], {"sex": ["sex"]}),
        (["bill"], ["Age"], {"Age": ["age"]}),
        (["log_age", "education_years"], [], {"log_age": ["age"],
                                              "education_years": ["education"]}),
        (["usage", "average_bill", "sextant"], [], {}),
    ],
)  # fmt: skip
def test_a_prohibited_feature_is_found_by_its_words(
    tmp_path: Path, served: list[str], promised: list[str], found: dict[str, list[str]]
):
    """Served or promised, in a longer name too; a name that merely holds its letters is not."""
    held = package(tmp_path / "p", served=served, promised=promised)

    result = prohibited.check(load("credit"), held)

    assert result["found"] == found
    assert result["outcome"] == ("fail" if found else "pass")
    assert result["package"] == held.digest


@settings(deadline=None)
@given(
    words=st.lists(st.sampled_from(["net", "worth", "home", "town", "late"]), min_size=1),
    banned=st.lists(st.sampled_from(["net", "worth", "home", "town", "late"]), min_size=1),
)
def test_words_that_follow_one_another_are_found(words: list[str], banned: list[str]):
    """A prohibited name of several words is found where those words stand together, as a text."""
    found = prohibited._named_in("_".join(words), ["_".join(banned)])

    assert bool(found) == (f"_{'_'.join(banned)}_" in f"_{'_'.join(words)}_")


def test_further_names_are_prohibited_on_request_and_nothing_is_not(tmp_path: Path):
    """Without any prohibited name a check would pass whatever is read, so it is refused."""
    held = package(tmp_path / "p", served=["marriage"], promised=[])
    declared = replace(load("credit"), prohibited=())

    assert prohibited.check(load("credit"), held)["outcome"] == "fail", "credit declares it"
    assert prohibited.check(declared, held)["outcome"] == "pass"
    assert prohibited.check(declared, held, also=["marriage"])["outcome"] == "fail"
    with pytest.raises(Refused, match="declares no sensitive attribute"):
        prohibited.check(load("digits"), held)
