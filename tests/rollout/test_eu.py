"""The EU's plan to its end: no new user is on a version without a person's yes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from penstock.ledger import Ledger
from penstock.ledger.standing import standings
from penstock.rollout import approvals, commands, documents
from penstock.rollout.decide import Action, decide
from penstock.rollout.judgement import Effect, Judgement, Seen
from penstock.rollout.plan import Phase
from penstock.rollout.state import Act, Ask, State
from penstock.verdict import Check, Outcome, Verdict
from penstock.workload import load
from tests.people import person
from tests.rollout.markets import ROLES, Story

PASS = Judgement(
    verdict=Verdict((Check(name="all", outcome=Outcome.PASS, reason="told"),)),
    effect=Effect.PARITY,
    reason="all is well",
)


class House:
    """A release of credit in the EU, its ledger, and a controller without a plane."""

    def __init__(self, folder: Path) -> None:
        """Register version 3 and open its release."""
        self.folder = folder
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.story = Story(self.ledger, load("credit").rollout)
        for name, held in ROLES.items():
            self.ledger.enrol(
                name=name, public_key=person(name).public_key, roles=held.roles,
                actor=person("boss"), now=self.story.now,
            )  # fmt: skip
        self.story.register(3)
        self.release = self.story.open(3, "eu")
        self.plan = self.story.plan("eu")

    @property
    def state(self) -> State:
        """Where the release stands."""
        return self.story.state(self.release)

    def tick(self) -> Action:
        """Look, decide and do, as the controller does; every step's soak is over."""
        story, plan = self.story, self.plan
        story.now += timedelta(hours=1)
        story.entries = self.ledger.entries("credit")
        state = self.state
        roles = standings(self.ledger)
        named = {"roles": roles, "now": story.now}
        seen = Seen(
            ready=True,
            judgement=None if state.step is None else PASS,
            evidence_at=story.now,
            documents=documents.lacking(story.entries, 3, plan.documents),
            approval=approvals.binding(story.entries, state, plan, **named),
            command=commands.pending(state, roles, story.entries),
        )
        action = decide(plan, state, seen, story.now)
        if action.act is not None:
            mark = f"verdict {story.now}" if action.act is Act.AWAIT else ""
            named_act = {"fingerprint": mark, "answers": action.answers}
            story.do(self.release, action.act, action.step, **named_act)
        return action

    def until(self, waits_for: str) -> list[Action]:
        """Tick until the release waits for something, or ends; return what was done."""
        done: list[Action] = []
        for _ in range(30):
            action = self.tick()
            if action.waits_for == waits_for or action.act is Act.FINISH:
                return done
            done.append(action)
        raise AssertionError(f"never waited for {waits_for}: {done}")

    def attach(self, name: str, text: str) -> None:
        """Attach a document, of the check as if it had been computed."""
        file = self.folder / f"{name}.txt"
        file.write_text(text)
        documents.attach(
            self.folder, self.ledger, "credit", 3, name, file, actor=person("carl"),
            now=self.story.now, computed=True,
        )  # fmt: skip

    def approve(self) -> None:
        """Let ann approve what waits."""
        named = {"reason": "fine", "actor": person("ann"), "now": self.story.now}
        approvals.grant(self.ledger, self.state, self.plan, **named)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A release that was opened."""
    made = House(tmp_path)
    yield made
    made.ledger.close()


def test_five_shares_of_users_take_five_approvals(house: House):
    """Shadow goes by itself, the documents come first, then each step waits; the bake follows."""
    house.until("documents")
    assert house.state.phase is Phase.SHADOW
    for name in house.plan.documents:
        house.attach(name, f"the {name}")

    entered: list[int] = []
    for approved in range(6):
        done = house.until("approval")
        entered += [house.plan.steps[a.step].percent for a in done if a.act is Act.ENTER]
        if approved < 5:
            assert entered == [5, 10, 25, 50][:approved]
            house.approve()

    assert entered == [5, 10, 25, 50, 100, 100]
    assert house.state.phase is Phase.DONE
    answered = [e.body["answers"] for e in house.story.entries if e.body.get("answers")]
    assert len(set(answered)) == 5, "one approval each, none twice"


def test_an_approval_does_not_outlive_what_it_was_given_for(house: House):
    """A document replaced after it, and the release waits on; approved again, it goes."""
    for name in house.plan.documents:
        house.attach(name, f"the {name}")
    house.until("approval")
    house.approve()
    house.attach("dpia", "another risk was found")

    assert house.tick().waits_for == "approval"
    assert house.tick().waits_for == "approval"

    house.approve()
    assert house.tick().act is Act.ENTER


def test_a_command_to_go_back_comes_before_an_approval(house: House):
    """Both are there at the next look; the users go back and the release has ended."""
    for name in house.plan.documents:
        house.attach(name, f"the {name}")
    house.until("approval")
    house.approve()
    named = {"reason": "complaints", "actor": person("carl"), "now": house.story.now}
    entry = commands.give(house.ledger, house.state, Ask.ROLL_BACK, **named)

    action = house.tick()

    assert (action.act, action.answers) == (Act.ROLL_BACK, entry.sequence)
    assert house.state.phase is Phase.ROLLED_BACK
