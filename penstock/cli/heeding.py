"""Heed a command that brings users back, where nobody carries its release."""

from __future__ import annotations

from penstock.cli.home import Home
from penstock.ledger import Actor, Ledger
from penstock.ledger.lifecycle import refused_role
from penstock.rollout import lease, unfinished
from penstock.rollout.journal import unheard
from penstock.rollout.plan import ENDED
from penstock.rollout.plane import Plane
from penstock.rollout.running import conducted
from penstock.rollout.state import INTENT, State

TICKS, TICK_S = 40, 0.25
"""Looks within which a release must have ended, one does, and the wait between two."""


def is_carried(held: Home, release: str) -> bool:
    """Return whether a process that lives holds the lease of a release."""
    found = (lease.read(path) for path in lease.leases_of(held.path / "serving").glob("*.json"))
    return any(one is not None and one.release == release and one.lives() for one in found)


def unable(held: Home, ledger: Ledger) -> str:
    """Return why this process cannot carry a release for a moment; empty where it can."""
    if not Plane.running(held.path):
        return "no servers run"
    if unfinished.going_on(held.path / "serving"):
        return "a rollback is being rehearsed"
    actor = Actor.load(held.key())
    return refused_role(actor.name, ledger.roles(actor.name), INTENT, None) or ""


def carry_to_end(held: Home, ledger: Ledger, state: State) -> State:
    """Carry a release that was asked to end until it has, and return where it stands then.

    Another process that takes it meanwhile keeps it. Whoever acts here is the home's controller;
    who asked is in the ledger already.

    Raises:
        LedgerError: The ledger cannot be written; all users are with the champion then.
    """
    plane, actor = Plane.attach(held.path), Actor.load(held.key())
    with conducted(plane, state.workload, held.path, ledger, actor, unheard) as conductor:
        controller = conductor.controller(state.release)
        try:
            for _ in range(TICKS if controller.hold() else 0):
                state = controller.tick()
                if state.phase in ENDED:
                    conductor.lease.release(state.release)
                    conductor.tidy()
                    return state
                conductor.clock.sleep(TICK_S)
        finally:
            conductor.leave()
    return state
