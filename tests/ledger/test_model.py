"""Any sequence of moves, lawful or not, leaves the ledger where a model in memory stands."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.ledger import (
    Conflict,
    Ledger,
    LedgerError,
    Stage,
    champion,
    deployable,
    serving_order,
    stage_of,
)
from tests.ledger.steps import NOW, note, register
from tests.people import person

FORWARD = ["NONE", "STAGING", "SHADOW", "CANARY", "PRODUCTION"]
VERSIONS = st.integers(1, 6)


class Model:
    """The lifecycle in its own words: a stage for each version, and who entered production when."""

    def __init__(self) -> None:
        self.stages: dict[int, str] = {}
        self.entered: list[int] = []

    def live(self) -> list[int]:
        """Return the versions in production, newest first."""
        return [v for v in reversed(self.entered) if self.stages[v] == "PRODUCTION"]

    def may(self, version: int, to: str, *, override: bool) -> bool:
        """Return whether the move exists and leaves a way back."""
        at = self.stages.get(version)
        if to != "ARCHIVED":
            return at in FORWARD[:4] and to == FORWARD[FORWARD.index(at) + 1]
        if at == "ARCHIVED":
            return False
        live = self.live()
        if version not in live or override:
            return True
        return live.index(version) > 2 or (live[0] == version and len(live) > 1)

    def move(self, version: int, to: str) -> None:
        """Take a move that may be."""
        self.stages[version] = to
        if to == "PRODUCTION":
            self.entered.append(version)


class Lives(RuleBasedStateMachine):
    """Registers, moves and notes in any order, and checks each against the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(f"sqlite:///{Path(self.folder.name) / 'ledger.db'}")
        self.model, self.length = Model(), 0

    def tried(self, lawful: bool, act: Any) -> None:
        """Carry out an act, which must be taken if and only if it is lawful."""
        try:
            act()
        except LedgerError:
            assert not lawful
        else:
            assert lawful
            self.length += 1 if self.length else 2

    @rule(version=VERSIONS)
    def register(self, version: int) -> None:
        """Register a version, perhaps again."""
        new = version not in self.model.stages
        self.tried(new, lambda: register(self.ledger, version))
        self.model.stages.setdefault(version, "NONE")

    @rule(version=VERSIONS, to=st.sampled_from(Stage), override=st.sampled_from(["", "", "why"]))
    def move(self, version: int, to: Stage, override: str) -> None:
        """Move a version anywhere."""
        lawful = version in self.model.stages and self.model.may(
            version, to, override=bool(override)
        )
        if version not in self.model.stages and to is Stage.ARCHIVED:
            return
        self.tried(
            lawful,
            lambda: self.ledger.move(
                workload="digits", version=version, to=to, reason="t", actor=person(), now=NOW,
                override=override,
            ),
        )  # fmt: skip
        if lawful:
            self.model.move(version, to)

    @rule(version=VERSIONS)
    def promote(self, version: int) -> None:
        """Take a version as far as it goes, so that several reach production."""
        if version not in self.model.stages:
            self.register(version)
        for stage in FORWARD[1:]:
            if self.model.may(version, stage, override=False):
                self.move(version, Stage(stage), "")

    @rule(place=st.integers(0, 3), override=st.sampled_from(["", "why"]))
    def archive(self, place: int, override: str) -> None:
        """Take away the champion, or one behind it."""
        live = self.model.live()
        if place < len(live):
            self.move(live[place], Stage.ARCHIVED, override)

    @rule(behind=st.integers(0, 2))
    def decide(self, behind: int) -> None:
        """Append to the head that was read, which is perhaps no longer it."""
        sequence = self.ledger.head().sequence
        try:
            note(self.ledger, expect=sequence - behind)
        except Conflict:
            assert behind
        else:
            assert not behind
            self.length += 1 if self.length else 2

    @invariant()
    def it_stands_where_the_model_stands(self) -> None:
        """Stages, champion and the order behind it agree."""
        entries = self.ledger.entries("digits")
        for version, stage in self.model.stages.items():
            assert stage_of(entries, version) == stage
        live = self.model.live()
        assert serving_order(entries) == live
        assert champion(entries) == (live[0] if live else None)
        assert deployable(entries) == live[:3]

    def teardown(self) -> None:
        """Check the whole chain once more, and remove the file."""
        assert self.ledger.verify() == self.length
        self.ledger.close()
        self.folder.cleanup()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
