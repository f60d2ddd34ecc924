"""What was written past the library has no effect: who asks the ledger is told of it instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import Actor, Broken, Head, Ledger, LedgerError, NoLedger, Stage
from penstock.ledger.anchor import Anchor
from penstock.ledger.entry import Draft, sealed
from penstock.ledger.roll import ENROLLED, enrolment_body
from tests.ledger.conftest import Place
from tests.ledger.steps import ALL_THE_WAY, NOW, move, note, register
from tests.people import person

EVE, BOB = person("eve"), person("bob")

LAST_STEP = Draft(
    workload="digits",
    version=1,
    kind="moved",
    origin="CANARY",
    target="PRODUCTION",
    body={"to": "PRODUCTION", "reason": "because"},
)
STRANGER = Draft(
    workload="",
    version=None,
    kind=ENROLLED,
    subject="eve",
    body=enrolment_body("eve", EVE.public_key, ["admin", "operator"]),
)


@pytest.fixture
def canary(ledger: Ledger) -> Ledger:
    """A ledger in which version 1 is in canary; bob is a validator."""
    register(ledger, 1)
    move(ledger, 1, *ALL_THE_WAY[:3])
    key = BOB.public_key
    ledger.enrol(name="bob", public_key=key, roles=["validator"], actor=person(), now=NOW)
    return ledger


def row(ledger: Ledger, draft: Draft, actor: Actor, **over: Any) -> dict[str, Any]:
    """Return the row of a draft behind the head, signed, and then changed."""
    return {**sealed(draft, after=ledger.head(), actor=actor, now=NOW), **over}


FORGED: list[tuple[Draft, Actor, dict[str, Any], str]] = [
    (LAST_STEP, Actor("tester", EVE.private_key), {}, "tester signs with key"),
    (LAST_STEP, person(), {"signature": "00" * 64}, "tester did not sign it"),
    (LAST_STEP, EVE, {}, "eve is not enrolled"),
    (LAST_STEP, BOB, {}, "bob may not move a version to PRODUCTION"),
    (replace(LAST_STEP, body={"to": "PRODUCTION", "reason": ""}), person(), {}, "no reason"),
    (STRANGER, EVE, {}, "eve is not enrolled"),
    (STRANGER, BOB, {}, "bob is no admin"),
]

QUESTIONS: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.entries("digits"),
    lambda ledger: ledger.entries("another workload"),
    lambda ledger: ledger.roles("eve"),
    lambda ledger: ledger.actors(),
    note,
    lambda ledger: move(ledger, 1, Stage.PRODUCTION),
]


@pytest.mark.parametrize(("draft", "actor", "over", "said"), FORGED, ids=[f[3] for f in FORGED])
def test_a_forged_entry_stops_whoever_asks(
    canary: Ledger, place: Place, draft: Draft, actor: Actor, over: dict[str, Any], said: str
):
    """Neither the ledger that was open nor one opened later acts on it, or builds on it."""
    before = canary.known()
    place.insert(row(canary, draft, actor, **over))
    later = Ledger(place.url)

    for held in (canary, later):
        for ask in QUESTIONS:
            with pytest.raises(Broken, match=said) as found:
                ask(held)
            assert found.value.sequence == 7

    assert canary.head().sequence == 7
    assert canary.known() == before
    later.close()


def test_what_others_write_by_the_rules_is_taken_up(canary: Ledger, place: Place):
    """A ledger that was read goes on with what another process entered."""
    assert len(canary.entries()) == 6
    other = Ledger(place.url)
    move(other, 1, Stage.PRODUCTION)
    other.close()

    assert canary.entries()[-1].target == "PRODUCTION"
    assert note(canary).sequence == 8
    assert canary.verify() == 8


def test_an_entry_that_was_read_and_is_gone_is_missed(canary: Ledger, place: Place):
    """Even where no anchor is kept: a process remembers where it was."""
    assert len(canary.entries()) == 6
    if canary.anchor is not None:
        canary.anchor.unlink()
    place.unguard()
    place.execute("DELETE FROM entries WHERE sequence = 6")

    with pytest.raises(Broken, match="entry 6: it is gone or another than when it was read"):
        canary.entries()
    with pytest.raises(Broken, match="entry 6: it is gone"):
        note(canary)


EXCHANGED = """PRAGMA writable_schema = ON;
    UPDATE sqlite_master SET sql = replace(sql, 'append-only', 'patient')
    WHERE name = 'entries_no_update'"""
EMPTIED = """
    CREATE OR REPLACE FUNCTION entries_order() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RETURN NEW; END $$"""

GUARDS = {
    "sqlite": [
        ("DROP TRIGGER entries_order", "trigger entries_order is gone"),
        ("DROP TRIGGER entries_no_delete", "trigger entries_no_delete is gone"),
        (
            "CREATE TRIGGER more AFTER INSERT ON entries BEGIN SELECT 1; END",
            "trigger more is not ours",
        ),
        (
            EXCHANGED,
            "trigger entries_no_update is not ours",
        ),
    ],
    "postgresql": [
        ("ALTER TABLE entries DISABLE TRIGGER ALL", "trigger entries_order is not ours"),
        ("ALTER TABLE entries ENABLE TRIGGER entries_kept", "trigger entries_kept is not ours"),
        ("DROP TRIGGER entries_kept ON entries", "trigger entries_kept is gone"),
        (
            EMPTIED,
            "trigger entries_order is not ours",
        ),
        ("ALTER TABLE entries DROP CONSTRAINT entries_counted", "check entries_counted is gone"),
        (
            "CREATE RULE away AS ON DELETE TO entries DO INSTEAD NOTHING",
            "rule away is not ours",
        ),
    ],
}


@pytest.mark.parametrize(
    ("place", "statement", "said"),
    [(kind, *case) for kind, cases in GUARDS.items() for case in cases],
    indirect=["place"],
)
def test_a_ledger_without_its_guards_is_not_opened(
    canary: Ledger, place: Place, statement: str, said: str
):
    """Each guard that is gone, switched off or exchanged is named; one may still look."""
    assert canary.unguarded() == []
    place.execute(*statement.split(";\n"))

    with pytest.raises(LedgerError, match=f"not guarded as it was made:.*{said}.*its copy"):
        Ledger(place.url)
    looked_at = Ledger(place.url, looking=True)
    assert said in ", ".join(looked_at.unguarded())
    assert looked_at.verify() == 6
    with pytest.raises(LedgerError, match="opened to look at it"):
        note(looked_at)
    looked_at.close()


def test_looking_makes_nothing(tmp_path: Path, place: Place):
    """A mistyped address is said, and no empty ledger is left there."""
    with pytest.raises(NoLedger, match=r"no ledger at .*; set PENSTOCK_HOME or run something"):
        Ledger(f"sqlite:///{tmp_path / 'nowhere' / 'ledger.db'}", looking=True)
    with pytest.raises(NoLedger, match="no ledger at"):
        Ledger(place.url, looking=True)

    assert not (tmp_path / "nowhere").exists()


def test_what_is_no_ledger_is_said(tmp_path: Path):
    """A file of something else, an address of nothing: a sentence for people."""
    (tmp_path / "ledger.db").write_text("not a database at all, but a text that is long enough")

    for url, said in (
        (f"sqlite:///{tmp_path / 'ledger.db'}", "cannot be used as a ledger: .*not a database"),
        ("postgres//nobody", "address cannot be used.*Say sqlite:///PATH"),
        ("nothing://host/x", "address cannot be used.*Say sqlite:///PATH"),
        (f"sqlite:///{tmp_path / 'ledger.db' / 'x' / 'y'}", "address cannot be used"),
    ):
        with pytest.raises(LedgerError, match=said):
            Ledger(url)


def test_an_anchor_that_cannot_be_written_is_found_before_the_entry(place: Place, tmp_path: Path):
    """Nothing is entered whose end cannot be noted."""
    (tmp_path / "notes" / "ledger.head.lock").mkdir(parents=True)
    held = Ledger(place.url, head=tmp_path / "notes" / "ledger.head")

    with pytest.raises(LedgerError, match=r"cannot be noted in .*Nothing was entered"):
        note(held)

    assert held.head().sequence == 0
    held.close()


def test_what_goes_wrong_after_the_entry_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The entry stands: a caller that saw an error would enter it twice."""
    folder = tmp_path / "ledger.head"
    folder.mkdir()

    Anchor(folder).note(Head(3, "f" * 64))

    assert "entry 3 is in the ledger, but its end could not be noted" in caplog.text
    assert list(folder.iterdir()) == []
