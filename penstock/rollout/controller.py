"""The release controller: observe, decide, write the intent, act, read back, confirm."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.ledger import Actor, Ledger, LedgerError, Stage, champion, stage_of
from penstock.processes import undisturbed
from penstock.registered import OPEN
from penstock.rollout.decide import (
    Advance,
    Hold,
    Plan,
    Progress,
    Promote,
    RollBack,
    Step,
    decide,
    plan_of,
)
from penstock.rollout.evidence import Evidence, LogReader
from penstock.rollout.judge import judge
from penstock.rollout.plane import Plane
from penstock.rollout.table import TrafficTable, buckets_for
from penstock.verdict import Verdict
from penstock.workload import Rollout

TICK_S = 0.25
BACK_S = 10.0
"""How long a rollback waits to see its table in force before it says that it did not."""

PROMOTED, ROLLED_BACK = "promoted", "rolled back"


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Who is released over whom. The champion is None for the first version."""

    workload: str
    challenger: int
    challenger_slot: str
    champion: int | None
    champion_slot: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a release ended."""

    outcome: str
    version: int
    reason: str
    seconds: float
    steps: tuple[Mapping[str, Any], ...]
    """Each step: name, percent, seconds, verdict."""

    timeline: tuple[Mapping[str, Any], ...]
    """What was seen at each tick, for the plots."""

    ready_s: float | None = None
    """From start of the slot to ready."""

    detected_s: float | None = None
    """From the beginning of the step to the decision to roll back."""

    rollback_ms: float | None = None
    """From the decision until every user was back on the champion."""


@dataclass(kw_only=True)
class Controller:
    """Carries one challenger through its steps. Every effect is in the ledger before it happens."""

    plane: Plane
    ledger: Ledger
    reader: LogReader
    policy: Rollout
    versions: Versions
    actor: Actor
    emit: Callable[[Mapping[str, Any]], None]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    _sequence: int = 0
    _timeline: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    _steps: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])

    def release(self, *, ready_s: float | None) -> Result:
        """Run the release to its end: promoted or rolled back.

        An exception or an interrupt on the way returns every user to the champion before it goes
        on to the caller; an interrupt is heard between two looks at the evidence, never within a
        change. Tables are numbered from what was written last, so another controller that writes
        meanwhile makes this one's next table, and with it this release, fail.
        """
        plan, started = self._plan(), self.clock()
        self._sequence = self.plane.written().sequence
        with undisturbed() as heed:
            try:
                return self._run(plan, started, ready_s, heed)
            except BaseException as e:
                self._return(f"interrupted by {type(e).__name__}")
                raise

    def _return(self, why: str) -> None:
        """End a release that was interrupted, unless it had reached its end.

        Raises:
            LedgerError: The ledger cannot be read or written; users are back nevertheless.
        """
        slot = self.versions.champion_slot
        try:
            entries = self.ledger.entries(self.versions.workload)
            if champion(entries) == self.versions.challenger:
                slot = self.versions.challenger_slot
                self._apply(self._all_on(slot), why)
                return
            self._apply(self._all_on(slot), why)
            if stage_of(entries, self.versions.challenger) in (Stage.NONE, *OPEN):
                self._archive(f"release {why}")
        except LedgerError:
            # No record is a reason to stop, never one to leave users where harm was seen.
            self._put(self._all_on(slot))
            raise

    def _plan(self) -> Plan:
        plan = plan_of(self.policy)
        if self.versions.champion is not None:
            return plan
        # Nobody else could answer the users: the one step is all of them, before it counts.
        bake = Step(name="first version", percent=100)
        return Plan(
            steps=(bake,),
            soak=plan.soak,
            deadline=plan.deadline,
            evidence_timeout=plan.evidence_timeout,
        )

    def _run(
        self, plan: Plan, started: datetime, ready_s: float | None, heed: Callable[[], None]
    ) -> Result:
        progress, entered = self._enter(plan, 0)
        while True:
            heed()
            self.reader.poll()
            evidence = self._observe(plan.steps[progress.step], entered)
            verdict = judge(self.policy, evidence, shadow=plan.steps[progress.step].shadow)
            progress = self._seen(progress, evidence)
            now = self.clock()
            action = decide(plan, progress, verdict, now)
            self._note(plan.steps[progress.step], started, now, evidence, verdict, action)
            if isinstance(action, Hold):
                self.sleep(TICK_S)
                continue
            self._leave(plan.steps[progress.step], progress, now, verdict)
            if isinstance(action, Advance):
                progress, entered = self._enter(plan, action.step)
            elif isinstance(action, Promote):
                return self._promote(started, verdict, ready_s)
            else:
                return self._roll_back(action, progress, started, now, verdict, ready_s)

    def _enter(self, plan: Plan, index: int) -> tuple[Progress, float]:
        """Put a step's table in force and return where the release stands then."""
        step = plan.steps[index]
        self._climb(step)
        self._apply(self._table(step), step.name)
        entered = time.time()
        self.reader.forget_before(entered)
        now = self.clock()
        self.emit({"event": "step", "name": step.name, "percent": step.percent})
        return Progress(step=index, entered_at=now, evidence_at=now), entered

    def _climb(self, step: Step) -> None:
        """Move the version as far through its lifecycle as the step stands for."""
        first = self.versions.champion is None
        wanted = [Stage.SHADOW] if step.shadow else [Stage.SHADOW, Stage.CANARY]
        reason = "first version: no champion to shadow" if first else f"enters {step.name}"
        for stage in wanted:
            held = stage_of(self.ledger.entries(self.versions.workload), self.versions.challenger)
            if list(Stage).index(held) < list(Stage).index(stage):
                self._move(stage, reason)

    def _observe(self, step: Step, entered: float) -> Evidence:
        champion = self.versions.champion
        return self.reader.evidence(
            since=entered,
            champion=None if champion is None else str(champion),
            challenger=str(self.versions.challenger),
            shadow=step.shadow,
            slow_ratio=self.policy.slow_ratio,
            slow_floor_ms=self.policy.slow_floor_ms,
            alive=self.plane.ready(self.versions.challenger_slot),
        )

    def _seen(self, progress: Progress, evidence: Evidence) -> Progress:
        if evidence.newest_at is None:
            return progress
        newest = datetime.fromtimestamp(evidence.newest_at, UTC)
        return Progress(
            step=progress.step,
            entered_at=progress.entered_at,
            evidence_at=max(progress.evidence_at, newest),
        )

    def _note(
        self,
        step: Step,
        started: datetime,
        now: datetime,
        evidence: Evidence,
        verdict: Verdict,
        action: Hold | Advance | Promote | RollBack,
    ) -> None:
        seen = {
            "at_s": round((now - started).total_seconds(), 3),
            "step": step.name,
            "percent": step.percent,
            "champion": asdict(evidence.champion),
            "challenger": asdict(evidence.challenger),
            "compared": evidence.compared,
            "disagreed": evidence.disagreed,
            "outcome": str(verdict.outcome),
            "action": type(action).__name__,
        }
        self._timeline.append(seen)
        self.emit({"event": "tick", **seen, "reason": getattr(action, "reason", "")})

    def _leave(self, step: Step, progress: Progress, now: datetime, verdict: Verdict) -> None:
        seconds = (now - progress.entered_at).total_seconds()
        left = {"name": step.name, "percent": step.percent, "seconds": round(seconds, 2)}
        self._steps.append({**left, "verdict": verdict.to_dict()})
        self._append("verdict", {**left, "verdict": verdict.to_dict()})
        self.emit(
            {"event": "left", **left, "outcome": str(verdict.outcome), "line": verdict.reason}
        )

    def _promote(self, started: datetime, verdict: Verdict, ready_s: float | None) -> Result:
        self._move(Stage.PRODUCTION, verdict.reason, {"verdict": verdict.to_dict()})
        self._apply(self._all_on(self.versions.challenger_slot), "promoted")
        reason = f"version {self.versions.challenger} answers every user; each step passed"
        return self._result(PROMOTED, reason, started, ready_s)

    def _roll_back(
        self,
        action: RollBack,
        progress: Progress,
        started: datetime,
        decided: datetime,
        verdict: Verdict,
        ready_s: float | None,
    ) -> Result:
        milliseconds = self._apply(
            self._all_on(self.versions.champion_slot), f"roll back: {action.reason}"
        )
        self._archive(action.reason, {"verdict": verdict.to_dict(), "milliseconds": milliseconds})
        detected = (decided - progress.entered_at).total_seconds()
        return self._result(
            ROLLED_BACK,
            action.reason,
            started,
            ready_s,
            detected_s=round(detected, 2),
            rollback_ms=milliseconds,
        )

    def _result(
        self,
        outcome: str,
        reason: str,
        started: datetime,
        ready_s: float | None,
        *,
        detected_s: float | None = None,
        rollback_ms: float | None = None,
    ) -> Result:
        result = Result(
            outcome=outcome,
            version=self.versions.challenger,
            reason=reason,
            seconds=round((self.clock() - started).total_seconds(), 2),
            steps=tuple(self._steps),
            timeline=tuple(self._timeline),
            ready_s=ready_s,
            detected_s=detected_s,
            rollback_ms=rollback_ms,
        )
        said = {k: v for k, v in asdict(result).items() if k not in ("steps", "timeline")}
        self._append("release", said)
        self.emit({"event": "released", **said})
        return result

    def _salt(self) -> str:
        return f"{self.versions.workload}:{self.versions.challenger}"

    def _table(self, step: Step) -> TrafficTable:
        if self.versions.champion is None:
            return self._all_on(self.versions.champion_slot)
        return TrafficTable(
            sequence=self._next(),
            salt=self._salt(),
            champion=self.versions.champion_slot,
            challenger=None if step.shadow else self.versions.challenger_slot,
            buckets=buckets_for(step.percent),
            mirror=self.versions.challenger_slot if step.shadow else None,
        )

    def _all_on(self, slot: str) -> TrafficTable:
        return TrafficTable(
            sequence=self._next(),
            salt=self._salt(),
            champion=slot,
            challenger=None,
            buckets=0,
            mirror=None,
        )

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _apply(self, table: TrafficTable, why: str) -> float:
        """Write the intent, put the table in force, read it back; return the milliseconds it took.

        Raises:
            TimeoutError: Envoy does not show the table.
        """
        self._append("intent", {"table": table.to_dict(), "why": why})
        milliseconds = self._put(table)
        self._append("in force", {"sequence": table.sequence, "milliseconds": milliseconds})
        return milliseconds

    def _put(self, table: TrafficTable) -> float:
        """Put a table in force and read it back; return the milliseconds it took."""
        begun = time.monotonic()
        self.plane.apply(table)
        self.plane.wait_applied(table, timeout_s=BACK_S)
        return round((time.monotonic() - begun) * 1000, 1)

    def _move(self, to: Stage, reason: str, evidence: Mapping[str, Any] | None = None) -> None:
        self.ledger.move(
            workload=self.versions.workload,
            version=self.versions.challenger,
            to=to,
            reason=reason,
            actor=self.actor,
            now=self.clock(),
            evidence=evidence,
        )

    def _archive(self, reason: str, evidence: Mapping[str, Any] | None = None) -> None:
        self._move(Stage.ARCHIVED, reason, evidence)

    def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        self.ledger.append(
            workload=self.versions.workload,
            version=self.versions.challenger,
            kind=kind,
            body=body,
            actor=self.actor,
            now=self.clock(),
        )


def logs_of(plane: Plane) -> dict[str, Path]:
    """Return the folder of each slot's prediction log."""
    return {slot: plane.log_folder(slot) for slot in ("a", "b")}
