"""An export is verified without the database, and whoever changes or shortens it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.ledger import (
    Actor,
    Broken,
    Head,
    Ledger,
    NotEnrolled,
    Stage,
    export,
    export_broken,
    verify_export,
)
from penstock.ledger.entry import canonical
from penstock.ledger.export import SIGNING
from tests.ledger.conftest import Place
from tests.ledger.steps import move, note, promote, register
from tests.people import person

ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def whole(ledger: Ledger) -> Ledger:
    """A ledger of eight entries: 1 enrols, 2 registers, 3-6 promote, 7 registers, 8 stages."""
    promote(ledger, 1)
    register(ledger, 2, keep_until="2033-01-05")
    move(ledger, 2, Stage.STAGING)
    return ledger


def test_an_export_verifies_without_the_database(whole: Ledger, tmp_path: Path):
    """Each line is an entry; the last says where it ends and until when it is kept."""
    out = tmp_path / "out" / "ledger.jsonl"
    written = export(whole, out, actor=person())

    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["sequence"] for line in lines[:-1]] == list(range(1, 9))
    assert lines[1]["body"] == {"package": "packages/1"}
    assert lines[-1].pop("signature")
    assert lines[-1] == {
        "end": written.head._asdict(),
        "keep_until": "2033-01-05",
        "exporter": "tester",
        "key_id": person().key_id,
    }
    read = verify_export(out)
    assert (read.head, read.keep_until) == (whole.head(), "2033-01-05")
    assert [p.name for p in out.parent.iterdir()] == ["ledger.jsonl"]


CHANGES: list[tuple[str, Callable[[list[str]], list[str]], int]] = [
    ("a body edited", lambda x: [x[0], x[1].replace("packages/1", "packages/9"), *x[2:]], 2),
    ("a line removed", lambda x: x[:3] + x[4:], 4),
    ("lines exchanged", lambda x: [*x[:2], x[3], x[2], *x[4:]], 3),
    ("a line doubled", lambda x: [*x[:3], x[2], *x[3:]], 4),
    ("cut", lambda x: x[:5], 6),
    ("cut within a line", lambda x: [*x[:5], x[5][:40]], 6),
    ("the end removed", lambda x: [*x[:6], x[-1]], 7),
    ("more behind the end", lambda x: [*x, x[-2]], 9),
    ("no JSON", lambda x: ["", *x], 1),
    ("another document", lambda x: ["[1]", *x], 1),
    ("spaces", lambda x: [x[0].replace(",", ", ", 1), *x[1:]], 1),
    ("a field twice", lambda x: [x[0].replace("{", '{"actor":"eve",', 1), *x[1:]], 1),
    ("a field more", lambda x: [x[0].replace("{", '{"note":"",', 1), *x[1:]], 1),
    ("a wrong end", lambda x: [*x[:-1], '{"end":{"sequence":"x"}}'], 9),
]


@ON_SQLITE
def test_an_export_that_was_changed_is_found(whole: Ledger, tmp_path: Path):
    """Edited, cut, reordered, or written in another way."""
    out = tmp_path / "ledger.jsonl"
    export(whole, out, actor=person())
    lines = out.read_text().splitlines()

    for what, change, sequence in CHANGES:
        out.write_text("\n".join(change(lines)) + "\n")
        with pytest.raises(Broken) as found:
            verify_export(out)
        assert found.value.sequence == sequence, (what, str(found.value))


@ON_SQLITE
def test_an_export_is_held_against_a_head_that_is_known(whole: Ledger, tmp_path: Path):
    """A whole export of a ledger before it grew, or of another ledger, does not reach it."""
    out = tmp_path / "ledger.jsonl"
    export(whole, out, actor=person())
    assert verify_export(out, head=whole.head()).head == whole.head()
    note(whole)

    with pytest.raises(Broken, match="seen to reach entry 9"):
        verify_export(out, head=whole.head())
    with pytest.raises(Broken, match="entry 3: it was replaced"):
        verify_export(out, head=Head(3, "0" * 64))


@ON_SQLITE
def test_a_broken_ledger_is_not_exported(whole: Ledger, place: Place, tmp_path: Path):
    """Neither in part nor as if it were whole; and an older export is never written over."""
    folder = tmp_path / "out"
    export(whole, folder / "good.jsonl", actor=person())
    before = (folder / "good.jsonl").read_bytes()
    place.unguard()
    place.execute("UPDATE entries SET at = 'then' WHERE sequence = 7")

    with pytest.raises(Broken, match="entry 7"):
        export(whole, folder / "bad.jsonl", actor=person())
    with pytest.raises(ValueError, match="exists; name a file that does not"):
        export(whole, folder / "good.jsonl", actor=person())

    assert [p.name for p in folder.iterdir()] == ["good.jsonl"]
    assert (folder / "good.jsonl").read_bytes() == before


def ended(lines: list[str], actor: Actor | None = None, **over: object) -> list[str]:
    """Return the lines with the last one rewritten, and signed by an actor as it is then."""
    said = {**json.loads(lines[-1]), **over}
    del said["signature"]
    signed = {**said, "signature": (actor or person()).sign(SIGNING + canonical(said).encode())}
    return [*lines[:-1], canonical(signed)]


@ON_SQLITE
def test_the_last_line_is_what_its_exporter_signed(whole: Ledger, tmp_path: Path):
    """Neither another keeping time nor fewer entries, unless an actor of the ledger signs that."""
    out, eve = tmp_path / "ledger.jsonl", person("eve")
    export(whole, out, actor=person())
    lines = out.read_text().splitlines()
    fifth = json.loads(lines[4])
    shorter = {"sequence": 5, "hash": fifth["hash"]}
    cut = [*lines[:5], lines[-1]]
    name = {"exporter": "eve", "key_id": eve.key_id}

    for made, sequence, said in (
        ([*lines[:-1], lines[-1].replace("2033", "2027")], 9, "not what tester signed"),
        ([*cut[:-1], canonical({**json.loads(cut[-1]), "end": shorter})], 6, "not what tester"),
        (ended(cut, end=shorter, keep_until=None, actor=eve), 6, "not what tester signed"),
        (ended(cut, end=shorter, keep_until=None, actor=eve, **name), 6, "eve is not enrolled"),
        (ended(lines, keep_until="2027-01-05"), 9, "another keep_until"),
        ([*lines[:-1], lines[-1].replace(",", ", ", 1)], 9, "not what tester signed"),
    ):
        out.write_text("\n".join(made) + "\n")
        with pytest.raises(Broken, match=said) as found:
            verify_export(out)
        assert found.value.sequence == sequence

    out.write_text("\n".join(ended(cut, end=shorter, keep_until=None)) + "\n")
    assert verify_export(out).head.sequence == 5
    with pytest.raises(Broken, match="seen to reach entry 8"):
        verify_export(out, head=whole.head())


@ON_SQLITE
def test_a_stranger_cannot_export(whole: Ledger, tmp_path: Path):
    """Its signature would be worth nothing, so no file is written."""
    with pytest.raises(NotEnrolled, match="eve is not enrolled"):
        export(whole, tmp_path / "ledger.jsonl", actor=person("eve"))

    assert not (tmp_path / "ledger.jsonl").exists()


@ON_SQLITE
def test_a_broken_ledger_is_kept_and_never_believed(whole: Ledger, place: Place, tmp_path: Path):
    """What is there is written as it is; verifying says what is wrong; a whole one is refused."""
    with pytest.raises(ValueError, match="the ledger verifies; leave out --broken"):
        export_broken(whole, tmp_path / "whole.jsonl")
    place.unguard()
    place.execute("UPDATE entries SET body = '{ torn' WHERE sequence = 7")
    out = tmp_path / "found.jsonl"

    found = export_broken(whole, out)

    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["sequence"] for line in lines[:-1]] == list(range(1, 9))
    assert lines[6]["body"] == "{ torn"
    assert (lines[-1]["broken"]["sequence"], lines[-1]["broken"]["problem"]) == (7, "hash")
    with pytest.raises(Broken) as refused:
        verify_export(out)
    assert str(refused.value) == f"{found} This is the export of a broken ledger."
    assert sorted(p.name for p in tmp_path.glob("*.jsonl")) == ["found.jsonl"]
