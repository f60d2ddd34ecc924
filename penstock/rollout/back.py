"""Back to the version before, after a release was done; and what of its answers stays behind.

Traffic goes back as fast as it can, in one of three ways. *Immediate*: the version before stands by
on its warm slot. *Rapid*: it does not, and is started again from what was registered. *Delayed*:
the same, of a workload whose answers become training data, which must be seen to before the next
training. While a release goes on its controller does it; when all else is dead, the kill switch.

Which state is left behind follows from the policy. Weights leave none. Caches and sessions end with
the server that is left. Of answers that become training data the window is flagged in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from penstock import registered
from penstock.ledger import Actor, Entry, Ledger, NotEnrolled, Stage, stage_of
from penstock.ledger.lifecycle import refused_role
from penstock.ledger.roll import Roll
from penstock.release import EVERYWHERE, Fallback, Rollout, State
from penstock.rollout import branches, folding, kill
from penstock.rollout.independence import opening
from penstock.rollout.plane import Plane
from penstock.rollout.reasons import stated
from penstock.rollout.state import IN_FORCE, INTENT, OPENED, Act
from penstock.rollout.table import RULES, SLOTS, TrafficTable
from penstock.rollout.turning import refuse_another, turn
from penstock.stage import Refused
from penstock.workload import load

RETURNING, CONTAMINATED = "returning", "contaminated"
"""Kinds of entries: that users are about to be returned (market, from, to, kind, table, reason);
and that a version's answers of a time must not be learned from (market, since, until, why)."""

READY_S = 120.0


class Kind(StrEnum):
    """How fast users can go back."""

    IMMEDIATE = "immediate"
    RAPID = "rapid"
    DELAYED = "delayed"


@dataclass(frozen=True, kw_only=True)
class Back:
    """What was done."""

    version: int
    """That users were returned from, and to which."""

    to: int
    kind: Kind
    milliseconds: float
    """From the table's writing until it was in force; a server that had to start is not in it."""

    notes: tuple[str, ...]
    """What became of state, in sentences; and what is wrong, if anything is."""


def kind_of(state: State, *, loaded: bool) -> Kind:
    """Return how a version's users go back.

    Args:
        loaded: The version before stands by and answers its golden requests right.
    """
    if loaded:
        return Kind.IMMEDIATE
    return Kind.DELAYED if state is State.FEEDBACK else Kind.RAPID


def back(
    home: Path,
    ledger: Ledger,
    *,
    workload: str,
    market: str,
    reason: str,
    actor: Actor,
    now: datetime,
) -> Back:
    """Return the users of a market to the version that served them before.

    What is to be done is in the ledger before it is done; when it is cut off, doing it again ends
    in the same place. While the kill switch is thrown the table waits behind it, so that to clear
    the switch brings nobody back to what was killed.

    Raises:
        Refused: There is none, or no slot for it; a release goes on there; the servers serve
            another workload.
        ValueError: No reason is given, or one that cannot be printed.
        LedgerError: The actor may not, or the ledger cannot be written; nothing was done.
        PlaneError: No servers run, or the table is not in force; the text says which.
    """
    reason = stated(reason, "a return of users")
    policy, entries = load(workload).rollout, ledger.entries(workload)
    plane = Plane.attach(home)
    refuse_another(plane, workload)
    version, to = _versions(entries, market, policy)
    _refuse_release(entries, market)
    _refuse_actor(ledger, actor)
    thrown = kill.killed(home)
    if thrown is not None and str(to) in thrown.killed:
        raise Refused(f"version {to} was killed as well, so nobody goes back to it: {thrown}")
    slot = plane.slot_of(str(to))
    loaded = slot is not None and plane.ready(slot) and not plane.verify_slot(slot)
    kind = kind_of(policy.state, loaded=loaded)
    if slot is None or not loaded:
        slot = _started(plane, entries, to, market)
    held = plane.written(market)
    table = _table(held, slot, policy)
    said: dict[str, Any] = {"market": market, "from": version, "to": to, "reason": reason}
    said |= {"kind": str(kind)}

    def append(what: str, body: dict[str, Any]) -> None:
        ledger.append(
            workload=workload, version=version, kind=what, body=body, actor=actor, now=now
        )

    # A server that had to start may have taken minutes.
    _refuse_release(ledger.entries(workload), market)
    append(RETURNING, said | {"table": table.to_dict()})
    turned = turn(plane, table)
    if plane.observe(market) != table:
        plane.wait_applied(table, timeout_s=0)
    if thrown is not None:
        # Where requests go says nothing of the table: it counts when the switch is cleared.
        notes = [f"the kill switch still decides who answers: {thrown}; penstock kill clear"]
    else:
        notes = [turned.wrong] if turned.wrong else []
    append(branches.BACK, said | {"milliseconds": turned.milliseconds, "notes": notes})
    if body := contaminated(entries, version, market, policy, now=now, why=reason):
        append(CONTAMINATED, body)
        notes.append(f"answers from {body['since']} to {body['until']} are flagged")
    notes += _leave(plane, ledger, workload, version, policy, reason, actor, now)
    return Back(
        version=version, to=to, kind=kind, milliseconds=turned.milliseconds, notes=tuple(notes)
    )


def _versions(entries: Sequence[Entry], market: str, policy: Rollout) -> tuple[int, int]:
    """Return who answers a market's users, and who did before.

    Raises:
        Refused: Nobody does, or did.
    """
    if market not in policy.market_names():
        names = ", ".join(policy.market_names())
        raise Refused(f"there is no market {market!r}; there are {names}.")
    order = branches.order_in(entries, market, policy)
    if len(order) < 2:
        raise Refused(
            f"market {market} has no version before to go back to; to stop this one, throw the "
            "kill switch: penstock kill"
        )
    return order[0], order[1]


def _refuse_release(entries: Sequence[Entry], market: str) -> None:
    """Refuse while a release goes on in a market: its controller would turn users again.

    Raises:
        Refused: One does.
    """
    for state in folding.active(entries):
        if state.market in (market, EVERYWHERE):
            raise Refused(
                f"release {state.release} goes on there, in {state.phase}; end it first: penstock "
                f"release rollback {state.release} --reason WHY"
            )


def _refuse_actor(ledger: Ledger, actor: Actor) -> None:
    """See that an actor may return users, before a server is touched.

    Raises:
        NotEnrolled: It may not.
    """
    known = Roll({held.name: held for held in ledger.actors()}).of(actor.name, actor.key_id)
    if why := refused_role(known.name, known.roles, RETURNING, None):
        raise NotEnrolled(why)


def _started(plane: Plane, entries: Sequence[Entry], version: int, market: str) -> str:
    """Start a version from what was registered, where no user is; return its slot."""
    package = registered.package_to_serve(entries, version)
    slot = plane.slot_of(str(version)) or _free(plane, entries, market)
    plane.set_slot(slot, package=package.path, digest=package.digest, version=str(version))
    plane.wait_ready(slot, version=str(version), timeout_s=READY_S)
    if wrong := plane.verify_slot(slot):
        raise Refused(f"version {version} was started and is not right: {wrong}")
    return slot


def _free(plane: Plane, entries: Sequence[Entry], market: str) -> str:
    """Return the slot that answers nobody, and that no release needs: not a shadow's either.

    Raises:
        Refused: There is none.
    """
    tables = plane.tables().values()
    busy = {slot for t in tables for slot in (t.slot_for(0), t.slot_for(63), t.mirror)}
    going = [opening(entries, state.release).body for state in folding.active(entries)]
    busy |= {body["challenger"]["slot"] for body in going}
    free = [slot for slot in SLOTS if slot not in busy]
    if not free:
        raise Refused(
            f"market {market} cannot go back yet: both slots answer users of a market, or serve a "
            "release."
        )
    return free[0]


def _table(held: TrafficTable, slot: str, policy: Rollout) -> TrafficTable:
    return replace(
        held,
        sequence=held.sequence + 1,
        champion=slot,
        challenger=None,
        buckets=0,
        mirror=None,
        trickle=None,
        fallback=RULES if policy.kill_to is Fallback.RULES else None,
    )


def contaminated(
    entries: Sequence[Entry],
    version: int,
    market: str,
    policy: Rollout,
    *,
    now: datetime,
    why: str,
) -> dict[str, Any] | None:
    """Return the entry that flags a version's answers, None where nobody learns from them."""
    if policy.state is not State.FEEDBACK:
        return None
    since = exposed_since(entries, version, market)
    return {"market": market, "since": since, "until": now.isoformat(), "why": why}


def exposed_since(entries: Sequence[Entry], version: int, market: str) -> str:
    """Return when a version first answered a user of a market, as the ledger has it.

    Of one that no release has brought there, when it was promoted.

    Raises:
        LookupError: It never did.
    """
    mine = {
        e.body["release"]
        for e in entries
        if e.kind == OPENED and e.version == version and e.body["market"] == market
    }
    shown: set[tuple[str, int]] = set()
    for entry in entries:
        body = entry.body
        if entry.kind == INTENT and body.get("release") in mine and _shows(body):
            shown.add((body["release"], body["n"]))
        answers = entry.kind == IN_FORCE and (body.get("release"), body.get("n")) in shown
        promoted = entry.version == version and entry.target == Stage.PRODUCTION
        if answers or (promoted and not mine):
            return entry.at
    raise LookupError(f"version {version} never answered users of {market}.")


def _shows(body: Mapping[str, Any]) -> bool:
    """Return whether an intent puts users on the challenger."""
    table = body.get("table")
    if table is None or body["action"] not in (Act.ENTER, Act.FINISH):
        return False
    # Of a first version, the champion's slot is its own.
    return table["buckets"] > 0 or table["mirror"] is None


def _leave(
    plane: Plane,
    ledger: Ledger,
    workload: str,
    version: int,
    policy: Rollout,
    reason: str,
    actor: Actor,
    now: datetime,
) -> list[str]:
    """End the server of a version that no market has any more, and archive it."""
    entries = ledger.entries(workload)
    if why := branches.kept(entries, version, policy):
        return [f"version {version} stays: {why}"]
    notes: list[str] = []
    slot = plane.slot_of(str(version))
    thrown = kill.killed(plane.home)
    if slot is not None and (thrown is None or thrown.to != slot):
        plane.stop_slot(slot)
        if policy.state is not State.NONE:
            notes.append(f"caches and sessions of slot {slot} ended with its server")
    if stage_of(entries, version) is not Stage.ARCHIVED:
        ledger.move(
            workload=workload, version=version, to=Stage.ARCHIVED, reason=reason, actor=actor,
            now=now, override=f"users were returned from it: {reason}",
        )  # fmt: skip
    return notes
