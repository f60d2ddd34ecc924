"""Laws of the ledger's verbs: they show what happened, name what was changed, say who may sign."""

from __future__ import annotations

import io
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from penstock.cli.home import Home
from penstock.cli.ledger import app
from penstock.cli.shown import history
from penstock.ledger import REGISTERED, Actor, Ledger, LedgerError, NotEnrolled, Stage

NOW = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of its own, whose user registered and staged a version."""
    for name in ("PENSTOCK_LEDGER", "PENSTOCK_LEDGER_HEAD", "PENSTOCK_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    held = Home(tmp_path / "home")
    actor = Actor.create(held.path / "actor.pem", name="ann")
    ledger = Ledger(held.ledger_url)
    ledger.append(
        workload="digits",
        version=1,
        kind=REGISTERED,
        body={"package": "p", "keep_until": "2033-01-05"},
        actor=actor,
        now=NOW,
    )
    ledger.move(
        workload="digits", version=1, to=Stage.STAGING, reason="all asked", actor=actor, now=NOW
    )
    ledger.close()
    return held


def said(*arguments: str, code: int = 0) -> str:
    """Return what a call prints; its code must be this."""
    done = CliRunner().invoke(app, list(arguments))
    if code == 0 and done.exception is not None:
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def edit(home: Home, statement: str) -> None:
    """Change the table as its owner can."""
    direct = sqlite3.connect(home.path / "ledger.db")
    for name in ("entries_no_update", "entries_no_delete"):
        direct.execute(f"DROP TRIGGER {name}")
    direct.execute(statement)
    direct.commit()
    direct.close()


def test_the_table_says_who_did_what_and_why(home: Home):
    """One line an entry; the last lines say that it is whole and for how long it is kept."""
    lines = said().splitlines()

    assert lines[0].split() == ["entry", "at", "who", "workload", "version", "what", "why"]
    assert lines[1].split() == ["1", "2026-01-05", "09:30:00", "ann", "enrolled", "ann"]
    staged = "3 2026-01-05 09:30:00 ann digits 1 moved to STAGING all asked"
    assert lines[3].split() == staged.split()
    assert lines[-2:] == [
        "3 entries, chain whole, every signature valid",
        "to be kept until 2033-01-05; nothing is ever deleted",
    ]
    assert len(said("--last", "1").splitlines()) == len(lines) - 2
    assert "ann" not in said("--workload", "credit")


@pytest.mark.parametrize("verb", [(), ("verify",), ("export", "--out", "new.jsonl")], ids=str)
def test_an_altered_entry_ends_with_its_number_and_code_1(
    home: Home, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    """Showing, verifying and exporting all name what is wrong with a broken chain."""
    monkeypatch.chdir(home.path)
    edit(home, "UPDATE entries SET body = replace(body, 'asked', 'waved') WHERE sequence = 3")

    assert "broken (hash): entry 3: it (moved) was edited" in said(*verb, code=1)
    assert not (home.path / "new.jsonl").exists()


def test_a_removed_end_is_found(home: Home):
    """The note beside the ledger says that it was longer."""
    edit(home, "DELETE FROM entries WHERE sequence = 3")

    assert "broken (end): entry 3: it is missing" in said("verify", code=1)


def test_an_export_is_verified_without_the_home(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By anyone, elsewhere, against the head that was shown."""
    out = tmp_path / "out.jsonl"
    lines = said("export", "--out", str(out)).splitlines()
    assert lines[-1] == "to be kept until 2033-01-05; nothing is ever deleted"
    head = said("verify").splitlines()[0].removeprefix("head ")
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "nowhere"))

    shown = said("verify", "--file", str(out), "--head", head)

    assert "3 entries, chain whole, every signature valid" in shown
    unheld = said("verify", "--file", str(out))
    assert "3 entries, whole as far as it goes: not held against a known head" in unheld
    assert not (tmp_path / "nowhere").exists()
    other = f"3:{'0' * 64}"
    assert "entry 3: it was replaced" in said("verify", "--file", str(out), "--head", other, code=1)
    with pytest.raises(ValueError, match="no head; copy SEQUENCE:HASH"):
        said("verify", "--head", "3")


def test_an_admin_enrols_and_revokes(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second person makes a key, is enrolled by its public half, signs, and is revoked."""
    theirs = tmp_path / "bob.pem"
    assert "give an admin" in said("key", str(theirs), "--name", "bob")
    monkeypatch.setenv("PENSTOCK_KEY", str(theirs))
    roles = ("--role", "owner", "--role", "validator")
    asked = ("enrol", "bob", "--public-key", f"{theirs}.pub", *roles)
    with pytest.raises(NotEnrolled, match="bob is not enrolled"):
        said(*asked)

    monkeypatch.delenv("PENSTOCK_KEY")
    assert "ann enrolled bob as owner, validator" in said(*asked)
    key_id = Actor.load(theirs).key_id[:12]
    assert f"bob    {key_id}  owner, validator" in said("actors")
    assert "ann revoked bob" in said("revoke", "bob", "--reason", "left")
    assert "revoked" in said("actors").splitlines()[2]
    assert "5 entries, chain whole" in said("verify")
    with pytest.raises(LedgerError, match="last admin"):
        said("revoke", "ann", "--reason", "left")


def test_nobody_is_enrolled_in_an_empty_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The list says how the first one will be; looking makes no key."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    Home(tmp_path).ledger().close()

    assert "whoever makes the first entry is enrolled as admin" in said("actors")
    assert not (tmp_path / "actor.pem").exists()


@pytest.mark.parametrize(
    "verb", [(), ("verify",), ("export", "--out", "new.jsonl"), ("actors",)], ids=str
)
def test_a_home_without_a_ledger_is_said(
    verb: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A mistyped home is not an empty ledger that verifies, and is not made."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "typo"))
    monkeypatch.delenv("PENSTOCK_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(LedgerError, match=r"no ledger at .*typo.*; set PENSTOCK_HOME"):
        said(*verb)

    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_lost_its_guards_is_not_green(home: Home):
    """The chain may be whole; that whoever writes past the library is not stopped is said."""
    edit(home, "SELECT 1")

    shown = said("verify", code=1)

    assert "3 entries, chain whole" in shown
    assert "not guarded: trigger entries_no_delete is gone, trigger entries_no_update" in shown


def test_a_chain_without_a_note_of_its_end_is_whole_only_as_far_as_it_goes(home: Home):
    """Entries may be gone from its end; a head that the caller knows is as good as a note."""
    assert home.head == home.path / "ledger.head"
    home.head.unlink()

    lines = said("verify").splitlines()

    assert lines[1].startswith("3 entries, whole as far as it goes: no anchor is kept")
    assert "set PENSTOCK_LEDGER_HEAD" in lines[1]
    assert "chain whole" in said("verify", "--head", lines[0].removeprefix("head "))


def test_a_home_notes_the_end_of_a_ledger_on_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its steps are told the same file; a SQLite ledger has its own, a named one goes first."""
    monkeypatch.delenv("PENSTOCK_LEDGER_HEAD", raising=False)
    held = Home(tmp_path)
    monkeypatch.setenv("PENSTOCK_LEDGER", f"sqlite:///{tmp_path / 'other' / 'x.db'}")
    assert held.head == tmp_path / "other" / "x.head"
    assert "PENSTOCK_LEDGER_HEAD" not in held.environment()

    monkeypatch.setenv("PENSTOCK_LEDGER", "postgresql+psycopg://ann@db/releases")
    assert held.head == tmp_path / "ledger.head"
    assert held.environment()["PENSTOCK_LEDGER_HEAD"] == str(tmp_path / "ledger.head")

    monkeypatch.setenv("PENSTOCK_LEDGER_HEAD", "/kept/elsewhere")
    assert held.head == Path("/kept/elsewhere")


NASTY = "[/issue] [red]all well[/red] \x1b[2J\x1b]0;title\x07 a\rb \u202ereversed"


def test_evidence_is_shown_as_it_is(home: Home):
    """No markup of an entry is obeyed, and nothing in it steers the terminal."""
    ledger = Ledger(home.ledger_url)
    actor = Actor.load(home.key())
    ledger.append(
        workload="digits", version=1, kind="[b]", body={"reason": NASTY}, actor=actor, now=NOW
    )
    entries = ledger.entries()
    ledger.close()

    shown = said()

    for text in ("[b]", "[/issue] [red]all well[/red]", r"\x1b[2J", r"\x07", r"a\rb", r"\u202e"):
        assert text in shown
    assert all(c.isprintable() or c == "\n" for c in shown)
    drawn = io.StringIO()
    Console(width=200, file=drawn).print(history(entries, 1))
    assert "[/issue] [red]all well[/red]" in drawn.getvalue()


def test_a_broken_ledger_can_be_kept(home: Home, tmp_path: Path):
    """What is there is written and marked; the mark is what verifying says."""
    edit(home, "UPDATE entries SET body = 'torn' WHERE sequence = 3")
    out = tmp_path / "found.jsonl"

    kept = said("export", "--broken", "--out", str(out))

    assert "marked as broken: entry 3: it (moved) was edited" in kept
    refused = said("verify", "--file", str(out), code=1)
    assert "broken (hash): entry 3" in refused
    assert "This is the export of a broken ledger." in refused
    assert "its body cannot be read" in said(code=1)
