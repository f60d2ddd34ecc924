"""One simulated release: the declared plan, the real judge, the real decisions, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from benchmarks.rollout.people import OPENED, People, Requests, Version, joined
from penstock.release import EVERYWHERE, Measure, Rollout, Shadow
from penstock.rollout.decide import Action, decide
from penstock.rollout.effects import Effect, took_effect
from penstock.rollout.evidence import NOBODY, Answers, Evidence
from penstock.rollout.judge import judge
from penstock.rollout.judgement import Judgement, Seen
from penstock.rollout.plan import ENDED, Phase, Plan, plan_of
from penstock.rollout.state import Act, Pending, State
from penstock.rollout.table import buckets_for
from penstock.verdict import Outcome

POLICY = Rollout(
    canary_percents=(10, 25, 50, 100),
    shadow_soak=timedelta(minutes=30),
    soak=timedelta(hours=4),
    progressive_soak=timedelta(hours=1),
    bake=timedelta(hours=1),
    cool_down=timedelta(minutes=30),
    deadline=timedelta(hours=12),
    primary=Measure(name="clicks", source="label", margin=0.03, deviation=0.25),
    shadow=Shadow(max_disagreement_share=0.15, min_spearman=0.8),
    max_error_ratio=1.5,
)
"""Half a day's release of a service with six requests a second, at the levels of the defaults."""

SMALL = replace(
    POLICY,
    soak=timedelta(hours=1),
    progressive_soak=timedelta(minutes=30),
    bake=timedelta(minutes=30),
    deadline=timedelta(hours=3),
    primary=Measure(name="clicks", source="label", margin=0.06, deviation=0.25),
    max_error_ratio=2.5,
)
"""A release for few users, with margins that few can show: for tests."""

LOOK_S = 600.0
"""Seconds between two looks."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A failed check, and what it took."""

    step: str
    why: str
    checks: tuple[str, ...]
    after_s: float
    """Since the step began."""

    challenger_requests: int
    failing_users: int
    """Of both arms."""

    critical: bool


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a simulated release ended."""

    phase: Phase
    reason: str
    seconds: float
    looks: int
    strikes: tuple[Strike, ...]

    @property
    def promoted(self) -> bool:
        """Whether all users are left with the challenger."""
        return self.phase is Phase.DONE


@dataclass
class _Running:
    """A release on its way."""

    plan: Plan
    people: People
    version: Version
    state: State
    now_s: float = 0.0
    looks: int = 0
    parts: list[Requests] = field(default_factory=list[Requests])
    before: Answers = NOBODY
    """The champion's at the step before."""

    earlier: Answers = NOBODY
    strikes: list[Strike] = field(default_factory=list[Strike])

    @property
    def now(self) -> datetime:
        return OPENED + timedelta(seconds=self.now_s)


def released(plan: Plan, people: People, version: Version, *, look_s: float = LOOK_S) -> Ended:
    """Carry a release from its opening to its end, looking every ``look_s``."""
    running = _Running(plan, people, version, _opened())
    judged, evidence = None, None
    while running.state.phase not in ENDED:
        seen = Seen(ready=True, judgement=judged, evidence_at=running.now)
        action = decide(plan, running.state, seen, running.now)
        if action.act is None:
            evidence = _observed(running, look_s)
            step = plan.steps[running.state.step or 0]
            judged = judge(plan, evidence, step, now=running.now)
            running.looks += 1
            continue
        if action.strike and judged is not None and evidence is not None:
            running.strikes.append(_strike(running, action, judged, evidence))
        _begin(running, action, evidence)
        judged, evidence = None, None
    return Ended(
        phase=running.state.phase,
        reason=running.state.reason,
        seconds=running.now_s,
        looks=running.looks,
        strikes=tuple(running.strikes),
    )


def canary(people: People, version: Version, plan: Plan, *, hours: float) -> Requests:
    """Return the requests of a canary alone, for rules that know nothing else."""
    buckets = buckets_for(plan.steps[1].percent)
    return people.requests(version, begins_s=0.0, ends_s=3600 * hours, buckets=buckets)


def evidence_of(requests: Requests, *, until_s: float) -> Evidence:
    """Return what is known of a canary's requests at a time."""
    return _evidence(requests.until(until_s), NOBODY, NOBODY, until_s)


def policy_plan(policy: Rollout = POLICY) -> Plan:
    """Return the plan of the simulated policy."""
    return plan_of(policy)


def _opened() -> State:
    return State(
        release="streamrec/2/all/1",
        workload="streamrec",
        market=EVERYWHERE,
        phase=Phase.PREPARE,
        step=None,
        opened_at=OPENED,
        entered_at=OPENED,
    )


def _begin(running: _Running, action: Action, evidence: Evidence | None) -> None:
    """Put an action in force: what the loop does, without a data plane."""
    state, plan = running.state, running.plan
    assert action.act is not None
    pending = Pending(
        n=state.n + 1, act=action.act, step=action.step, table=None, why=action.why, body={}
    )
    phases = tuple(step.phase for step in plan.steps)
    effect = Effect(pending=pending, at=running.now, phases=phases)
    running.state = replace(
        took_effect(state, effect),
        n=pending.n,
        reason=action.why,
        strikes=state.strikes + (action.strike or action.act is Act.STEP_BACK),
    )
    if action.act in (Act.ENTER, Act.STEP_BACK):
        if evidence is not None and len(evidence.champion):
            running.before = evidence.champion
        if state.step == 0 and evidence is not None:
            running.earlier = evidence.champion
        running.parts = []


def _observed(running: _Running, look_s: float) -> Evidence:
    """Let time go on and return what is known of the step then."""
    step = running.plan.steps[running.state.step or 0]
    ends_s = running.now_s + look_s
    running.parts.append(
        running.people.requests(
            running.version,
            begins_s=running.now_s,
            ends_s=ends_s,
            buckets=buckets_for(step.percent),
        )
    )
    running.now_s = ends_s
    requests = joined(running.parts)
    running.parts = [requests]
    if step.shadow:
        return _shadowed(running, requests)
    return _evidence(requests, running.before, running.earlier, ends_s)


def _shadowed(running: _Running, requests: Requests) -> Evidence:
    answers, copies = running.people.copies(running.version, requests)
    return Evidence(
        challenger=answers,
        champion=requests.answers(challenger=False),
        copies=copies,
        newest_at=running.now.timestamp(),
    )


def _evidence(requests: Requests, before: Answers, earlier: Answers, until_s: float) -> Evidence:
    champion = requests.answers(challenger=False)
    return Evidence(
        challenger=requests.answers(challenger=True),
        champion=champion if len(champion) else before,
        earlier=earlier,
        newest_at=OPENED.timestamp() + until_s,
    )


def _strike(running: _Running, action: Action, judged: Judgement, evidence: Evidence) -> Strike:
    step = running.plan.steps[running.state.step or 0]
    return Strike(
        step=step.name,
        why=action.why,
        checks=tuple(failed(judged)),
        after_s=(running.now - running.state.entered_at).total_seconds(),
        challenger_requests=len(evidence.challenger),
        failing_users=sum(
            len(np.unique(arm.user_n[arm.failed_n]))
            for arm in (evidence.challenger, evidence.champion)
        ),
        critical=action.critical,
    )


def failed(judged: Judgement) -> Iterator[str]:
    """Give the names of the checks that failed."""
    return (check.name for check in judged.verdict.checks if check.outcome is Outcome.FAIL)
