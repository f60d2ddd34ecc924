"""Laws of commands: who may ask what of a release, what is refused, and what is heeded first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.ledger import Ledger, NotEnrolled
from penstock.rollout.commands import give, pending
from penstock.rollout.state import COMMAND, Act, Ask, State
from penstock.stage import Refused
from tests.people import person
from tests.rollout.markets import ROLES, Story, standing

ALLOWED = {
    "otto": {Ask.PAUSE, Ask.RESUME, Ask.ABORT, Ask.ROLL_BACK},
    "olga": {Ask.PAUSE, Ask.RESUME, Ask.ABORT, Ask.ROLL_BACK},
    "adam": {Ask.PAUSE, Ask.RESUME, Ask.ABORT, Ask.ROLL_BACK},
    "carl": {Ask.PAUSE, Ask.ABORT, Ask.ROLL_BACK},
    "ann": {Ask.PROMOTE},
    "robot": set[Ask](),
    "nobody": set[Ask](),
}
PEOPLE = {**ROLES, "adam": standing("adam", "admin")}


def going(ledger: Ledger | None = None) -> tuple[Story, str]:
    """Return a release in its canary."""
    story = Story(ledger)
    story.register(3)
    release = story.open(3, "us", by="robot")
    story.climb(release, 1)
    return story, release


def asked(story: Story, release: str, ask: Ask, by: str) -> int:
    """Enter a command past the door; return its sequence."""
    body = {"release": release, "command": str(ask), "reason": "r"}
    return story.add(COMMAND, 3, body, by=by).sequence


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(ALLOWED)), st.sampled_from(Ask)), max_size=6))
def test_what_is_heeded_is_allowed_and_brings_users_back_first(given_: list[tuple[str, Ask]]):
    """Of the open commands that their actors may give: a backward one, else the oldest."""
    story, release = going()
    for name, ask in given_:
        asked(story, release, ask, name)
    state = story.state(release)

    chosen = pending(state, PEOPLE, story.entries)

    allowed = [c for c in state.commands if c.ask in ALLOWED[c.actor]]
    backward = [c for c in allowed if c.ask in (Ask.ABORT, Ask.ROLL_BACK)]
    assert chosen == next(iter([*backward, *allowed]), None)


@pytest.mark.parametrize("by", ["robot", "otto", "ann"])
def test_an_override_takes_an_independent_approver(by: str):
    """Who trained, registered or opened it cannot promote it, even with the role."""
    story, release = going()
    asked(story, release, Ask.PROMOTE, by)
    roles = {**PEOPLE, by: standing(by, "approver")}

    heard = pending(story.state(release), roles, story.entries)

    assert (heard is not None) == (by != "robot")
    assert pending(story.state(release), roles) is None, "nothing is known of who made it"


def test_a_command_counts_as_long_as_its_actor_does():
    """What somebody asked before they were revoked is passed over, also if enrolled again."""
    story, release = going()
    sequence = asked(story, release, Ask.PAUSE, "otto")
    state = story.state(release)

    assert pending(state, PEOPLE) is not None
    assert pending(state, {}) is None
    again = {"otto": standing("otto", "operator", since=sequence)}
    assert pending(state, again) is None
    replaced = replace(standing("otto", "operator"), key_id=person("thief").key_id)
    assert pending(state, {"otto": replaced}) is None, "signed with a key that was replaced"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Ledger, Story, str]]:
    """A real ledger with everybody enrolled and a release in its canary."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    for name, held in PEOPLE.items():
        key = person(name).public_key
        ledger.enrol(
            name=name, public_key=key, roles=held.roles, actor=person("boss"), now=Story().now
        )
    story, release = going(ledger)
    yield ledger, story, release
    ledger.close()


def give_by(told: tuple[Ledger, Story, str], ask: Ask, name: str, reason: str = "r") -> Any:
    """Ask at the door; the story has the entry too."""
    ledger, story, release = told
    story.now += timedelta(minutes=1)
    entry = give(
        ledger, story.state(release), ask, reason=reason, actor=person(name), now=story.now
    )
    story.entries.append(entry)
    return entry


@pytest.mark.parametrize("ask", list(Ask))
@pytest.mark.parametrize("name", ["otto", "olga", "adam", "carl", "ann", "robot"])
def test_the_door_takes_what_the_role_may_ask(told: tuple[Ledger, Story, str], ask: Ask, name: str):
    """Others are told which role it takes, and nothing is written."""
    ledger, story, release = told
    if ask is Ask.RESUME:
        story.do(release, Act.PAUSE)
    before = ledger.head()

    if ask in ALLOWED[name]:
        entry = give_by(told, ask, name)
        heard = pending(story.state(release), PEOPLE, story.entries)
        assert (heard.ask, heard.sequence) == (ask, entry.sequence) if heard else False
        assert entry.body.get("override", False) is (ask is Ask.PROMOTE)
    else:
        with pytest.raises(Refused, match=f"{name} may not {ask} a release; it takes the role"):
            give_by(told, ask, name)
        assert ledger.head() == before


def test_a_command_given_twice_is_refused_until_it_is_answered(told: tuple[Ledger, Story, str]):
    """Also by another person: the first is on its way."""
    _, story, release = told
    first = give_by(told, Ask.PAUSE, "otto")

    with pytest.raises(Refused, match=f"otto asked to pause .* entry {first.sequence}"):
        give_by(told, Ask.PAUSE, "carl")

    story.do(release, Act.PAUSE, answers=first.sequence)
    with pytest.raises(Refused, match="paused already; penstock release resume"):
        give_by(told, Ask.PAUSE, "carl")
    assert give_by(told, Ask.RESUME, "otto")


@pytest.mark.parametrize("ask", list(Ask))
def test_nothing_is_asked_of_what_has_ended(told: tuple[Ledger, Story, str], ask: Ask):
    """The refusal says how it ended."""
    _, story, release = told
    story.do(release, Act.ROLL_BACK)

    with pytest.raises(Refused, match="ended in ROLLED_BACK"):
        give_by(told, ask, "ann" if ask is Ask.PROMOTE else "otto")


@pytest.mark.parametrize(
    ("before", "ask", "said"),
    [
        (lambda s, r: None, Ask.RESUME, "is not paused, it is in CANARY"),
        (lambda s, r: s.do(r, Act.PAUSE), Ask.PROMOTE, "let it go on first"),
        (lambda s, r: s.do(r, Act.AWAIT, 2), Ask.PROMOTE, "penstock release approve"),
    ],
    ids=["resume what goes on", "promote what is paused", "promote what waits"],
)
def test_what_makes_no_sense_here_is_refused_with_what_would(
    told: tuple[Ledger, Story, str], before: Any, ask: Ask, said: str
):
    """A person is told where the release is and which verb they want."""
    _, story, release = told
    before(story, release)

    with pytest.raises(Refused, match=said):
        give_by(told, ask, "ann" if ask is Ask.PROMOTE else "otto")


def test_a_command_says_why_and_is_of_a_release_there_is(told: tuple[Ledger, Story, str]):
    """No reason, no entry; no opening, no entry."""
    ledger, story, release = told
    before = ledger.head()

    with pytest.raises(Refused, match="says why"):
        give_by(told, Ask.PAUSE, "otto", reason=" \n")
    state = story.state(release)
    stray = State(**{**vars(state), "release": "credit/9/us/1"})
    with pytest.raises(LookupError, match="knows no release credit/9/us/1"):
        give(ledger, stray, Ask.PAUSE, reason="r", actor=person("otto"), now=story.now)
    assert ledger.head() == before


def test_the_ledger_takes_commands_of_people_alone(told: tuple[Ledger, Story, str]):
    """Past the door the ledger still asks for a role: a pipeline commands nothing."""
    _, story, release = told

    with pytest.raises(NotEnrolled, match="'command' entry"):
        asked(story, release, Ask.PAUSE, "robot")


def test_a_reason_that_would_steer_a_terminal_is_spelt_out(told: tuple[Ledger, Story, str]):
    """An abort is given by machines too, and must not fail because an error has two lines."""
    entry = give_by(told, Ask.ABORT, "otto", "two\nlines \x1b[2J")

    assert entry.body["reason"] == "two\\nlines \\x1b[2J"
