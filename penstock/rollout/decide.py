"""Decide what a release does next. Only a pass moves traffic forward; silence never does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from penstock.verdict import Outcome, Verdict
from penstock.workload import Rollout


@dataclass(frozen=True, kw_only=True)
class Step:
    """One planned share of users."""

    name: str
    """``shadow`` or ``canary 10 %``."""

    percent: int
    """Of users, that the challenger answers; 0 in shadow."""

    @property
    def shadow(self) -> bool:
        """Whether the challenger only gets copies."""
        return self.percent == 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a release and the patience at each, in real time."""

    steps: tuple[Step, ...]
    soak: timedelta
    deadline: timedelta
    evidence_timeout: timedelta


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a release stands."""

    step: int
    entered_at: datetime
    evidence_at: datetime
    """When the challenger was last seen to answer; the step's beginning before that."""


@dataclass(frozen=True)
class Hold:
    """Stay at the step."""

    reason: str


@dataclass(frozen=True)
class Advance:
    """Go to the next step."""

    step: int


@dataclass(frozen=True)
class Promote:
    """Make the challenger the champion."""


@dataclass(frozen=True)
class RollBack:
    """Return every user to the champion, at once."""

    reason: str


Action = Hold | Advance | Promote | RollBack


def plan_of(policy: Rollout) -> Plan:
    """Return the plan of a policy: shadow, then its shares; times scaled once, here."""
    shares = tuple(Step(name=_name(percent), percent=percent) for percent in policy.canary_percents)
    return Plan(
        steps=(Step(name="shadow", percent=0), *shares),
        soak=policy.soak * policy.time_scale,
        deadline=policy.deadline * policy.time_scale,
        evidence_timeout=policy.evidence_timeout * policy.time_scale,
    )


def _name(percent: int) -> str:
    return f"canary {percent} %" if percent < 25 else f"progressive {percent} %"


def decide(plan: Plan, progress: Progress, verdict: Verdict, now: datetime) -> Action:
    """Return the next action.

    It is asked at every tick, so the verdict must hold under repeated looks
    (:mod:`penstock.stats.sequential`).

    Args:
        verdict: Of the evidence since the step began.
        now: A clock that was set back never shortens a soak: the wait is then negative.
    """
    waited = now - progress.entered_at
    if verdict.outcome is Outcome.FAIL:
        return RollBack(verdict.reason)
    silent = now - progress.evidence_at
    if silent > plan.evidence_timeout:
        return RollBack(f"no evidence for {_seconds(silent)}; {verdict.reason}")
    if verdict.outcome is Outcome.PASS and waited >= plan.soak:
        last = progress.step == len(plan.steps) - 1
        return Promote() if last else Advance(progress.step + 1)
    if waited > plan.deadline:
        return RollBack(f"no pass within {_seconds(plan.deadline)}; {verdict.reason}")
    if waited < plan.soak:
        return Hold(f"soaking, {_seconds(waited)} of {_seconds(plan.soak)}; {verdict.reason}")
    return Hold(verdict.reason)


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.1f} s"
