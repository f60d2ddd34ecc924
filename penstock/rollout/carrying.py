"""Carry out an intent: lifecycle, table, read back, outcome. Any number of times, to one effect."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from penstock.ledger import Conflict, Entry, Stage, serving_order, stage_of
from penstock.registered import OPEN
from penstock.release import Rollout
from penstock.rollout import branches
from penstock.rollout.action import GIVES_BACK
from penstock.rollout.branches import BACK
from penstock.rollout.folding import BACKWARD
from penstock.rollout.journal import Journal, Told, decided_at, is_pending
from penstock.rollout.opened import Opened, opened_of
from penstock.rollout.ports import DataPlane, Stale, TableError
from penstock.rollout.state import IN_FORCE, Act, Pending
from penstock.rollout.table import TrafficTable

APPLIED_S = 10.0
"""How long a table may take to be in force before it is said that it is not."""

FORWARD = frozenset({Act.ENTER, Act.FINISH})


class Overtaken(Exception):
    """The intent cannot be finished as it was written: decide again."""


class Unmoved(Overtaken):
    """The plane does not take its table now; should the same follow again, it can wait."""


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """Finishes the intents of one release."""

    journal: Journal
    plane: DataPlane
    policy: Rollout

    def finish(self, pending: Pending, entries: Sequence[Entry]) -> None:
        """Do what an intent says, see that it is so, and write that down.

        Raises:
            Overtaken: Somebody wrote a newer table, the version was archived, or a step forward
                does not come into force.
            TableError: Users are to be moved back, and the plane does not take or show the table.
        """
        opened = opened_of(entries, self.journal.release)
        if pending.act in FORWARD:
            self._climb(opened, pending)
        self._put(pending)
        decided = decided_at(entries, self.journal.release, pending.n)
        took_s = max(0.0, (self.journal.clock.now() - decided).total_seconds())
        wrong = "" if pending.table is None else self.plane.verify(pending.table)
        if wrong:
            self.journal.say("unverified", f"after {pending.act}: {wrong}")
        returned = pending.act in GIVES_BACK and self._returned(opened, pending)
        if returned or pending.act in (Act.ROLL_BACK, Act.FAIL):
            self._archive(pending, served=returned)
        said = {"milliseconds": round(1000 * took_s, 1), "verified": not wrong, "wrong": wrong}
        self._settle(pending, said)

    def _put(self, pending: Pending) -> None:
        if pending.table is None:
            return
        try:
            put(self.plane, pending.table)
        except Stale as e:
            raise Overtaken(str(e)) from e
        except TableError as e:
            if pending.act in BACKWARD:
                raise
            raise Unmoved(str(e)) from e

    def _climb(self, opened: Opened, pending: Pending) -> None:
        """Move the version as far through its lifecycle as the step stands for."""
        journal, wanted = self.journal, _stage_for(opened, pending)
        reason = "first version: no champion to shadow" if opened.champion is None else pending.why
        while True:
            head, entries = journal.read()
            stage = stage_of(entries, journal.version)
            if stage is Stage.ARCHIVED or not is_pending(entries, journal.release, pending.n):
                raise Overtaken(f"version {journal.version} is in {stage}")
            moves = branches.way(stage, wanted)
            if not moves:
                return
            with suppress(Conflict):
                journal.move(moves[0], pending, journal.now(entries), reason=reason, expect=head)

    def _returned(self, opened: Opened, pending: Pending) -> bool:
        """Write down that users are with the champion again, where the ledger says otherwise.

        A FINISH moves the version to PRODUCTION before it is in force. One that was cut there and
        replaced by a way back leaves a version that every later start would give all users to.
        Return whether it is so, whoever wrote it down.
        """
        journal, champion = self.journal, opened.champion
        while champion is not None:
            head, entries = journal.read()
            if any(e.kind == BACK and e.body.get("release") == journal.release for e in entries):
                return True
            here = branches.champion_in(entries, journal.market, self.policy)
            pends = is_pending(entries, journal.release, pending.n)
            if here != journal.version or not pends:
                return False
            said = {"release": journal.release, "market": journal.market, "from": here}
            said |= {"to": champion.version, "reason": pending.why or str(pending.act)}
            with suppress(Conflict):
                journal.append(BACK, said, journal.now(entries), expect=head)
        return False

    def _archive(self, pending: Pending, *, served: bool) -> None:
        """Archive a version that no market has any more; what has served stays deployable.

        Args:
            served: It is taken for one that has, and never was: archive it, where another serves.
        """
        journal = self.journal
        while True:
            head, entries = journal.read()
            stage, others = stage_of(entries, journal.version), len(serving_order(entries)) > 1
            goes = stage in (Stage.NONE, *OPEN) or (served and others and stage is Stage.PRODUCTION)
            if not goes or not is_pending(entries, journal.release, pending.n):
                return
            if branches.kept(entries, journal.version, self.policy, besides=journal.release):
                return
            now = journal.now(entries)
            with suppress(Conflict):
                journal.move(Stage.ARCHIVED, pending, now, reason=pending.why, expect=head)

    def _settle(self, pending: Pending, said: Told) -> None:
        """Write down that an intent's effect was read back: once, whoever else does so too."""
        journal = self.journal
        body = {"release": journal.release, "n": pending.n, **said}
        while True:
            head, entries = journal.read()
            if not is_pending(entries, journal.release, pending.n):
                return
            with suppress(Conflict):
                journal.append(IN_FORCE, body, journal.now(entries), expect=head)


def put(plane: DataPlane, table: TrafficTable) -> None:
    """Put a table in force and see that it is.

    Raises:
        TableError: It is not.
    """
    plane.apply(table)
    plane.wait_applied(table, timeout_s=APPLIED_S)


def _stage_for(opened: Opened, pending: Pending) -> Stage:
    """Return how far through its lifecycle a step forward takes a version."""
    if pending.act is Act.FINISH:
        return Stage.PRODUCTION
    copies = pending.table is not None and pending.table.mirror is not None
    return Stage.SHADOW if copies and opened.champion is not None else Stage.CANARY
