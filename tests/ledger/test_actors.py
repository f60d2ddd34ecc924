"""Laws of actors: a name is proven by its key, and the ledger says whose key it was when."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ledger import (
    ROLES,
    Actor,
    KeyFileError,
    Ledger,
    LedgerError,
    NotEnrolled,
    actor_from_environment,
)
from penstock.ledger.actors import key_id_of, read_public_key, signed_by
from tests.ledger.steps import NOW, note
from tests.people import person

ANN, BOB, EVE = person("ann"), person("bob"), person("eve")


def enrol(ledger: Ledger, who: Actor, *roles: str, by: Actor = ANN, name: str = "") -> None:
    """Enrol someone."""
    ledger.enrol(name=name or who.name, public_key=who.public_key, roles=roles, actor=by, now=NOW)


@given(message=st.binary(max_size=50), other=st.binary(max_size=50))
def test_a_signature_is_of_one_message_by_one_key(message: bytes, other: bytes):
    """It holds for what was signed, and for nothing else."""
    signature = ANN.sign(message)

    assert signed_by(ANN.public_key, signature, message)
    assert signed_by(ANN.public_key, signature, other) == (other == message)
    assert not signed_by(BOB.public_key, signature, message)
    assert not signed_by(ANN.public_key, signature[:-2], message)
    assert not signed_by(ANN.public_key, "no hex", message)


def test_a_key_file_is_its_owners_alone(tmp_path: Path):
    """It is written so, read back as the same actor, and the public half is beside it."""
    made = Actor.create(tmp_path / "keys" / "ann.pem", name="ann")

    path = tmp_path / "keys" / "ann.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = Actor.load(path)
    assert (read.name, read.key_id) == ("ann", made.key_id)
    assert read_public_key(tmp_path / "keys" / "ann.pem.pub") == made.public_key
    assert sorted(p.name for p in path.parent.iterdir()) == ["ann.pem", "ann.pem.pub"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int):
    """The message says how to close it, and holds nothing of the key."""
    path = tmp_path / "ann.pem"
    Actor.create(path, name="ann")
    secret = path.read_text()
    path.chmod(mode)

    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600") as refused:
        Actor.load(path)

    assert not any(line in str(refused.value) for line in secret.splitlines()[2:-1])


def test_a_key_is_never_written_over(tmp_path: Path):
    """The second Actor.create fails and the first key stays."""
    first = Actor.create(tmp_path / "k.pem", name="ann")

    with pytest.raises(FileExistsError):
        Actor.create(tmp_path / "k.pem", name="ann")

    assert Actor.load(tmp_path / "k.pem").key_id == first.key_id
    assert read_public_key(tmp_path / "k.pem.pub") == first.public_key


@pytest.mark.parametrize("text", ["", "ann", "-----BEGIN PRIVATE KEY-----\nxx", "\x00\xff"])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str):
    """An empty, cut or foreign file is said to be none."""
    path = tmp_path / "k.pem"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(KeyFileError, match="no Ed25519 key"):
        Actor.load(path)
    with pytest.raises(KeyFileError, match="no public key"):
        read_public_key(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path):
    """A key without the line that names its actor proves no name."""
    path = tmp_path / "k.pem"
    Actor.create(path, name="ann")
    path.write_text(path.read_text().split("\n", 1)[1])

    with pytest.raises(KeyFileError, match="no Ed25519 key"):
        Actor.load(path)


def test_the_environment_names_the_key(tmp_path: Path):
    """Without it nobody can sign; the message names the variable."""
    Actor.create(tmp_path / "k.pem", name="ann")

    assert actor_from_environment({"PENSTOCK_KEY": str(tmp_path / "k.pem")}).name == "ann"
    with pytest.raises(KeyFileError, match="PENSTOCK_KEY is not set"):
        actor_from_environment({})
    with pytest.raises(KeyFileError, match="not there; set PENSTOCK_KEY"):
        actor_from_environment({"PENSTOCK_KEY": str(tmp_path / "other.pem")})


@pytest.mark.parametrize("name", ["", " ann", "a\nb", "a" * 101, "a\u202eb"])
def test_a_name_can_be_read(name: str):
    """What a screen would show otherwise than it is cannot name anyone."""
    with pytest.raises(ValueError, match="cannot name an actor"):
        Actor(name, ANN.private_key)


def test_a_private_key_is_never_printed():
    """Not by repr, which is what logs hold."""
    assert repr(ANN) == "Actor(name='ann')"


def test_the_first_actor_is_admin(ledger: Ledger):
    """Trust on first use: the first entry enrols its actor with every role."""
    entry = note(ledger, actor=ANN)

    first = ledger.entries()[0]
    assert (first.kind, first.subject, first.actor) == ("enrolled", "ann", "ann")
    assert (entry.sequence, entry.actor, entry.key_id) == (2, "ann", ANN.key_id)
    assert ledger.roles("ann") == ROLES
    assert ledger.roles("bob") == frozenset()


def test_who_is_not_enrolled_cannot_append(ledger: Ledger):
    """The message says what an admin types."""
    note(ledger, actor=ANN)

    with pytest.raises(NotEnrolled, match=r"bob is not enrolled.*penstock ledger enrol 'bob'"):
        note(ledger, actor=BOB)

    enrol(ledger, BOB, "owner", "pipeline")
    note(ledger, actor=BOB)
    assert ledger.roles("bob") == {"owner", "pipeline"}
    assert ledger.verify() == 4


def test_a_name_with_another_key_is_refused(ledger: Ledger):
    """Whoever takes a name without its key is told which key is enrolled."""
    note(ledger, actor=ANN)

    with pytest.raises(NotEnrolled, match=f"key {EVE.key_id[:12]}, but key {ANN.key_id[:12]}"):
        note(ledger, actor=Actor("ann", EVE.private_key))


def test_only_an_admin_changes_the_roll(ledger: Ledger):
    """Whoever has other roles is told whom to ask."""
    note(ledger, actor=ANN)
    enrol(ledger, BOB, *(ROLES - {"admin"}))

    with pytest.raises(NotEnrolled, match="bob is no admin; ask one of: ann"):
        enrol(ledger, EVE, "owner", by=BOB)
    with pytest.raises(NotEnrolled, match="no admin"):
        ledger.revoke(name="ann", reason="coup", actor=BOB, now=NOW)


def test_the_revoked_sign_no_more_and_what_they_signed_stays(ledger: Ledger):
    """A revoked key is refused; its older entries verify; enrolled again it may sign."""
    note(ledger, actor=ANN)
    enrol(ledger, BOB, "operator")
    note(ledger, actor=BOB)
    ledger.revoke(name="bob", reason="left", actor=ANN, now=NOW)

    with pytest.raises(NotEnrolled, match="bob was revoked"):
        note(ledger, actor=BOB)
    with pytest.raises(LedgerError, match="nothing to revoke"):
        ledger.revoke(name="bob", reason="again", actor=ANN, now=NOW)
    assert ledger.roles("bob") == frozenset()
    assert ledger.verify() == 5

    enrol(ledger, BOB, "operator")
    note(ledger, actor=BOB)
    assert ledger.verify() == 7


def test_a_key_can_be_changed(ledger: Ledger):
    """From the new enrolment on the new key signs; each entry is held to the key of its time."""
    note(ledger, actor=ANN)
    enrol(ledger, BOB, "operator")
    note(ledger, actor=BOB)
    newer = Actor("bob", EVE.private_key)
    enrol(ledger, newer, "operator")

    with pytest.raises(NotEnrolled, match="but key"):
        note(ledger, actor=BOB)
    note(ledger, actor=newer)

    assert ledger.verify() == 6


def test_nobody_is_two(ledger: Ledger):
    """One key under two names would let its holder validate their own work."""
    note(ledger, actor=ANN)
    enrol(ledger, BOB, "owner")

    with pytest.raises(LedgerError, match="this key is bob's"):
        enrol(ledger, BOB, "validator", name="robert")


def test_an_admin_is_left(ledger: Ledger):
    """The last admin can neither be revoked nor lose the role."""
    note(ledger, actor=ANN)
    enrol(ledger, BOB, "owner")

    with pytest.raises(LedgerError, match="ann is the last admin"):
        ledger.revoke(name="ann", reason="left", actor=ANN, now=NOW)
    with pytest.raises(LedgerError, match="ann is the last admin"):
        enrol(ledger, ANN, "owner")


@pytest.mark.parametrize(
    "over",
    [{"roles": []}, {"roles": ["king"]}, {"public_key": "ab"}, {"name": " "}],
    ids=["no role", "unknown role", "no key", "no name"],
)
def test_an_enrolment_is_checked_at_the_door(ledger: Ledger, over: dict[str, Any]):
    """Unknown roles, no key, no name."""
    asked = {"name": "bob", "public_key": BOB.public_key, "roles": ["owner"], **over}

    with pytest.raises(ValueError):  # noqa: PT011 - each has its own sentence
        ledger.enrol(**asked, actor=ANN, now=NOW)

    assert ledger.entries() == []


def test_a_fingerprint_is_of_the_key_alone():
    """Two keys have two; the same key, one."""
    assert len({key_id_of(a.public_key) for a in (ANN, BOB, EVE, Actor("x", ANN.private_key))}) == 3
