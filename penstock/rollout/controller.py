"""The release loop: observe, decide, append the intent, act, read back, append the outcome.

A controller keeps nothing that matters: each tick folds the ledger, so another process goes on
where one was cut. Every append names the end of the chain it was decided on, and every table
carries a sequence number, so of two controllers one alone acts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from penstock.ledger import Actor, Conflict, Entry, Ledger, LedgerError, Stage, stage_of
from penstock.release import Rollout
from penstock.rollout.asks import page_due
from penstock.rollout.carrying import FORWARD, Carrier, Overtaken, Unmoved, put
from penstock.rollout.decide import Action, decide, reconsider, replanned
from penstock.rollout.folding import BACKWARD, fold, plan_in_force
from penstock.rollout.journal import Journal, Told, unheard
from penstock.rollout.judgement import Seen
from penstock.rollout.looks import look, plain
from penstock.rollout.observing import Glance, Observer, killed_since
from penstock.rollout.opened import Opened, opened_of
from penstock.rollout.past import PAGED, past_of, share_percent
from penstock.rollout.plan import ENDED, Phase, Plan, declared
from penstock.rollout.ports import Clock, DataPlane, Lease, Notifier, TableError
from penstock.rollout.state import INTENT, Act, Pending, State
from penstock.rollout.table import TrafficTable
from penstock.rollout.tables import table_for
from penstock.rollout.watchdog import exposed, returned

FROZEN = frozenset({Phase.PROGRESSIVE, Phase.BAKE})
"""Phases whose traffic stays as it is when nobody carries the release any more."""

ELSEWHERE = "controller"
"""What a controller waits for while another one holds the lease."""


@dataclass(kw_only=True)
class Controller:
    """Carries one release, a tick at a time."""

    release: str
    policy: Rollout
    plane: DataPlane
    ledger: Ledger
    lease: Lease
    clock: Clock
    notifier: Notifier
    observer: Observer
    actor: Actor
    note: Callable[[Told], None] = unheard
    """Takes each look."""

    waits_for: str = ""
    """What the last look waited for; :data:`ELSEWHERE` where another one carries the release."""

    why: str = ""
    problem: str = ""
    """Why the last tick could not do what was decided; empty where it could."""

    @property
    def journal(self) -> Journal:
        """Its part of the ledger."""
        return Journal(
            release=self.release,
            ledger=self.ledger,
            clock=self.clock,
            actor=self.actor,
            tell=self.notifier.tell,
        )

    def tick(self) -> State:
        """Look once, act if there is anything to do, and return where the release stands.

        Raises:
            LedgerError: The ledger cannot be read or written. All users are with the champion then:
                without a record nobody is left where harm may be.
        """
        self.problem = ""
        try:
            return self._once()
        except Conflict:
            return self.journal.state()
        except TableError as e:
            self.problem = str(e)
            self.journal.say("unmoved", str(e))
            return self.journal.state()
        except LedgerError:
            self.bring_back()
            raise

    def hold(self) -> bool:
        """Return whether this controller carries the release; it does from now on, where it can."""
        _, entries = self.journal.read()
        state = fold(entries, self.release)
        if state.phase in ENDED:
            # A lease of what has ended would run out, and a watchdog act on it.
            return False
        held = self._holds(state, entries, self.journal.now(entries))
        if not held:
            self.waits_for, self.why = ELSEWHERE, "another controller carries it"
        return held

    def bring_back(self) -> None:
        """Give everybody to the champion without asking the ledger; where the plane lets it."""
        with suppress(TableError):
            held = self.plane.written(self.journal.market)
            if exposed(held):
                put(self.plane, returned(held))

    def _once(self) -> State:
        head, entries = self.journal.read()
        state, now = fold(entries, self.release), self.journal.now(entries)
        if state.phase in ENDED:
            self.lease.release(self.release)
            return state
        if not self._holds(state, entries, now):
            self.waits_for, self.why = ELSEWHERE, "another controller carries it"
            return state
        pending = state.pending
        if pending is None or self._reconsidered(pending, entries):
            return self._decide(head, entries, state, now)
        return self._finish(pending, entries)

    def _reconsidered(self, pending: Pending, entries: Sequence[Entry]) -> bool:
        """Return whether an intent that was found is decided again before it is finished.

        Hours may have passed since: a step forward of which nothing was done needs its reasons now.
        """
        if pending.act in BACKWARD:
            return False
        if self.plane.killed() or killed_since(entries, opened_of(entries, self.release)):
            return True
        again = pending.act in FORWARD or pending.act is Act.RESTORE
        return again and not self._begun(pending, entries)

    def _begun(self, pending: Pending, entries: Sequence[Entry]) -> bool:
        """Return whether a step forward was taken, though perhaps not to its end."""
        journal = self.journal
        stage = stage_of(entries, journal.version)
        moved = pending.act is Act.FINISH and stage is Stage.PRODUCTION
        return moved or self.plane.written(journal.market) == pending.table

    def _holds(self, state: State, entries: Sequence[Entry], now: datetime) -> bool:
        freeze = _freezes(state, entries)
        if self.lease.renew(self.release, now, freeze=freeze):
            return True
        taken = self.lease.acquire(self.release, now)
        return taken and self.lease.renew(self.release, now, freeze=freeze)

    def _decide(
        self,
        head: int,
        entries: Sequence[Entry],
        state: State,
        now: datetime,
        *,
        overtaken: Overtaken | None = None,
    ) -> State:
        """Look, and do what follows.

        Args:
            state: An intent that is pending stays, if the same follows again, or nothing.
            overtaken: Why the pending intent cannot be finished as it was written.
        """
        opened = opened_of(entries, self.release)
        plan = opened.plan(self.policy)
        changed = declared(plan_in_force(entries, self.release)) != plan.fingerprint()
        before = replace(state, pending=None)
        glance = self.observer.look(opened, plan, before, entries, now)
        action = _action(plan, state, glance.seen, now, changed=changed)
        seen = self._noted(opened, plan, state, glance, action, now)
        self.waits_for, self.why = action.waits_for, action.why
        if action.act is None:
            self._page(entries, state, seen, now)
            return state
        pending = state.pending
        if pending is not None and (action.act, action.step) == (pending.act, pending.step):
            if overtaken is None:
                return self._finish(pending, entries)
            if isinstance(overtaken, Unmoved):
                # Each look would write one more intent, for as long as nobody takes the table.
                raise TableError(str(overtaken))
        if action.act is Act.RESTORE and self._is_written(state):
            # It is only not read back yet: nobody is taken back from a step for that.
            return state
        if action.act in BACKWARD:
            # Should this process end before the table is in force, nobody is to be left there.
            self.lease.renew(self.release, now, freeze=False)
        held = self.plane.written(state.market)
        table = table_for(
            action, plan, before, opened.slots, sequence=held.sequence + 1, salt=self.release
        )
        body = _intent(state, action, table, glance.seen, seen)
        if changed and action.act is Act.ENTER:
            body |= {"plan": plan.to_dict(), "plan_hash": plan.fingerprint()}
        if action.act is Act.RESTORE:
            body["found"] = held.to_dict()
        self.journal.append(INTENT, body, self.journal.now(entries), expect=head)
        return self._go_on(state.n + 1)

    def _is_written(self, state: State) -> bool:
        """Return whether the table that is written is the one that a pending intent wants."""
        pending = state.pending
        wanted = None if pending is None else pending.table
        return wanted is not None and self.plane.written(state.market) == wanted

    def _go_on(self, n: int) -> State:
        """Carry out the intent that was just written, unless somebody else did."""
        entries = self.ledger.entries(self.journal.workload)
        state = fold(entries, self.release)
        if state.pending is None or state.pending.n != n:
            return state
        return self._finish(state.pending, entries)

    def _finish(self, pending: Pending, entries: Sequence[Entry]) -> State:
        carrier = Carrier(journal=self.journal, plane=self.plane, policy=self.policy)
        try:
            carrier.finish(pending, entries)
        except Overtaken as e:
            return self._instead(pending, e)
        return self.journal.state()

    def _instead(self, pending: Pending, overtaken: Overtaken) -> State:
        """Decide again; what moves users back is not decided again, but done with a newer table."""
        head, entries = self.journal.read()
        state, now = fold(entries, self.release), self.journal.now(entries)
        if state.pending is None or state.pending.n != pending.n:
            return state
        if pending.act not in BACKWARD or pending.table is None:
            return self._decide(head, entries, state, now, overtaken=overtaken)
        sequence = self.plane.written(state.market).sequence + 1
        table = replace(pending.table, sequence=sequence).to_dict()
        body = {**pending.body, "n": pending.n + 1, "table": table, "again": pending.n}
        self.journal.append(INTENT, body, now, expect=head)
        # The next look carries it out: whoever writes tables all the time must not hold this one.
        return self.journal.state()

    def _noted(
        self,
        opened: Opened,
        plan: Plan,
        state: State,
        glance: Glance,
        action: Action,
        now: datetime,
    ) -> dict[str, Any]:
        at_step = state.step is not None and state.step < len(plan.steps)
        held = None if state.table is None else state.table.to_dict()
        seen = look(
            at=now,
            step=plan.steps[state.step or 0].name if at_step else None,
            share_percent=share_percent(held, opened.challenger.slot) or 0.0,
            seen=glance.seen,
            summary=glance.summary,
            act=str(action.act or "hold"),
            why=action.why,
            waits_for=action.waits_for,
            until=action.until,
        )
        self.note(seen)
        return seen

    def _page(self, entries: Sequence[Entry], state: State, seen: Told, now: datetime) -> None:
        """Call people where they must know, once for each cause."""
        body = page_due(past_of(entries, self.release), state, seen, now)
        if body is not None:
            self.journal.append(PAGED, body, now, expect=None)


def _action(plan: Plan, state: State, seen: Seen, now: datetime, *, changed: bool) -> Action:
    """Return what is to be done; a changed plan restarts its step, unless harm was seen at it."""
    anew = replanned(plan, replace(state, pending=None)) if changed else None
    if anew is not None and anew.act is Act.ROLL_BACK:
        return anew
    asked = decide if state.pending is None else reconsider
    action = asked(plan, state, seen, now)
    return action if anew is None or action.act in BACKWARD else anew


def _intent(
    state: State, action: Action, table: TrafficTable | None, seen: Seen, noted: Told
) -> dict[str, Any]:
    """Return the body of an intent: what is done, on which evidence, and numbers for people."""
    judged = seen.judgement
    verdict = None if judged is None else plain(judged.verdict.to_dict())
    return {
        "release": state.release,
        "n": state.n + 1,
        "action": str(action.act),
        "step": action.step,
        "why": action.why,
        "table": None if table is None else table.to_dict(),
        "verdict": verdict,
        "fingerprint": "" if verdict is None else _fingerprint(state, verdict),
        "answers": action.answers,
        "strike": action.strike,
        "critical": action.critical,
        "effect": None if judged is None else str(judged.effect),
        "share_percent": noted["share_percent"],
        **{name: noted.get(name) for name in ("rows", "segments", "summary")},
    }


def _fingerprint(state: State, verdict: object) -> str:
    """Return the sha256 of a verdict and of the step that it is about."""
    document = {"release": state.release, "step": state.step, "verdict": verdict}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _freezes(state: State, entries: Sequence[Entry]) -> bool:
    """Return whether the traffic stays as it is when this controller ends."""
    if state.step is None or (state.pending is not None and state.pending.act in BACKWARD):
        return False
    steps = plan_in_force(entries, state.release)["steps"]
    return state.step < len(steps) and steps[state.step]["phase"] in FROZEN
