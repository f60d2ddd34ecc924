"""Commands: what a person may ask of a release, who may ask it, and what is heeded next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from penstock.ledger import Actor, Entry, Ledger
from penstock.ledger.standing import Standings, standings
from penstock.rollout.independence import dependent, opening
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.reasons import spelt
from penstock.rollout.state import COMMAND, Ask, Command, State
from penstock.stage import Refused

_HANDS = frozenset({"operator", "owner", "admin"})

MAY: Mapping[Ask, frozenset[str]] = {
    Ask.PAUSE: _HANDS | {"compliance"},
    Ask.RESUME: _HANDS,
    Ask.ABORT: _HANDS | {"compliance"},
    Ask.ROLL_BACK: _HANDS | {"compliance"},
    Ask.PROMOTE: frozenset({"approver"}),
}
"""By command, the roles of which one must be held. Who stops a release need not be who goes on."""

BACKWARD = (Ask.ROLL_BACK, Ask.ABORT)
"""Heeded before all others: whoever wants users back does not wait behind a pause."""


def pending(state: State, roles: Standings, entries: Sequence[Entry] = ()) -> Command | None:
    """Return the command that is heeded next, of those that nothing has answered yet.

    Backward ones come first, then the oldest. What its actor may not ask is passed over.

    Args:
        roles: What everybody's signature is worth now.
        entries: Of the workload; without them nobody is known to be independent enough to promote.
    """
    heard = [c for c in state.commands if not _unheard(c, state, roles, entries)]
    return min(heard, key=lambda c: (c.ask not in BACKWARD, c.sequence), default=None)


def _unheard(command: Command, state: State, roles: Standings, entries: Sequence[Entry]) -> str:
    standing = roles.get(command.actor)
    if standing is None or not standing.vouches(command):
        return f"{command.actor} may not sign any more, or signs with another key now"
    return refused_actor(command.actor, command.ask, state, roles, entries)


def refused_actor(
    name: str, ask: Ask, state: State, roles: Standings, entries: Sequence[Entry]
) -> str:
    """Return why somebody may not give a command; empty where they may."""
    held = roles[name].roles if name in roles else frozenset[str]()
    if not held & MAY[ask]:
        wanted = " or ".join(sorted(MAY[ask]))
        return f"{name} may not {ask} a release; it takes the role {wanted}"
    if ask is not Ask.PROMOTE:
        return ""
    try:
        version = opening(entries, state.release).body["challenger"]["version"]
    except LookupError as e:
        return str(e)
    why = dependent(name, release=state.release, version=version, entries=entries, roles=roles)
    return f"{name} may not {ask} this release: {why}" if why else ""


def give(
    ledger: Ledger, state: State, ask: Ask, *, reason: str, actor: Actor, now: datetime
) -> Entry:
    """Ask something of a release: a signed entry that the controller heeds at its next look.

    Raises:
        Refused: The release has ended or is not where this makes sense, the same is asked already,
            the actor may not, or no reason is given; the text says what to do.
        LedgerError: The ledger does not take the entry.
    """
    entries, roles = ledger.entries(state.workload), standings(ledger)
    if not reason.strip():
        raise Refused(f"a command says why; give a sentence by --reason to {ask}.")
    if why := refused_actor(actor.name, ask, state, roles, entries):
        raise Refused(f"{why}; an admin gives roles: penstock ledger enrol.")
    if why := out_of_place(state, ask) or _twice(state, ask):
        raise Refused(why)
    body = {"release": state.release, "command": str(ask), "reason": spelt(reason)}
    return ledger.append(
        workload=state.workload,
        version=opening(entries, state.release).version,
        kind=COMMAND,
        body={**body, "override": True} if ask is Ask.PROMOTE else body,
        actor=actor,
        now=now,
    )


def out_of_place(state: State, ask: Ask) -> str:
    """Return why a command makes no sense where a release is now; empty where it does."""
    return next((why for wrong, why in _reasons(state, ask) if wrong), "")


def _reasons(state: State, ask: Ask) -> Iterator[tuple[bool, str]]:
    name, phase, paused = f"release {state.release}", state.phase, state.phase is Phase.PAUSED
    promoting = ask is Ask.PROMOTE
    yield (
        phase in ENDED,
        f"{name} ended in {phase}; there is nothing to {ask}. See penstock release rollback.",
    )
    yield (
        ask is Ask.PAUSE and paused,
        f"{name} is paused already; penstock release resume lets it go on.",
    )
    yield (
        ask is Ask.RESUME and not paused,
        f"{name} is not paused, it is in {phase}; there is nothing to resume.",
    )
    yield (
        promoting and paused,
        f"{name} is paused; let it go on first: penstock release resume.",
    )
    yield (
        promoting and state.awaited is not None,
        f"{name} waits for an approval; give it: penstock release approve.",
    )
    yield (
        promoting and state.step is None,
        f"{name} is in {phase} and has no step yet; wait until it is in shadow.",
    )


def _twice(state: State, ask: Ask) -> str:
    for command in state.commands:
        if command.ask is ask:
            return (
                f"{command.actor} asked to {ask} release {state.release} at "
                f"{command.at:%Y-%m-%d %H:%M:%S}, entry {command.sequence}, and the controller has "
                "not answered yet; is it running? penstock release status."
            )
    return ""
