"""Champions: who serves while nothing is released, in every market; brought up and given users.

Beside them stands whoever served before, where there is room: named in the table of each market at
rest as who answers when the kill switch is thrown, and sent copies, to be known to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from penstock import registered
from penstock.bundle import BundleError
from penstock.endpoint import Endpoint
from penstock.ledger import Entry, Ledger, serving_order
from penstock.release import EVERYWHERE, Fallback, Rollout
from penstock.rollout import folding, kill
from penstock.rollout.branches import champion_in, order_in
from penstock.rollout.carrying import put
from penstock.rollout.fleet import Fleet
from penstock.rollout.journal import Told, unheard
from penstock.rollout.opened import Opened, Placed, opened_of
from penstock.rollout.plane import Plane, PlaneError
from penstock.rollout.table import RULES, SLOTS
from penstock.rollout.watchdog import asked, returned
from penstock.workload import load

READY_TIMEOUT_S = 90.0
STANDBY_TIMEOUT_S = 30.0


def champions(entries: Sequence[Entry], policy: Rollout) -> dict[str, int]:
    """Return the version that answers each market; of users of none, what every market has had."""
    found = {m: champion_in(entries, m, policy) for m in policy.market_names()}
    serving = {market: version for market, version in found.items() if version is not None}
    if serving and EVERYWHERE not in serving:
        # Newest first: the last of them is the one that every market knows.
        order = [v for v in serving_order(entries) if v in serving.values()]
        serving[EVERYWHERE] = order[-1] if order else min(serving.values())
    return serving


def serve_champion(plane: Plane, ledger: Ledger, workload: str) -> int | None:
    """Let the champions answer; return the version of everybody, or None where there is none.

    Markets in which a release goes on are left to it. The version before comes up beside them, for
    users to be returned to; where it does not, the champions answer all the same.
    """
    entries, policy = ledger.entries(workload), load(workload).rollout
    fleet = Fleet(plane=plane)
    serve(fleet, entries, policy, unheard)
    if not plane.killed():
        stand_by(fleet, entries, policy)
    return champions(entries, policy).get(EVERYWHERE)


def serve(
    fleet: Fleet, entries: Sequence[Entry], policy: Rollout, emit: Callable[[Told], None]
) -> None:
    """Bring each champion up where it is not, and give it the users of its markets.

    Raises:
        PlaneError: A server did not become ready; the text says why. Of a version that was killed
            it is only told: it answers nobody.
    """
    wanted = champions(entries, policy)
    slots = {version: _up(fleet, entries, version, emit) for version in set(wanted.values())}
    for state in folding.active(entries):
        _bring_home(fleet, opened_of(entries, state.release), policy)
    # A market that the policy no longer has may have a table still.
    for market in _at_rest(entries, {*wanted, *fleet.plane.tables()}) if wanted else ():
        if slot := slots[wanted.get(market, wanted[EVERYWHERE])]:
            _rest(fleet, entries, policy, market, champion=slot)


def stand_by(fleet: Fleet, entries: Sequence[Entry], policy: Rollout) -> None:
    """Let the version before stand by, and name it in the table of each market at rest.

    Servers that nobody needs any more end. While no release goes on, one that is starting is
    waited for.

    Raises:
        TableError: A table is not in force.
    """
    plane, started = fleet.plane, fleet.tidy(entries, policy)
    starting = {**fleet.serving(), **{placed.slot: placed.version for placed in started}}
    for slot, version in starting.items() if not folding.active(entries) else ():
        if version is not None:
            with suppress(PlaneError):
                plane.wait_ready(slot, version=str(version), timeout_s=STANDBY_TIMEOUT_S)
    for market in _at_rest(entries, plane.tables()) if champions(entries, policy) else ():
        _rest(fleet, entries, policy, market, champion=plane.written(market).champion)


def vacate(fleet: Fleet, entries: Sequence[Entry], policy: Rollout, placed: Placed) -> None:
    """Let no table lead to a slot in which a version is to start that no step has shown yet.

    Raises:
        TableError: A table is not in force; the version must not start.
    """
    plane, slot = fleet.plane, placed.slot
    if fleet.serving()[slot] == placed.version:
        return
    wanted = champions(entries, policy)
    shown = {state.market for state in folding.active(entries) if state.table is not None}
    for market, held in plane.tables().items():
        its_own = wanted.get(market, wanted.get(EVERYWHERE)) == placed.version
        if slot in asked(held) and market not in shown and not its_own:
            other = next(name for name in SLOTS if name != slot)
            champion = other if held.champion == slot else held.champion
            put(plane, replace(returned(held), champion=champion, fallback=_declared(policy)))


def _bring_home(fleet: Fleet, opened: Opened, policy: Rollout) -> None:
    """Lead the users of a release to its champion where their table leads to nobody."""
    held, champion = fleet.plane.written(opened.market), opened.champion
    if champion is None or champion.slot == held.champion or fleet.plane.ready(held.champion):
        return
    put(fleet.plane, replace(returned(held), champion=champion.slot, fallback=_declared(policy)))


def _rest(
    fleet: Fleet, entries: Sequence[Entry], policy: Rollout, market: str, *, champion: str
) -> None:
    """Put a market's table at rest in force, unless it is."""
    plane, held = fleet.plane, fleet.plane.written(market)
    before = (fleet.slot_of(version) for version in order_in(entries, market, policy))
    standby = next((s for s in before if s not in (None, champion) and plane.ready(s)), None)
    fallback = _declared(policy) or standby
    table = replace(returned(held), champion=champion, fallback=fallback, trickle=standby)
    if held != replace(table, sequence=held.sequence):
        put(plane, table)


def _at_rest(entries: Sequence[Entry], markets: Iterable[str]) -> list[str]:
    active = {state.market for state in folding.active(entries)}
    return sorted(set(markets) - active)


def _declared(policy: Rollout) -> str | None:
    return RULES if policy.kill_to is Fallback.RULES else None


def _up(fleet: Fleet, entries: Sequence[Entry], version: int, emit: Callable[[Told], None]) -> str:
    """Return the slot in which a champion is ready, once it is; empty of one that was killed.

    Raises:
        PlaneError, LookupError, BundleError: It does not become ready, or cannot be served.
    """
    try:
        return _ready(fleet, entries, version, emit)
    except (PlaneError, LookupError, BundleError) as e:
        thrown = kill.killed(fleet.plane.home)
        if thrown is None or str(version) not in thrown.killed:
            raise
        emit({"event": "unmoved", "text": f"version {version} was killed and is not up: {e}"})
        return ""


def _ready(
    fleet: Fleet, entries: Sequence[Entry], version: int, emit: Callable[[Told], None]
) -> str:
    plane, slot = fleet.plane, fleet.slot_of(version)
    if slot is None:
        digest = registered.package_to_serve(entries, version).digest
        slot = _place(fleet, entries, version)
        emit({"event": "starting", "what": f"champion, version {version}", "slot": slot})
        fleet.start(Placed(version=version, digest=digest, slot=slot), entries)
    plane.wait_ready(slot, version=str(version), timeout_s=READY_TIMEOUT_S)
    return slot


def _place(fleet: Fleet, entries: Sequence[Entry], version: int) -> str:
    """Return the slot that a champion gets: a release's, or one whose server nobody asks."""
    for state in folding.active(entries):
        opened = opened_of(entries, state.release)
        for placed in (opened.champion, opened.challenger):
            if placed is not None and placed.version == version:
                return placed.slot
    # Whoever answers now goes on until the champion can.
    answering = asked(fleet.plane.written(EVERYWHERE))
    thrown = kill.killed(fleet.plane.home)
    # Where the kill switch sends everybody stays as it is.
    kept = thrown.to if thrown is not None and thrown.version != str(version) else None
    slots = [slot for slot in SLOTS if slot != kept]
    free = [slot for slot in slots if not fleet.plane.ready(slot)]
    return next(iter([*free, *(slot for slot in slots if slot not in answering)]), slots[0])


def promised(entries: Sequence[Entry], version: int) -> Endpoint | None:
    """Return what a version's package promises its callers; None of one from before it did.

    Raises:
        LookupError, BundleError: The package cannot be served.
        ValueError: It promises what nobody knows.
    """
    held = registered.package_to_serve(entries, version).json("serving.json").get("endpoint")
    return None if held is None else Endpoint.from_dict(held)
