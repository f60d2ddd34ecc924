"""Champions: who serves while nothing is released, in every market; brought up and given users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from penstock import registered
from penstock.endpoint import Endpoint
from penstock.ledger import Entry, Ledger, serving_order
from penstock.release import EVERYWHERE, Rollout
from penstock.rollout import folding, kill
from penstock.rollout.branches import champion_in
from penstock.rollout.carrying import put
from penstock.rollout.fleet import Fleet
from penstock.rollout.journal import Told, unheard
from penstock.rollout.opened import Placed, opened_of
from penstock.rollout.plane import Plane
from penstock.rollout.table import SLOTS
from penstock.rollout.watchdog import asked, returned
from penstock.workload import load

READY_TIMEOUT_S = 90.0


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
    users to be returned to; nobody waits for it.
    """
    entries, policy = ledger.entries(workload), load(workload).rollout
    fleet = Fleet(plane=plane)
    serve(fleet, entries, policy, unheard)
    if not plane.killed():
        fleet.tidy(entries, policy)
    return champions(entries, policy).get(EVERYWHERE)


def serve(
    fleet: Fleet, entries: Sequence[Entry], policy: Rollout, emit: Callable[[Told], None]
) -> None:
    """Bring each champion up where it is not, and give it the users of its markets.

    Raises:
        PlaneError: A server did not become ready; the text says why.
    """
    active = {state.market for state in folding.active(entries)}
    wanted = champions(entries, policy)
    slots = {version: _up(fleet, entries, version, emit) for version in set(wanted.values())}
    for market, version in wanted.items():
        held = fleet.plane.written(market)
        stands = replace(returned(held), sequence=held.sequence, trickle=held.trickle)
        if market not in active and (held.champion != slots[version] or held != stands):
            put(fleet.plane, replace(returned(held), champion=slots[version]))


def _up(fleet: Fleet, entries: Sequence[Entry], version: int, emit: Callable[[Told], None]) -> str:
    """Return the slot in which a champion is ready, once it is."""
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
