"""Laws of what lies beside the kill switch: notes, a roll and tokens, as files and a ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock.ledger import Ledger
from penstock.rollout import kill, killroll, killtokens, switch
from penstock.rollout.access import AccessError
from penstock.rollout.kill import NotAllowed
from penstock.rollout.killnotes import BY_HAND, Request
from tests.people import person

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
ROLES = ("admin", "compliance", "operator", "owner")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger in which a person of each role is enrolled by its name, and "tester" has all."""
    held = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    tester = person()
    held.append(workload="digits", version=1, kind="note", body={}, actor=tester, now=NOW)
    for role in ROLES:
        key = person(role).public_key
        held.enrol(name=role, public_key=key, roles=[role], actor=tester, now=NOW)
    yield held
    held.close()


@pytest.fixture
def home(tmp_path: Path, ledger: Ledger) -> Path:
    """A home whose slots a and b serve versions 1 and 2, without a process."""
    serving = tmp_path / "serving"
    switch.prepare(serving)
    slots = {slot: {"version": version} for slot, version in (("a", "1"), ("b", "2"))}
    desired = {"model": "digits", "slots": {**slots, "rules": None}}
    (serving / "desired.json").write_text(json.dumps(desired))
    killroll.remember(tmp_path, ledger)
    return tmp_path


def at(seconds: float) -> datetime:
    """Return a time so long after the beginning."""
    return NOW + timedelta(seconds=seconds)


def thrown(home: Path, *, seconds: float = 0.0, to: str = "a") -> Request:
    """Throw the switch as an operator."""
    return kill.throw(home, person("operator"), reason="unfair", now=at(seconds), to=to)


def cleared(home: Path, ledger: Ledger, *, seconds: float = 1.0) -> None:
    """Clear it as compliance."""
    kill.clear(
        home, ledger, person("compliance"), workload="digits", reason="safe", now=at(seconds)
    )


def reconciled(home: Path, ledger: Ledger, *, seconds: float = 0.5) -> int:
    """Enter what is not in the ledger yet."""
    return kill.reconcile(ledger, person(), home=home, workload="digits", now=at(seconds))


def entries(ledger: Ledger, kind: str) -> list[dict[str, object]]:
    """Return the bodies of the entries of a kind."""
    return [dict(e.body) for e in ledger.entries("digits") if e.kind == kind]


def by_hand(home: Path, folder: str) -> None:
    """Turn the link as two shell commands do."""
    switch.turn(home / "serving", folder)


def runtime(home: Path) -> Path:
    """Return where the switch lies."""
    return switch.folder_of(home / "serving")


@pytest.mark.parametrize("marked", [True, False], ids=["as it is", "its mark removed"])
def test_a_folder_that_was_cleared_is_turned_to_by_hand(home: Path, ledger: Ledger, marked: bool):
    """A link to a request that is over is another throw, by hand, and takes another clearing."""
    first = thrown(home)
    cleared(home, ledger)
    if not marked:
        (runtime(home) / f"kill-{first.id}.cleared").unlink()
    by_hand(home, f"kill-{first.id}")

    reconciled(home, ledger, seconds=2)

    told = entries(ledger, kill.KILL)
    assert [one["how"] for one in told] == ["key", "file"]
    assert told[1]["id"] != first.id
    cleared(home, ledger, seconds=3)
    over = [one["id"] for one in entries(ledger, kill.CLEARED)]
    assert over == [first.id, told[1]["id"]]
    assert kill.killed(home) is None


def test_what_was_cleared_names_nobody_while_the_ledger_is_away(home: Path, ledger: Ledger):
    """A link to a request that is over is by hand to whoever looks at the files alone, too."""
    first = thrown(home)
    cleared(home, ledger)
    by_hand(home, f"kill-{first.id}")

    found = kill.killed(home)

    assert found is not None
    assert (found.id, found.by, found.how) == ("", BY_HAND, "file")
    adopted = kill.adopt(home, at(2))
    assert adopted is not None
    assert adopted == kill.killed(home)


def test_another_key_of_a_clearers_name_clears_nothing(home: Path, ledger: Ledger):
    """Who clears is proven by the key that the ledger knows, also where an entry is there."""
    thrown(home)
    reconciled(home, ledger)
    impostor = type(person())("compliance", person("somebody").private_key)

    with pytest.raises(NotAllowed, match="with this key"):
        kill.clear(home, ledger, impostor, workload="digits", reason="safe", now=NOW)

    assert kill.killed(home) is not None


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"id": 3}', "\x00\x00", '{"killed": 1}', "[" * 3]
)
def test_a_note_that_cannot_be_read_stops_nothing(home: Path, ledger: Ledger, content: str):
    """It is entered as done by hand under its file's name; the others are entered as they are."""
    (runtime(home) / "kill-20261102T110000-0.json").write_text(content)
    made = thrown(home)

    assert reconciled(home, ledger) == 2
    assert reconciled(home, ledger) == 0

    told = {one["id"]: one for one in entries(ledger, kill.KILL)}
    odd = told["20261102T110000-0"]
    assert (odd["how"], odd["by"], odd["verified"]) == ("file", BY_HAND, False)
    assert "kill-20261102T110000-0.json" in str(odd["reason"])
    assert told[made.id]["verified"]
    cleared(home, ledger)
    assert kill.killed(home) is None


def test_a_note_in_force_that_cannot_be_read_is_adopted_once(home: Path, ledger: Ledger):
    """Half a note under the link makes one entry, by hand, that says which versions are killed."""
    made = thrown(home)
    path = runtime(home) / f"kill-{made.id}.json"
    path.write_text(path.read_text()[:40])

    reconciled(home, ledger)

    (told,) = entries(ledger, kill.KILL)
    assert (told["how"], told["killed"], told["to"]) == ("file", ["2"], "a")
    assert path.name in str(told["reason"])
    assert path.with_suffix(".unreadable").exists()


def test_what_was_killed_stays_so_when_the_link_is_turned_by_hand(home: Path, ledger: Ledger):
    """Versions that a throw killed are killed under a link by hand too, until it is cleared."""
    kill.throw(home, person("operator"), reason="unfair", now=NOW, to="a")
    path = home / "serving" / "desired.json"
    desired = json.loads(path.read_text())
    desired["slots"]["b"] = {"version": "3"}
    path.write_text(json.dumps(desired))
    by_hand(home, "to-a")

    found = kill.adopt(home, at(1))

    assert found is not None
    assert found.killed == ("2", "3")
    cleared(home, ledger, seconds=2)
    by_hand(home, "to-a")
    again = kill.adopt(home, at(3))
    assert again is not None
    assert again.killed == ("3",)


def test_a_throw_while_it_is_cleared_stays_thrown(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """Whoever throws it between the look of a clearing and its turn is not undone by it."""
    thrown(home)
    turn, later = switch.turn, list[Request]()

    def slow(serving: Path, to: str) -> None:
        if to == switch.OFF and not later:
            later.append(thrown(home, seconds=2, to="a"))
        turn(serving, to)

    monkeypatch.setattr(switch, "turn", slow)
    cleared(home, ledger)

    found = kill.killed(home)
    assert found is not None
    assert found.id == later[0].id


def test_a_throw_while_a_link_by_hand_is_noted_stays_the_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever throws it while somebody notes a link by hand is not undone by that."""
    by_hand(home, "to-b")
    prepare, later = switch.prepare, list[Request]()

    def slow(serving: Path) -> None:
        monkeypatch.setattr(switch, "prepare", prepare)
        later.append(thrown(home, seconds=2, to="a"))

    monkeypatch.setattr(switch, "prepare", slow)
    kill.adopt(home, at(1))

    found = kill.killed(home)
    assert found is not None
    assert (found.id, found.to) == (later[0].id, "a")


def test_a_throw_waits_for_nobody_who_clears(home: Path, monkeypatch: pytest.MonkeyPatch):
    """The lock of clearing and adopting keeps no throw waiting, nor a look."""
    monkeypatch.setattr(kill, "PATIENCE_S", 0.0)
    with kill.FileLock(runtime(home) / "turn.lock"):
        made = thrown(home)
        assert kill.adopt(home, at(1)) == made
        by_hand(home, "to-b")
        found = kill.adopt(home, at(1))
    assert found is not None
    assert (found.to, found.serving) == ("b", {"version": "2"})


@pytest.mark.parametrize("reason", ["", " ", "a\x1b[2Jb", "two\nlines", "x" * 1001])
def test_a_reason_that_cannot_be_shown_throws_and_clears_nothing(
    home: Path, ledger: Ledger, reason: str
):
    """Nothing that steers a terminal comes into the notes or the ledger."""
    with pytest.raises(ValueError, match="wants a reason"):
        kill.throw(home, person("operator"), reason=reason, now=NOW, to="a")
    assert kill.killed(home) is None
    thrown(home)
    with pytest.raises(ValueError, match="wants a reason"):
        kill.clear(home, ledger, person("admin"), workload="digits", reason=reason, now=NOW)
    assert kill.killed(home) is not None


def test_a_token_counts_while_its_maker_may_throw_the_switch(home: Path, ledger: Ledger):
    """Revoked in the ledger, whoever made it takes the token along once the roll is copied."""
    token, _ = killtokens.new_token(home, "desk", person("operator"))
    shown = f"Bearer {token}"
    assert killtokens.caller_of(home, shown) == ("desk", "operator")

    ledger.revoke(name="operator", reason="left", actor=person(), now=at(1))
    killroll.remember(home, ledger)

    assert killtokens.caller_of(home, shown) is None
    with pytest.raises(NotAllowed):
        thrown(home)


def test_a_token_is_made_once_and_taken_away(home: Path):
    """A name that is taken, or is none, is refused; one that is taken away counts no more."""
    maker = person("compliance")
    token, port = killtokens.new_token(home, "desk", maker)
    for name in ("desk", "", "a b", "\x1b[2J", "x" * 65):
        with pytest.raises(ValueError, match="token"):
            killtokens.new_token(home, name, maker)
    with pytest.raises(NotAllowed):
        killtokens.new_token(home, "other", person("owner"))
    with pytest.raises(NotAllowed):
        killtokens.revoke(home, "desk", person("owner"))
    assert killtokens.caller_of(home, f"Bearer {token}") == ("desk", "compliance")

    killtokens.revoke(home, "desk", person("admin"))

    assert killtokens.caller_of(home, f"Bearer {token}") is None
    with pytest.raises(LookupError, match="no token 'desk'"):
        killtokens.revoke(home, "desk", maker)
    assert killtokens.new_token(home, "desk", maker)[1] == port


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"port": 1, "tokens": {"desk": "0"}}'])
def test_tokens_that_cannot_be_read_are_said_to_be(home: Path, content: str):
    """Whoever shows a token is told that the file is broken, not that the token is wrong."""
    path = killtokens.tokens_of(home)
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(AccessError, match="penstock kill token"):
        killtokens.caller_of(home, "Bearer 0")
