"""What a step's evidence comes to, and what a release is shown when it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from penstock.rollout.plan import Step
from penstock.rollout.state import Command
from penstock.verdict import Outcome, Verdict


class Effect(StrEnum):
    """How the primary measure of the challenger is against the champion's."""

    BETTER = "better"
    PARITY = "parity"  # no worse by a whole margin
    WORSE = "worse"
    UNCLEAR = "unclear"  # too little is known


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, and what the decision table makes of it."""

    verdict: Verdict
    """Every declared check of the step. Only a pass of all moves forward."""

    effect: Effect
    reason: str
    """One sentence with the numbers that decide: ``trade-off: …``, ``no value: …``."""

    no_value: bool = False
    """Safe and of no use: the policy does not take parity. The release ends, without a strike."""

    critical: str = ""
    """Why it does not wait for a second strike; empty where it may."""

    rows: tuple[Mapping[str, Any], ...] = ()
    """Each check for people and plots: name, estimate, low, high (confidence sequence, in the
    check's own units), limit, outcome, unit, users of each arm, users needed."""

    segments: tuple[Mapping[str, Any], ...] = ()
    """Each slice of users: name, users of each arm, effect of each measure with its bounds."""

    @property
    def outcome(self) -> Outcome:
        """The verdict's outcome."""
        return self.verdict.outcome


@dataclass(frozen=True, kw_only=True)
class Window:
    """What part of the log is evidence."""

    market: str
    champion: str | None
    """Version, as the servers name it; None of a first release."""

    challenger: str
    step: Step
    since: float
    """Unix seconds at which the step's table was in force."""

    opened: float
    """Unix seconds at which the release was opened: what came before is not read."""

    before: float | None = None
    """Unix seconds at which the step before was entered: of the last step, whose users are all on
    the challenger, the champion's users are those of then."""


class Evidence(Protocol):
    """What the reader hands to the judge; the controller looks at these alone."""

    @property
    def newest_at(self) -> float | None:
        """Unix seconds of the challenger's newest record in the window."""
        ...

    def summary(self) -> Mapping[str, Any]:
        """Return counts for the ledger and for plots: requests, users and errors of each arm."""
        ...


class Reader(Protocol):
    """Follows the prediction logs and outcomes."""

    def poll(self) -> None:
        """Take in what was written since the last call."""
        ...

    def evidence(self, window: Window, *, now: float, alive: bool) -> Evidence:
        """Return the evidence of a step. ``alive``: the challenger's process is up and ready."""
        ...


@dataclass(frozen=True, kw_only=True)
class Approved:
    """An answer to what a release waits for, already found to be valid and to bind."""

    sequence: int
    granted: bool
    actor: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Everything that :func:`penstock.rollout.decide.decide` is told, besides plan and state."""

    ready: bool = False
    """The challenger is warm, verified and gave the golden answers."""

    refused: str = ""
    """Why the challenger's server will never be ready, or answers what its package does not say;
    empty while neither is known."""

    judgement: Judgement | None = None
    """Of the step in force; None before the first step."""

    evidence_at: datetime | None = None
    """When the challenger was last seen to answer since the step began."""

    standby_ready: bool = True
    """The champion's slot could take every user back. Forward steps freeze while it could not."""

    drilled: str = ""
    """Why forward steps wait for a rehearsed rollback; empty where none is needed."""

    documents: tuple[str, ...] = ()
    """Required documents that lack."""

    approval: Approved | None = None
    """Of what the state waits for; one that does not bind any more is not here."""

    killed: str = ""
    """Who threw the kill switch and why; empty while it is not thrown."""

    intended: bool = True
    """The table in force is the state's."""

    in_force_buckets: int | None = None
    """Shares of users that the table in force gives the challenger; None where nobody can say."""

    conflict: str = ""
    """Why evidence contradicts itself (clocks, lost records); it is then an error."""

    lifecycle: str = ""
    """Why the version cannot go on, as that it was archived; empty where it can."""

    command: Command | None = None
    """The oldest that is not answered and that its actor may give."""

    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
