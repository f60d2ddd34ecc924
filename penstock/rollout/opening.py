"""Open a release: in the ledger with its plan, before anybody sees anything of it; or queue it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock import registered
from penstock.bundle import BundleError
from penstock.ledger import Actor, Conflict, Entry, Ledger, Stage, stage_of
from penstock.registered import OPEN
from penstock.release import Rollout, Trigger, WhenBusy
from penstock.rollout import folding
from penstock.rollout.branches import champion_in
from penstock.rollout.fleet import Fleet, free_slot
from penstock.rollout.opened import Opened, Placed
from penstock.rollout.ports import Clock
from penstock.rollout.state import OPENED
from penstock.stage import Refused

QUEUED, UNQUEUED = "release queued", "release unqueued"
"""Kinds of entries: a release that waits until its market is free (market, trigger, fault), and one
that was refused when its turn came (queued, reason)."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A release that somebody wants."""

    version: int
    market: str
    trigger: Trigger = Trigger.MANUAL
    fault: Mapping[str, str] | None = None
    queued: int | None = None
    """Entry by which it was queued."""


@dataclass(frozen=True, kw_only=True)
class Opener:
    """Opens the releases of one workload."""

    workload: str
    policy: Rollout
    ledger: Ledger
    fleet: Fleet
    clock: Clock
    actor: Actor

    def open(self, wish: Wish) -> Opened | None:
        """Write down that a release begins, and with which plan; None where it was queued.

        Raises:
            Refused: The version is not on its way, was compared with another champion, serves
                already, or its market is busy and the policy queues nothing.
        """
        while True:
            head = self.ledger.head().sequence
            entries = self.ledger.entries(self.workload)
            refuse(entries, wish, self.policy)
            if why := self._busy(entries, wish):
                if self.policy.when_busy is not WhenBusy.QUEUE or wish.queued is not None:
                    raise Refused(f"version {wish.version} cannot be released yet: {why}.")
                enqueue(self.ledger, self.workload, wish, actor=self.actor, now=self.clock.now())
                return None
            opened = self._placed(entries, wish)
            body = opened.body(opened.plan(self.policy))
            try:
                self._append(wish.version, OPENED, body, entries, expect=head)
            except Conflict:
                continue
            return opened

    def next_queued(self, entries: Sequence[Entry]) -> Opened | None:
        """Open the first release that was queued and whose turn it is."""
        for wish in queue(entries):
            if self._busy(entries, wish):
                continue
            try:
                return self.open(wish)
            except OSError:
                continue  # where its package was published nobody answers; its turn stays
            except (Refused, LookupError, BundleError) as e:
                body = {"queued": wish.queued, "market": wish.market, "reason": str(e)}
                self._append(wish.version, UNQUEUED, body, entries, expect=None)
        return None

    def _busy(self, entries: Sequence[Entry], wish: Wish) -> str:
        """Return why nothing may begin in a market now; empty where it may."""
        for state in folding.active(entries, wish.market):
            return f"release {state.release} goes on, in {state.phase}"
        ahead = [one for one in queue(entries) if one.market == wish.market]
        if wish.queued is None and ahead:
            return f"version {ahead[0].version} is queued before it"
        serving = self.fleet.serving()
        if free_slot(entries, wish.version, serving, self.policy) is None:
            held = ", ".join(f"{slot} by version {version}" for slot, version in serving.items())
            return f"both slots are needed, {held}"
        return ""

    def _placed(self, entries: Sequence[Entry], wish: Wish) -> Opened:
        slot = free_slot(entries, wish.version, self.fleet.serving(), self.policy)
        serving = champion_in(entries, wish.market, self.policy)
        where = None if serving is None else self.fleet.slot_of(serving)
        if slot is None or (serving is not None and where is None):
            raise Refused(f"version {serving} does not run; start it first: penstock up")
        champion = None
        if serving is not None and where is not None:
            champion = Placed(version=serving, digest=_digest(entries, serving), slot=where)
        challenger = Placed(version=wish.version, digest=_digest(entries, wish.version), slot=slot)
        name = folding.next_release(entries, self.workload, wish.version, wish.market)
        return Opened(
            release=name,
            workload=self.workload,
            market=wish.market,
            trigger=wish.trigger,
            challenger=challenger,
            champion=champion,
            fault=wish.fault,
            queued=wish.queued,
        )

    def _append(
        self,
        version: int,
        kind: str,
        body: Mapping[str, Any],
        entries: Sequence[Entry],
        *,
        expect: int | None,
    ) -> None:
        self.ledger.append(
            workload=self.workload,
            version=version,
            kind=kind,
            body=body,
            actor=self.actor,
            now=max(self.clock.now(), datetime.fromisoformat(entries[-1].at)),
            expect=expect,
        )


def enqueue(ledger: Ledger, workload: str, wish: Wish, *, actor: Actor, now: datetime) -> None:
    """Write down that a release is wanted, once; whoever carries the workload opens it in turn."""
    entries = ledger.entries(workload)
    if any((w.version, w.market) == (wish.version, wish.market) for w in queue(entries)):
        return
    body = {"market": wish.market, "trigger": str(wish.trigger)}
    body |= {"fault": None if wish.fault is None else dict(wish.fault)}
    ledger.append(
        workload=workload,
        version=wish.version,
        kind=QUEUED,
        body=body,
        actor=actor,
        now=max(now, datetime.fromisoformat(entries[-1].at)),
    )


def queue(entries: Sequence[Entry]) -> list[Wish]:
    """Return what waits for its turn, the first first."""
    found: dict[int, Wish] = {}
    for entry in entries:
        if entry.kind == QUEUED and entry.version is not None:
            found[entry.sequence] = Wish(
                version=entry.version,
                market=entry.body["market"],
                trigger=Trigger(entry.body["trigger"]),
                fault=entry.body["fault"],
                queued=entry.sequence,
            )
        elif entry.kind in (OPENED, UNQUEUED) and entry.body.get("queued") is not None:
            found.pop(entry.body["queued"], None)
    return list(found.values())


def refuse(entries: Sequence[Entry], wish: Wish, policy: Rollout) -> None:
    """Refuse to release what has no way to go, or was judged against another champion.

    Raises:
        Refused: The text says what to do.
        BundleError: Its package is not the one that was registered.
    """
    refuse_stage(entries, wish, policy)
    version = wish.version
    package = registered.package_to_serve(entries, version)
    others = [e for e in entries if (e.version, e.target) != (version, Stage.PRODUCTION)]
    if lacking := registered.not_compared(others, package.json("lineage.json")):
        raise Refused(f"version {version} cannot be released: {lacking}.")


def refuse_stage(entries: Sequence[Entry], wish: Wish, policy: Rollout) -> None:
    """Refuse to release what has no way to go, by the ledger alone.

    Raises:
        Refused: The text says what to do.
    """
    version, stage = wish.version, stage_of(entries, wish.version)
    if champion_in(entries, wish.market, policy) == version:
        raise Refused(f"version {version} serves {wish.market} already.")
    # A version that has finished in one market may begin in another.
    if stage not in OPEN and not (policy.markets and stage is Stage.PRODUCTION):
        raise Refused(
            f"version {version} is in {stage}; released is what the register stage has put into "
            "STAGING: run it, or the pipeline."
        )


def _digest(entries: Sequence[Entry], version: int) -> str:
    return registered.registration(entries, version).body["digest"]
