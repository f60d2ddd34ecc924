"""Whatever is altered, removed, replaced, reordered or put in is found, and the first is named."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import (
    Broken,
    Entry,
    Head,
    Ledger,
    LedgerError,
    Stage,
    chain,
)
from penstock.ledger.audit import audit
from penstock.ledger.entry import EMPTY, Draft, hash_of, sealed, signing_input
from penstock.ledger.roll import ENROLLED, enrolment_body
from tests.ledger.conftest import Place
from tests.ledger.steps import NOW, move, note, promote, register
from tests.people import person

Rows = list[dict[str, Any]]
EVE = person("eve")


@pytest.fixture
def whole(ledger: Ledger) -> Ledger:
    """A ledger of eight entries: 1 enrols, 2 registers, 3-6 promote, 7 registers, 8 stages."""
    promote(ledger, 1)
    register(ledger, 2, keep_until="2033-01-05")
    move(ledger, 2, Stage.STAGING)
    return ledger


@pytest.fixture
def rows(whole: Ledger) -> Rows:
    """Its rows, to be changed."""
    return list(whole.rows())


ON_SQLITE = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


def test_a_whole_chain_verifies(whole: Ledger):
    """What was appended verifies, and its length is returned."""
    assert whole.verify() == 8


@ON_SQLITE
@pytest.mark.parametrize("column", sorted(Entry.__dataclass_fields__))
def test_any_column_of_any_entry_that_is_altered_is_found(rows: Rows, column: str):
    """The entry named is the one that was altered."""
    for n in range(8):
        changed = [dict(row) for row in rows]
        changed[n][column] = _other(changed[n][column])

        with pytest.raises(Broken) as found:
            audit(changed)

        assert found.value.sequence == n + 1, (n, str(found.value))


def _other(value: Any) -> Any:
    """Return something like the value that is not it."""
    if value is None:
        return "x"
    if isinstance(value, int):
        return value + 1
    return value[:-1] + ("0" if value[-1:] != "0" else "1")


@ON_SQLITE
def test_a_body_that_means_the_same_but_reads_otherwise_is_found(rows: Rows):
    """The bytes are hashed, not what they mean."""
    rows[1]["body"] = rows[1]["body"].replace(":", ": ", 1)

    with pytest.raises(Broken, match=r"entry 2: it .* was edited after it was signed"):
        audit(rows)


@ON_SQLITE
def test_an_entry_that_is_removed_or_moved_is_found(rows: Rows):
    """Each removal in the middle and each exchange names the first place that is wrong."""
    for n in range(7):
        with pytest.raises(Broken) as found:
            audit(rows[:n] + rows[n + 1 :])
        assert (found.value.sequence, found.value.problem) == (n + 1, "order")

        with pytest.raises(Broken) as found:
            audit([*rows[:n], rows[n + 1], rows[n], *rows[n + 2 :]])
        assert (found.value.sequence, found.value.problem) == (n + 1, "order")


def resealed(rows: Rows, n: int, **over: Any) -> Rows:
    """Return the rows with entry n altered, and every hash from there on made to fit."""
    made, previous = rows[:n], rows[n]["previous"]
    for row in [{**rows[n], **over}, *rows[n + 1 :]]:
        fitted = {**row, "previous": previous}
        fitted["hash"] = previous = hash_of(fitted)
        made.append(fitted)
    return made


@ON_SQLITE
def test_hashes_that_are_made_to_fit_are_found_by_the_signature(rows: Rows):
    """Whoever rewrites the chain cannot sign it; whoever signs it otherwise has another key."""
    forged = resealed(rows, 4, at="2020-01-01T00:00:00+00:00")
    with pytest.raises(Broken, match="entry 5: tester did not sign it"):
        audit(forged)

    row = {**rows[4], "key_id": EVE.key_id}
    row["hash"] = hash_of(row)
    row["signature"] = EVE.sign(signing_input(row["hash"]))
    with pytest.raises(Broken, match="entry 5: tester signs with key") as found:
        audit([*rows[:4], row])
    assert found.value.problem == "actor"


def appended(rows: Rows, draft: Draft, actor: Any = None, count: int = 1) -> Rows:
    """Return the rows with more, well chained and well signed."""
    made = list(rows)
    for _ in range(count):
        after = Head(made[-1]["sequence"], made[-1]["hash"]) if made else EMPTY
        made.append(sealed(draft, after=after, actor=actor or person(), now=NOW))
    return made


NOTE = Draft(workload="digits", version=1, kind="note", body={"text": "another story"})


def to(stage: str) -> dict[str, str]:
    """Return the body of a move."""
    return {"to": stage, "reason": "t"}


SHADOW = Draft(
    workload="digits", version=2, kind="moved", origin="STAGING", target="SHADOW",
    body=to("SHADOW"),
)  # fmt: skip
EVES = enrolment_body("eve", EVE.public_key, ["admin"])


@ON_SQLITE
def test_an_entry_that_does_not_follow_the_last_is_found(rows: Rows):
    """Signed by an actor with a key, but after another story than this one."""
    row = sealed(SHADOW, after=Head(8, "f" * 64), actor=person(), now=NOW)

    with pytest.raises(Broken, match="entry 9: it does not follow the entry before it"):
        audit([*rows, row])


@ON_SQLITE
@pytest.mark.parametrize(
    ("draft", "actor", "problem"),
    [
        (replace(SHADOW, origin="CANARY", target="PRODUCTION"), None, "move"),
        (replace(SHADOW, origin="STAGING", target="CANARY", body=to("CANARY")), None, "move"),
        (replace(SHADOW, body=to("PRODUCTION")), None, "move"),
        (replace(SHADOW, origin="STAGING", target="moon", body=to("moon")), None, "move"),
        (replace(SHADOW, version=3, origin="NONE", target="STAGING", body=to("STAGING")), None,
         "move"),
        (Draft(workload="digits", version=2, kind="registered", body={}), None, "move"),
        (replace(SHADOW, body={"to": "SHADOW", "reason": " "}), None, "move"),
        (replace(SHADOW, body={"to": "SHADOW"}), None, "move"),
        (Draft(workload="digits", version=2, kind="note", body={}), EVE, "actor"),
        (Draft(workload="", version=None, kind=ENROLLED, subject="eve", body=EVES), EVE, "actor"),
        (Draft(workload="", version=None, kind=ENROLLED, subject="bob", body=EVES), None, "actor"),
        (Draft(workload="", version=None, kind=ENROLLED, subject="eve", body={}), None, "actor"),
    ],
)  # fmt: skip
def test_what_the_rules_do_not_have_is_found_though_it_is_signed(
    rows: Rows, draft: Draft, actor: Any, problem: str
):
    """An actor with a key, past library and guards: the chain is whole and the entry is not."""
    assert audit(appended(rows, SHADOW)).head.sequence == 9

    with pytest.raises(Broken) as found:
        audit(appended(rows, draft, actor))

    assert (found.value.sequence, found.value.problem) == (9, problem)


def test_a_chain_begins_by_enrolling_its_own_actor():
    """Not another, not without a key."""
    mine = enrolment_body("tester", person().public_key, ["admin"])
    first = Draft(workload="", version=None, kind=ENROLLED, subject="tester", body=mine)
    assert audit(appended([], first)).head.sequence == 1

    for wrong in (
        replace(first, body=EVES),
        replace(first, subject="eve", body=EVES),
        replace(first, body={**mine, "public_key": "ab"}),
        replace(first, body={**mine, "roles": ["owner"]}),
        replace(first, body={}),
        replace(first, kind="note"),
    ):
        with pytest.raises(Broken, match="entry 1: "):
            audit(appended([], wrong))


EDITS = [
    ("UPDATE entries SET body = replace(body, 'test', 'best') WHERE sequence = 3", 3, "hash"),
    ("UPDATE entries SET at = '2020-01-01' WHERE sequence = 1", 1, "hash"),
    ("DELETE FROM entries WHERE sequence = 2", 2, "order"),
    ("DELETE FROM entries WHERE sequence = 1", 1, "order"),
    ("UPDATE entries SET signature = 'ab' WHERE sequence = 8", 8, "signature"),
]


@pytest.mark.parametrize(("edit", "sequence", "problem"), EDITS, ids=[e[0][:40] for e in EDITS])
def test_an_edit_behind_the_guards_is_found(
    whole: Ledger, place: Place, edit: str, sequence: int, problem: str
):
    """Whoever owns the table, drops its guards and edits it is found, in either database."""
    place.unguard()
    place.execute(edit)

    with pytest.raises(Broken) as found:
        whole.verify()

    assert (found.value.sequence, found.value.problem) == (sequence, problem)


@pytest.fixture
def anchored(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Ledger, Path]]:
    """A ledger of eight notes and its anchor's file, in either database."""
    path = tmp_path / "elsewhere" / "ledger.head"
    monkeypatch.setenv("PENSTOCK_LEDGER_HEAD", str(path))
    held = Ledger(place.url)
    for _ in range(7):
        note(held)
    yield held, path
    held.close()


def test_a_removed_end_is_found_by_the_anchor(anchored: tuple[Ledger, Path], place: Place):
    """A shorter chain is whole by itself; the note of where it ended says that it was longer."""
    held, path = anchored
    assert Head(**json.loads(path.read_text())) == held.head()
    place.unguard()
    place.execute("DELETE FROM entries WHERE sequence > 5")

    with pytest.raises(Broken, match=r"entry 6: it is missing.*seen to reach entry 8") as found:
        held.verify()

    assert found.value.problem == "end"
    assert held.verify(EMPTY) == 5
    with pytest.raises(LedgerError, match="reached entry 8, but that entry is gone"):
        note(held)
    assert json.loads(path.read_text())["sequence"] == 8


def test_an_end_that_was_replaced_is_found_by_the_anchor(
    anchored: tuple[Ledger, Path], place: Place
):
    """Other entries in the place of removed ones are not those that were noted."""
    held, path = anchored
    noted = path.read_text()
    place.unguard()
    place.execute("DELETE FROM entries WHERE sequence > 5")
    for row in appended(list(held.rows()), NOTE, count=4)[5:]:
        place.insert(row)
    assert path.read_text() == noted

    with pytest.raises(Broken, match="entry 8: it was replaced"):
        held.verify()
    with pytest.raises(LedgerError, match="that entry is gone or another"):
        note(held)


def test_an_anchor_may_be_behind_and_catches_up(anchored: tuple[Ledger, Path]):
    """A crash between entry and note leaves an older note: all is well."""
    held, path = anchored
    older = path.read_text()
    note(held)
    path.write_text(older)

    assert held.verify() == 9
    note(held)
    assert json.loads(path.read_text())["sequence"] == 10


def test_an_anchor_that_says_nothing_is_said(anchored: tuple[Ledger, Path]):
    """An empty file is no head; the message says what to do."""
    held, path = anchored
    path.write_text("")

    with pytest.raises(LedgerError, match="holds no head of a ledger; verify"):
        held.verify()


def test_the_home_ledgers_anchor_lies_beside_it(tmp_path: Path):
    """Without a word from the environment a SQLite ledger has its note in the same folder."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    note(held)
    held.close()

    assert json.loads((tmp_path / "ledger.head").read_text())["sequence"] == 2


@ON_SQLITE
def test_verifying_takes_no_more_memory_for_a_longer_chain(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """300 entries of 20 kB are 6 MB; few batches of 20 are in memory at a time, never all."""
    monkeypatch.setattr(chain, "BATCH", 20)
    peaks: list[int] = []
    for length in (60, 300):
        while ledger.head().sequence < length:
            note(ledger, "x" * 20_000)
        tracemalloc.start()
        assert ledger.verify() == length
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.2 * peaks[0]
