"""The conductor: carries every active release of a home, one market after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from penstock.ledger import Actor, Entry, Ledger, LedgerError
from penstock.processes import undisturbed
from penstock.release import Rollout
from penstock.rollout import commands, folding, kill, unfinished
from penstock.rollout.champions import stand_by, vacate
from penstock.rollout.controller import ELSEWHERE, Controller
from penstock.rollout.fleet import Fleet
from penstock.rollout.journal import Told, unheard
from penstock.rollout.looks import Looks, looks_folder
from penstock.rollout.observing import Observer
from penstock.rollout.opened import Opened, opened_of
from penstock.rollout.opening import Opener, Wish
from penstock.rollout.plan import ENDED
from penstock.rollout.ports import Clock, Leases, Notifier, TableError
from penstock.rollout.result import steps_of
from penstock.rollout.state import OPENED, Ask, State
from penstock.stage import Refused

TICK_S = 0.25
START_S = 90.0
"""Longest wait for the server of a release that is taken up again, before it is judged as it is."""

ABORT_TICKS = 40
"""Looks within which an abort must have taken effect; one does."""

PERSON = frozenset({"approval", "person", "documents", "drill", ELSEWHERE})
"""What a release may wait for that no waiting of this process brings."""


@dataclass(kw_only=True)
class Conductor:
    """Opens releases, keeps their servers up, ticks their controllers, clears up behind them."""

    workload: str
    policy: Rollout
    fleet: Fleet
    ledger: Ledger
    lease: Leases
    clock: Clock
    notifier: Notifier
    observer: Observer
    actor: Actor
    home: Path
    emit: Callable[[Told], None] = unheard
    ready_s: dict[str, float] = field(default_factory=dict[str, float])
    """Of each slot that was waited for: from its start to ready."""

    _controllers: dict[str, Controller] = field(default_factory=dict[str, Controller])
    _starting: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """Since when the servers of a release are starting."""

    _up: set[str] = field(default_factory=set[str])
    """Releases whose servers were up once, or never will be."""

    _ended: set[str] = field(default_factory=set[str])
    """Releases that have ended: what is over need not be folded again."""

    _left: dict[str, int] = field(default_factory=dict[str, int])
    """Steps of a release that were left before, or of which it was said how they ended."""

    @property
    def opener(self) -> Opener:
        """What opens releases here."""
        return Opener(
            workload=self.workload,
            policy=self.policy,
            ledger=self.ledger,
            fleet=self.fleet,
            clock=self.clock,
            actor=self.actor,
        )

    def open(self, wish: Wish) -> Opened | None:
        """Open a release and let its server start; None where it was queued.

        Raises:
            Refused: It may not begin.
        """
        opened = self.opener.open(wish)
        if opened is not None:
            self.notifier.tell({"event": OPENED, "release": opened.release, "text": ""})
        return opened

    def entries(self) -> list[Entry]:
        """Return the workload's entries."""
        return self.ledger.entries(self.workload)

    def carry(
        self, heed: Callable[[], None], *, goes: Callable[[State], bool] | None = None
    ) -> list[State]:
        """Carry on until every release has ended or waits for a person; return where they stand.

        Args:
            heed: Called between two looks; raises when this process was asked to end.
            goes: Whether it is worth going on for a release; None: while it goes by itself.
        """
        goes = goes or self.goes
        self.tidy()
        try:
            while True:
                heed()
                states = self.round()
                # The one that ended just now may have been what another one was queued behind.
                if not any(goes(state) for state in states) and not self._opens_queued():
                    return states
                if not any(state.pending for state in states):
                    self.clock.sleep(TICK_S)
        except LedgerError:
            self.bring_back()
            raise

    def bring_back(self) -> None:
        """Give everybody to the champions without asking the ledger; where the plane lets it."""
        for controller in self._controllers.values():
            controller.bring_back()

    def round(self) -> list[State]:
        """Look at every release that goes on, once; return where each stands now."""
        self._heed_switch()
        while self._opens_queued():
            pass
        entries = self.entries()
        going = folding.active(entries, ended=self._ended)
        return [self._turn(state, entries) for state in going]

    def _opens_queued(self) -> bool:
        """Open the first release that was queued and whose turn it is; return whether one was."""
        return self.opener.next_queued(self.entries()) is not None

    def _heed_switch(self) -> None:
        """Enter in the ledger what was done to the kill switch while nobody could."""
        if kill.unrecorded(self.home) or self.fleet.plane.killed():
            kill.reconcile(
                self.ledger,
                self.actor,
                home=self.home,
                workload=self.workload,
                now=self.clock.now(),
            )

    def goes(self, state: State) -> bool:
        """Return whether a release will go on by itself."""
        if state.phase in ENDED:
            return False
        return self.controller(state.release).waits_for not in PERSON or state.pending is not None

    def is_ours(self, state: State) -> bool:
        """Return whether a release goes on and nobody else carries it."""
        if state.phase in ENDED:
            return False
        return self.controller(state.release).waits_for != ELSEWHERE

    def waits(self, release: str) -> str:
        """Return what a release was last seen to wait for, in a sentence."""
        return self.controller(release).why

    def controller(self, release: str) -> Controller:
        """Return the controller of a release."""
        if release not in self._controllers:
            self._controllers[release] = self._made(release)
        return self._controllers[release]

    def _made(self, release: str) -> Controller:
        looks = Looks(looks_folder(self.home, release))

        def note(seen: Told) -> None:
            looks.note(seen)
            self.emit({"event": "look", "release": release, **seen})

        return Controller(
            release=release,
            policy=self.policy,
            plane=self.fleet.plane,
            ledger=self.ledger,
            lease=self.lease,
            clock=self.clock,
            notifier=_Both(self.notifier, self.emit),
            observer=self.observer,
            actor=self.actor,
            note=note,
        )

    def _turn(self, state: State, entries: Sequence[Entry]) -> State:
        controller = self.controller(state.release)
        if not controller.hold():
            # Whoever carries it keeps its servers up, too.
            self._starting.pop(state.release, None)
            self._up.discard(state.release)
            return state
        # A rehearsed rollback moves users for a second, and gives them back.
        if unfinished.going_on(self.home / "serving") or not self._is_up(state, entries):
            return state
        self._left.setdefault(state.release, len(steps_of(entries, state.release)))
        waited_for = controller.waits_for
        after = controller.tick()
        if after.n > state.n:
            self._say_left(after)
        if controller.waits_for in PERSON - {ELSEWHERE, waited_for}:
            self.emit({"event": "asked", "release": state.release, "text": controller.why})
        if after.phase in ENDED:
            self.lease.release(state.release)
            self.tidy()
        return after

    def _say_left(self, state: State) -> None:
        """Say how each step ended that was left since this was asked last."""
        steps = steps_of(self.entries(), state.release)
        said = self._left.get(state.release, 0)
        self._left[state.release] = len(steps)
        for step in steps[said:]:
            self.emit({"event": "left", "release": state.release, "market": state.market, **step})

    def _is_up(self, state: State, entries: Sequence[Entry]) -> bool:
        """Start the servers of a release that this process has not carried yet.

        One before its first step is looked at while its server starts. One that is taken up again
        is not: a server that is only just starting would be taken for one that crashed.
        """
        release = state.release
        if release in self._up:
            return True
        opened, now = opened_of(entries, release), self.clock.now()
        if release not in self._starting:
            try:
                self._start(opened, entries)
            except TableError as e:
                self.emit({"event": "unmoved", "text": str(e)})
                return state.step is None
            self._starting[release] = now
        challenger = opened.challenger
        ready_s = self.fleet.ready_s(challenger)
        waited_s = (now - self._starting[release]).total_seconds()
        if ready_s is not None or self.fleet.refused(challenger) or waited_s > START_S:
            self._up.add(release)
        if ready_s is not None:
            slot = challenger.slot
            self.ready_s[slot] = ready_s
            self.emit({"event": "ready", "release": release, "slot": slot, "seconds": ready_s})
        return release in self._up or state.step is None

    def _start(self, opened: Opened, entries: Sequence[Entry]) -> None:
        if self.fleet.plane.killed():
            return
        if opened.champion is not None:
            self.fleet.start(opened.champion, entries)
        what = f"challenger, version {opened.challenger.version}"
        slot = opened.challenger.slot
        vacate(self.fleet, entries, self.policy, opened.challenger)
        self.emit({"event": "starting", "release": opened.release, "what": what, "slot": slot})
        self.fleet.start(opened.challenger, entries, opened.fault)

    def tidy(self) -> None:
        """Drop leases and stop servers that nothing needs; after a kill servers stay as is."""
        entries = self.entries()
        for release in set(self.lease.known()).intersection(folding.releases(entries)):
            # Of a controller that died between the end of its release and giving the lease back.
            if folding.fold(entries, release).phase in ENDED:
                self.lease.drop(release)
        if self.fleet.plane.killed():
            return
        try:
            stand_by(self.fleet, entries, self.policy)
        except TableError as e:
            self.emit({"event": "unmoved", "text": str(e)})

    def abort(self, why: str) -> list[State]:
        """Give everybody to the champion and end every release that this process carries.

        Raises:
            LedgerError: That could not be written down; users are back nevertheless.
        """
        with undisturbed():
            try:
                return [self._aborted(c, why) for c in self._controllers.values() if c.hold()]
            except (LedgerError, Refused):
                for controller in self._controllers.values():
                    controller.bring_back()
                    self.lease.abandon(controller.release)
                raise

    def _aborted(self, controller: Controller, why: str) -> State:
        state = controller.journal.state()
        if state.phase in ENDED:
            return state
        if not any(command.ask is Ask.ABORT for command in state.commands):
            now = self.clock.now()
            commands.give(self.ledger, state, Ask.ABORT, reason=why, actor=self.actor, now=now)
        for _ in range(ABORT_TICKS):
            state = controller.tick()
            if state.phase in ENDED:
                self._say_left(state)
                self.lease.release(controller.release)
                self.tidy()
                return state
            self.clock.sleep(TICK_S)
        controller.bring_back()
        self.lease.abandon(controller.release)
        return state

    def leave(self) -> None:
        """Carry nothing any further; the watchdog gives users of early steps back."""
        for release in self._controllers:
            self.lease.abandon(release)


@dataclass(frozen=True)
class _Both:
    """Tells the people that are to be told, and whoever looks on here."""

    people: Notifier
    here: Callable[[Told], None]

    def tell(self, event: Told) -> None:
        """Pass on one event."""
        self.people.tell(event)
        self.here(event)
