"""Observe: everything that a decision is told, gathered once, at one moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.ledger import Entry, Ledger, Stage, stage_of
from penstock.ledger.standing import standings
from penstock.rollout import approvals, commands, documents
from penstock.rollout import judge as judging
from penstock.rollout.judgement import Evidence, Judgement, Reader, Seen, Window
from penstock.rollout.kill import KILL
from penstock.rollout.opened import Opened, Placed
from penstock.rollout.plan import Plan
from penstock.rollout.ports import DataPlane, Foreign, TableError
from penstock.rollout.state import IN_FORCE, INTENT, OPENED, Act, State
from penstock.rollout.table import BUCKETS
from penstock.verdict import Outcome

SKEWED_S = 5.0
"""Records are dated by the wall clock: this far off the ledger's time they cannot be placed."""


def _never(_placed: Placed) -> str:
    return ""


def _steady() -> float:
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What was seen, and the counts behind it for people."""

    seen: Seen
    summary: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Observer:
    """Reads plane, logs and ledger; changes nothing."""

    plane: DataPlane
    reader: Reader
    ledger: Ledger
    judge: Callable[..., Judgement] = judging.judge
    """What a step's evidence comes to: plan, evidence, step, now."""

    ready: Callable[[Placed], bool] | None = None
    """Whether a version is up and ready in its slot; None asks the plane whether the slot is."""

    refused: Callable[[Placed], str] = _never
    """Why a version's server will never be ready; empty while it may."""

    wrong: Callable[[Placed], str] = _never
    """How the golden answers of a version that is ready are wrong; empty where they are right."""

    drilled: Callable[[Sequence[Entry], datetime], str] = lambda _entries, _now: ""
    """Why forward steps wait for a rehearsed rollback; empty where none is needed."""

    ahead_s: Callable[[], float] = _steady
    """How far the controller's time is ahead of the wall clock."""

    late_s: float = 0.0
    """How much later than its answer a record may be read. Evidence is then that of so long ago:
    what came since is there of some pods and of others not, and one arm would seem to be silent."""

    standby: Callable[[str], bool] | None = None
    """Whether a slot could take every user back; None asks the plane whether it is ready."""

    _sound: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """Of a release: newest answer that was part of evidence without a contradiction."""

    def look(
        self, opened: Opened, plan: Plan, state: State, entries: Sequence[Entry], now: datetime
    ) -> Glance:
        """Return what is to be seen of a release without a pending intent."""
        ready = self._is_ready(opened.challenger)
        evidence, judgement = self._judged(opened, plan, state, entries, now, alive=ready)
        intended, held, unread = self._table(opened, state)
        conflict = unread or self._skewed()
        evidence_at = self._sound_at(state, evidence, judgement, conflict)
        if judgement is not None and not intended and not _counts(judgement):
            # It is of users under two tables; the step begins anew when its own is back.
            judgement = None
        roles = standings(self.ledger)
        version = opened.challenger.version
        seen = Seen(
            ready=ready,
            refused=(self.wrong if ready else self.refused)(opened.challenger),
            judgement=judgement,
            evidence_at=evidence_at,
            standby_ready=opened.champion is None or self._stands_by(opened.champion.slot),
            drilled=self.drilled(entries, now),
            documents=documents.lacking(entries, version, plan.documents),
            approval=approvals.binding(entries, state, plan, roles=roles, now=now),
            killed=self.plane.killed() or killed_since(entries, opened),
            intended=intended,
            in_force_buckets=held,
            conflict=conflict,
            lifecycle=_archived(entries, version),
            command=commands.pending(state, roles, entries),
        )
        return Glance(seen=seen, summary={} if evidence is None else evidence.summary())

    def _judged(
        self,
        opened: Opened,
        plan: Plan,
        state: State,
        entries: Sequence[Entry],
        now: datetime,
        *,
        alive: bool,
    ) -> tuple[Evidence | None, Judgement | None]:
        self.reader.poll()
        if state.step is None or state.step >= len(plan.steps):
            return None, None
        window = window_of(opened, plan, state, entries)
        known = now - timedelta(seconds=self.late_s)
        evidence = self.reader.evidence(window, now=known.timestamp(), alive=alive)
        return evidence, self.judge(plan, evidence, window.step, now=known)

    def _sound_at(
        self,
        state: State,
        evidence: Evidence | None,
        judgement: Judgement | None,
        conflict: str,
    ) -> datetime | None:
        """Return when the challenger answered last; what contradicts itself is no news of it."""
        if evidence is None or judgement is None or evidence.newest_at is None:
            return None
        # Silence counts from when a newer record would have been there.
        newest = datetime.fromtimestamp(evidence.newest_at + self.late_s, UTC)
        kept = self._sound.get(state.release)
        if conflict or judgement.outcome is Outcome.ERROR:
            # Another process may have met the same error before: to begin anew is no news either.
            return kept
        self._sound[state.release] = newest
        return newest

    def _is_ready(self, placed: Placed) -> bool:
        return self.plane.ready(placed.slot) if self.ready is None else self.ready(placed)

    def _stands_by(self, slot: str) -> bool:
        return self.plane.ready(slot) if self.standby is None else self.standby(slot)

    def _table(self, opened: Opened, state: State) -> tuple[bool, int | None, str]:
        """Return whether the table in force is the state's, the challenger's buckets, a problem.

        Where nobody says, that is no no.
        """
        if state.table is None:
            return True, None, ""
        try:
            found = self.plane.observe(state.market)
        except Foreign:
            return False, None, ""
        except TableError as e:
            return True, None, f"the table in force cannot be read: {e}"
        on = sum(found.slot_for(b) == opened.challenger.slot for b in range(BUCKETS))
        return found == state.table, on, ""

    def _skewed(self) -> str:
        ahead_s = self.ahead_s()
        if abs(ahead_s) <= SKEWED_S:
            return ""
        where = "behind" if ahead_s > 0 else "ahead of"
        return (
            f"this machine's clock is {abs(ahead_s):.0f} s {where} the ledger's time, so records "
            "cannot be placed in their step"
        )


def window_of(opened: Opened, plan: Plan, state: State, entries: Sequence[Entry]) -> Window:
    """Return the part of the log that is evidence for the step in force.

    Raises:
        ValueError: No step is in force.
    """
    if state.step is None:
        raise ValueError(f"{state.release} is in no step, so there is no evidence to read.")
    step = plan.steps[state.step]
    before = _shared_since(plan, state, entries) if step.percent == 100 else None
    return Window(
        market=opened.market,
        champion=None if opened.champion is None else str(opened.champion.version),
        challenger=str(opened.challenger.version),
        step=step,
        since=state.entered_at.timestamp(),
        opened=state.opened_at.timestamp(),
        before=before,
    )


def _shared_since(plan: Plan, state: State, entries: Sequence[Entry]) -> float | None:
    """Return when the last step was entered at which the champion still had users."""
    found: float | None = None
    entering: dict[int, bool] = {}
    for entry in entries:
        body = entry.body
        if body.get("release") != state.release:
            continue
        if entry.kind == INTENT and body["action"] in (Act.ENTER, Act.STEP_BACK):
            index = body["step"]
            entering[body["n"]] = index < len(plan.steps) and plan.steps[index].percent < 100
        elif entry.kind == IN_FORCE and entering.pop(body["n"], False):
            found = datetime.fromisoformat(entry.at).timestamp()
    return found


def killed_since(entries: Sequence[Entry], opened: Opened) -> str:
    """Return who killed the challenger since its release was opened; empty where nobody did.

    The switch may have been thrown and cleared while nobody carried the release.
    """
    begun = False
    for entry in entries:
        body = entry.body
        begun = begun or (entry.kind == OPENED and body.get("release") == opened.release)
        if begun and entry.kind == KILL and str(opened.challenger.version) in body["killed"]:
            return f"{body['by']} sent everybody to slot {body['to']}: {body['reason']}"
    return ""


def _counts(judgement: Judgement) -> bool:
    """Return whether it says something under whatever table: harm at once, or that it is none."""
    return bool(judgement.critical) or judgement.outcome is Outcome.ERROR


def _archived(entries: Sequence[Entry], version: int) -> str:
    if stage_of(entries, version) is not Stage.ARCHIVED:
        return ""
    return f"version {version} was archived while it was being released"
