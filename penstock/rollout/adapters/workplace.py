"""Workplace: everything that carries one workload's releases in a cluster, a round at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from penstock import registered
from penstock.bundle import BundleError
from penstock.ledger import REGISTERED, Actor, Entry, Ledger, LedgerError, Stage, stage_of
from penstock.predictions.place import Place as Folder
from penstock.release import EVERYWHERE, Fallback, Rollout
from penstock.rollout import folding
from penstock.rollout.adapters.assigned import Slots
from penstock.rollout.adapters.election import Led
from penstock.rollout.adapters.places import Where
from penstock.rollout.adapters.server import Server
from penstock.rollout.adapters.site import Site
from penstock.rollout.carrying import put
from penstock.rollout.champions import champions, serve, stand_by
from penstock.rollout.conductor import Conductor
from penstock.rollout.fleet import Fleet
from penstock.rollout.journal import Told
from penstock.rollout.observing import SKEWED_S
from penstock.rollout.opening import Wish, queue
from penstock.rollout.plan import ENDED
from penstock.rollout.ports import TableError
from penstock.rollout.running import conducting, since
from penstock.rollout.state import OPENED, State
from penstock.rollout.stored import EVERY_S, StoredReader
from penstock.rollout.watchdog import exposed, returned
from penstock.stage import Refused
from penstock.workload import load

REST_S = 60.0
"""Between two looks at what should be so while nothing is released and nothing is entered."""

AGED_S = 3600.0
"""After so long at rest what carries a workload is made anew."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What every workload of a controller shares."""

    server: Server
    """Fenced: it changes nothing unless this replica leads."""

    ledger: Ledger
    actor: Actor
    home: Path
    leads: Callable[[], bool]
    emit: Callable[[Told], None]
    sleep: Callable[[float], None] = time.sleep
    opens: bool = False
    """Whether a registered version that nobody ever released is released unasked."""

    look_s: float = EVERY_S
    """Between two looks at the copied logs."""


@dataclass(kw_only=True)
class Workplace:
    """Rounds of one workload, while this replica leads."""

    conductor: Conductor
    site: Site
    opens: bool
    monotonic: Callable[[], float] = time.monotonic
    _begun_s: float = field(init=False)
    _carried: bool = False
    _going: bool = False
    _at_rest: tuple[int, float] | None = None
    """Last entry, and when, that all was as it should be at rest."""

    _declined: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])
    """Versions and markets that could not be opened, and why."""

    def __post_init__(self) -> None:
        self._begun_s = self.monotonic()

    @property
    def over(self) -> bool:
        """Whether this is better made anew for what comes next; never while a release goes on.

        Evidence of releases that have ended would be kept for as long as the process lives, logs
        of months be read for the next one, and a clock that was put off once stay so.
        """
        if self._going:
            return False
        skewed = abs(self.conductor.observer.ahead_s()) > SKEWED_S
        return self._carried or skewed or self.monotonic() - self._begun_s >= AGED_S

    def round(self) -> list[State]:
        """Look once at everything; return where each release stands that goes on.

        Raises:
            TableError, LedgerError, Refused, BundleError, LookupError, OSError: It could not be
                done now; the next round begins where this one was cut. Without the ledger all users
                are with the champion first.
        """
        try:
            return self._round()
        except LedgerError:
            bring_home(self.site)
            raise

    def _round(self) -> list[State]:
        entries = self.conductor.entries()
        if not folding.active(entries):
            self._rest(entries)
        states = self.conductor.round()
        # A round that was cut says nothing of what goes on, so it ends nothing.
        self._going = any(state.phase not in ENDED for state in states)
        self._carried = self._carried or bool(states)
        if self.opens:
            # Last: a package that takes long to come, or does not, keeps nobody from being judged.
            self._open_new(self.conductor.entries())
        return states

    def _rest(self, entries: Sequence[Entry]) -> None:
        """See that champions answer, the one before stands by, and nobody changed a route."""
        newest, now_s = (entries[-1].sequence if entries else 0), self.monotonic()
        known = self._at_rest
        fresh = known is not None and known[0] == newest and now_s - known[1] < REST_S
        if self.site.killed() or (fresh and not self.site.foreign()):
            return
        policy, fleet = self.conductor.policy, self.conductor.fleet
        if champions(entries, policy):
            self._restore()
            serve(fleet, entries, policy, self.conductor.emit)
        stand_by(fleet, entries, policy)
        self._at_rest = newest, now_s

    def _restore(self) -> None:
        """Put back what somebody changed of the objects; the tables are the same."""
        said = self.site.foreign()
        if said:
            self.conductor.emit({"event": "foreign", "text": said})
            held = self.site.written(EVERYWHERE)
            put(self.site, replace(held, sequence=held.sequence + 1))

    def _open_new(self, entries: Sequence[Entry]) -> None:
        """Open, or queue, a release of each version that waits and was never released."""
        for wish in new_wishes(entries, self.conductor.policy):
            key = (wish.version, wish.market)
            try:
                self.conductor.open(wish)
                self._declined.pop(key, None)
            except (Refused, LookupError, BundleError, OSError) as e:
                if self._declined.get(key) != str(e):
                    self._declined[key] = str(e)
                    self.conductor.emit({"event": "unmoved", "text": str(e)})


def new_wishes(entries: Sequence[Entry], policy: Rollout) -> list[Wish]:
    """Return the releases that nobody has asked for: of what is in STAGING, in each market."""
    begun = {(e.version, e.body["market"]) for e in entries if e.kind == OPENED}
    begun |= {(wish.version, wish.market) for wish in queue(entries)}
    versions = [e.version for e in entries if e.kind == REGISTERED and e.version is not None]
    return [
        Wish(version=version, market=market, trigger=registered.trigger(entries, version))
        for version in versions
        if stage_of(entries, version) is Stage.STAGING
        for market in policy.market_names()
        if (version, market) not in begun
    ]


def bring_home(site: Site) -> None:
    """Give everybody to the champions, where the ledger does not even say what goes on."""
    with suppress(TableError):
        for held in site.tables().values():
            if exposed(held):
                # One market that the plane does not take is no reason to leave the next.
                with suppress(TableError):
                    put(site, returned(held))


@contextmanager
def workplace(workload: str, where: Where, desk: Desk) -> Iterator[Workplace]:
    """Yield what carries a workload's releases; nothing of it is needed by whoever leads next."""
    declared = load(workload)
    entries = partial(desk.ledger.entries, workload)
    site = Site(
        desk.server,
        where.made(),
        Slots(
            server=desk.server,
            place=where.place,
            replicas=where.replicas,
            patience_s=where.patience_s,
        ),
        home=desk.home,
        packages=lambda version: registered.package(entries(), version),
        rules=declared.rollout.kill_to is Fallback.RULES,
        sleep=desk.sleep,
    )
    try:
        begun = since(entries())
    except LedgerError:
        bring_home(site)
        raise
    outcomes = where.outcomes
    reader = StoredReader(
        at=lambda: Folder.at(f"{where.predictions.rstrip('/')}/{workload}"),
        outcomes=None if outcomes is None else lambda: Folder.at(outcomes),
        since=begun,
        declared=declared,
        every_s=desk.look_s,
    )
    with conducting(
        workload=workload,
        fleet=Fleet(plane=site),
        reader=reader,
        lease=Led(desk.leads),
        ledger=desk.ledger,
        actor=desk.actor,
        home=desk.home,
        emit=desk.emit,
        late_s=where.copied_s,
        sleep=desk.sleep,
    ) as conductor:
        yield Workplace(conductor=conductor, site=site, opens=desk.opens)
