"""Laws of the ledger's verbs: they show what happened, name what was changed, say who may sign."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.home import Home
from penstock.cli.ledger import app
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
    """Showing, verifying and exporting all refuse a broken chain."""
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

    assert "whoever makes the first entry is enrolled as admin" in said("actors")
    assert not (tmp_path / "actor.pem").exists()
