"""What a decision looks at: plan, state, what is seen, the time, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.rollout.judgement import Seen
from penstock.rollout.plan import Phase, Plan, Step
from penstock.rollout.state import Ask, Command, State
from penstock.verdict import Outcome


@dataclass(frozen=True)
class Case:
    """All that a rule may look at."""

    plan: Plan
    state: State
    seen: Seen
    now: datetime

    @property
    def step(self) -> Step | None:
        """The step in force; None before the first."""
        return None if self.state.step is None else self.plan.steps[self.state.step]

    @property
    def waited(self) -> timedelta:
        """How long the step has been in force; 0 where the clock was set back."""
        return max(self.now - self.state.entered_at, timedelta(0))

    @property
    def seen_at(self) -> datetime:
        """When the challenger was last known to answer; the step's beginning before that.

        A record from further in the future than evidence may be old is a clock that is wrong.
        """
        at = self.seen.evidence_at
        if at is None or at > self.now + self.plan.evidence_timeout:
            return self.state.entered_at
        return max(at, self.state.entered_at)

    @property
    def contradiction(self) -> str:
        """Why the evidence cannot be what it says it is; empty where it can."""
        at = self.seen.evidence_at
        if self.seen.conflict:
            return self.seen.conflict
        if self.seen.judgement is None:
            return "nothing was judged"
        if self.seen.judgement.outcome is not Outcome.PASS:
            return ""
        if at is None or at < self.state.entered_at:
            return "a pass, but no answer of the challenger since the step began"
        if at > self.now + self.plan.evidence_timeout:
            return f"an answer of the challenger at {at.isoformat()}, which is yet to come"
        return ""

    @property
    def outcome(self) -> Outcome:
        """What the evidence comes to: an error where there is none, or none that can be."""
        judged = self.seen.judgement
        if judged is None or (self.contradiction and judged.outcome is not Outcome.FAIL):
            return Outcome.ERROR
        return judged.outcome

    @property
    def reason(self) -> str:
        """The evidence in one sentence."""
        judged = self.seen.judgement
        return self.contradiction or ("" if judged is None else judged.reason)

    @property
    def deadline(self) -> datetime:
        """When the step in force must have passed; each extension is one more of its times."""
        assert self.step is not None
        return self.state.entered_at + (1 + self.state.extended) * self.step.deadline

    @property
    def displaced(self) -> bool:
        """Whether another table than the state's is in force."""
        return self.state.table is not None and not self.seen.intended

    @property
    def unrestorable(self) -> tuple[str, str]:
        """Why the state's table would move users forward now, and what that waits for.

        To restore a share of users that somebody took home is as much as to enter its step.
        """
        held, table = self.seen.in_force_buckets, self.state.table
        if table is None or held is None or table.buckets <= held:
            return "", ""
        if not self.seen.ready:
            return "the challenger's server is not ready", "server"
        if not self.seen.standby_ready:
            return "the champion's server is not ready", "standby"
        if self.state.phase is Phase.PAUSED:
            return "paused", "person"
        return self._erring, "evidence"

    @property
    def _erring(self) -> str:
        """Why evidence is an error, for another reason than that the challenger has no answer."""
        at, judged = self.seen.evidence_at, self.seen.judgement
        if self.seen.conflict:
            return self.seen.conflict
        answered = at is not None and at >= self.state.entered_at
        wrong = answered and judged is not None and judged.outcome is Outcome.ERROR
        return judged.reason if wrong and judged is not None else ""

    @property
    def frozen_by_person(self) -> bool:
        """Whether a person must speak before anything goes on by itself."""
        return self.state.phase in (Phase.PAUSED, Phase.AWAIT)

    @property
    def cooling(self) -> timedelta:
        """Least time at the step in force."""
        assert self.step is not None
        if self._stepped_back and not self.promote:
            return max(self.step.soak, self.plan.cool_down)
        return self.step.soak

    @property
    def recovering(self) -> bool:
        """Whether it was sent back as far as where no user is on it."""
        return self.step is not None and self.step.shadow and self._stepped_back

    @property
    def _stepped_back(self) -> bool:
        return (self.state.within or self.state.phase) is Phase.STEPPED_BACK

    @property
    def promote(self) -> Command | None:
        """What a person asked, where it was to go on."""
        command = self.seen.command
        return command if command is not None and command.ask is Ask.PROMOTE else None

    @property
    def target(self) -> int:
        """Index of the step that comes next; one past the last where none does."""
        return 0 if self.state.step is None else self.state.step + 1

    @property
    def next(self) -> Step | None:
        """The step that comes next."""
        return self.plan.steps[self.target] if self.target < len(self.plan.steps) else None
