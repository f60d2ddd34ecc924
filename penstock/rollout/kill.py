"""The kill switch: everybody to the declared fallback, whoever else is dead.

Throwing it writes files and nothing else: a note that says who and why
(:mod:`penstock.rollout.killnotes`), then the link that Envoy follows
(:mod:`penstock.rollout.switch`). It needs no ledger, no controller, no registry and no supervisor,
and waits for no lock. Who may throw it is known from a copied roll
(:mod:`penstock.rollout.killroll`); the request is signed by the person's key, kept, and entered in
the ledger when that is back. Only :func:`clear` turns it off, for a person with the role, in the
ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from penstock.ledger import Actor, Ledger
from penstock.rollout import killnotes, switch
from penstock.rollout.killeffect import bring_home, brought_home, fallback_of, noted, tables
from penstock.rollout.killnotes import BY_HAND, FILE, KEY, TOKEN, Request
from penstock.rollout.killroll import NotAllowed, check_person
from penstock.rollout.reasons import stated
from penstock.rollout.routing import ANSWERING

KILL, CLEARED = "kill", "kill cleared"
"""Kinds of the entries by which the ledger tells of it."""

CLEARERS = frozenset({"compliance", "admin"})

PATIENCE_S = 10.0
"""Longest wait for whoever else looks at the link and turns it; a throw never waits."""


def _serving(home: Path) -> Path:
    return home / "serving"


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Let nobody but a throw turn the link between a look at it and a turn.

    Raises:
        Timeout: Somebody else has been at it for long.
    """
    with FileLock(switch.folder_of(_serving(home)) / "turn.lock", timeout=PATIENCE_S):
        yield


def throw(
    home: Path, actor: Actor, *, reason: str, now: datetime, to: str | None = None
) -> Request:
    """Send everybody to a slot, at once, by files alone; again is another request.

    Args:
        to: The slot; None for the fallback that the table in force declares.

    Raises:
        NotAllowed: The copied roll does not know the actor's key in a role that may.
        ValueError: There is no reason, no such slot, or nothing answers there.
        OSError: The files cannot be written.
    """
    check_person(home, actor)
    made = _request(home, reason=reason, by=actor.name, how=KEY, now=now, to=to)
    made = replace(made, public_key=actor.public_key)
    return _turn(home, replace(made, signature=actor.sign(made.signing_input())))


def throw_by_token(
    home: Path, name: str, *, reason: str, now: datetime, to: str | None = None, maker: str = ""
) -> Request:
    """Do the same for a caller whose token was found to be right.

    Args:
        maker: Who made the token.

    Raises:
        ValueError, OSError: As :func:`throw`.
    """
    made = _request(home, reason=reason, by=name, how=TOKEN, now=now, to=to)
    return _turn(home, replace(made, maker=maker))


def _request(
    home: Path, *, reason: str, by: str, how: str, now: datetime, to: str | None
) -> Request:
    said, before = stated(reason, "the kill switch"), killed(home)
    slot = to or (before.to if before else fallback_of(tables(_serving(home))))
    if slot not in ANSWERING:
        raise ValueError(f"there is no slot {slot!r}; choose one of {', '.join(ANSWERING)}.")
    gone = frozenset[str]() if before is None else _gone(home, before)
    made = noted(_serving(home), slot, gone, reason=said, by=by, how=how, now=now)
    if made.version is None:
        raise ValueError(f"slot {slot} serves nothing, so nobody would be answered; name another.")
    if made.version in gone:
        raise ValueError(
            f"version {made.version} in slot {slot} was killed; only a person with the role "
            f"{' or '.join(sorted(CLEARERS))} brings it back: penstock kill clear."
        )
    return made


def _gone(home: Path, before: Request, cleared: Collection[str] = ()) -> frozenset[str]:
    """Return the versions that are killed already; a link turned by hand says of none."""
    if before.id:
        return frozenset(before.killed)
    newest = killnotes.newest_not_over(_serving(home), cleared)
    return frozenset(() if newest is None else newest.killed)


def _turn(home: Path, request: Request) -> Request:
    """Keep the request, then turn the link to the folder that bears its name.

    Where a disk is too full to keep it, the link is turned nevertheless, to a folder that has been
    there since the first start; who did it is then not known.
    """
    serving = _serving(home)
    folder = killnotes.folder(serving, request.id)
    try:
        switch.prepare(serving)
        killnotes.keep(serving, request)
        switch.fill(folder, request.to)
        switch.turn(serving, folder.name)
    except OSError:
        switch.turn(serving, f"to-{request.to}")
    killnotes.settle(serving, request)
    return request


def killed(home: Path) -> Request | None:
    """Return the request in force, None while the switch is off.

    One that was thrown by hand names nobody; see :func:`adopt`.
    """
    return killnotes.in_force(_serving(home))


def adopt(home: Path, now: datetime, *, cleared: Collection[str] = ()) -> Request | None:
    """Make a request of a switch that was turned by hand, so that it is known what is killed.

    Args:
        cleared: Requests that the ledger says are over; a link to one was turned by hand.
    """
    found = killed(home)
    if found is None or not _is_by_hand(found, cleared):
        return found
    try:
        with _alone(home):
            return _adopted(home, now, cleared)
    except (Timeout, OSError):
        return _as_noted(home, found, now, cleared)


def _is_by_hand(found: Request, cleared: Collection[str]) -> bool:
    return not found.id or found.id in cleared


def _as_noted(home: Path, found: Request, now: datetime, cleared: Collection[str]) -> Request:
    """Return what a switch that was turned by hand does, as a request of its own."""
    reason = "no reason was given" if found.id else found.reason
    gone = _gone(home, replace(found, id=""), cleared)
    return noted(_serving(home), found.to, gone, reason=reason, by=BY_HAND, how=FILE, now=now)


def _adopted(home: Path, now: datetime, cleared: Collection[str]) -> Request | None:
    serving, link = _serving(home), switch.target(_serving(home))
    known, found = killnotes.ids(serving), killed(home)
    if found is None or not _is_by_hand(found, cleared):
        return found
    made = _as_noted(home, found, now, cleared)
    killnotes.set_aside(serving)
    if switch.target(serving) != link:
        # It was turned again meanwhile; the next look adopts that.
        again = killed(home)
        return _as_noted(home, again, now, cleared) if again and not again.id else again
    _turn(home, made)
    meanwhile = [r for r in killnotes.kept(serving) if r.id not in known | {made.id}]
    return _give_way(home, meanwhile) or made


def _give_way(home: Path, meanwhile: Sequence[Request]) -> Request | None:
    """Turn the link to the newest of what was thrown while we turned it: we may have undone it."""
    if not meanwhile:
        return None
    newest, folder = meanwhile[-1], killnotes.folder(_serving(home), meanwhile[-1].id)
    switch.fill(folder, newest.to)
    switch.turn(_serving(home), folder.name)
    return newest


def unrecorded(home: Path) -> list[Request]:
    """Return the requests that are not known to be in the ledger, oldest first."""
    return killnotes.kept(_serving(home), but=".entered")


def reconcile(ledger: Ledger, actor: Actor, *, home: Path, workload: str, now: datetime) -> int:
    """Enter in the ledger what was done to the switch while it was away; return how many entries.

    The entry is the actor's, who vouches for nothing but that the request lay here; the request
    bears its own signature, and whether that is right is said.

    Raises:
        LedgerError: It is still away; nothing is lost.
    """
    entries = ledger.entries(workload)
    adopt(home, now, cleared={e.body["id"] for e in entries if e.kind == CLEARED})
    waiting = unrecorded(home)
    if not waiting:
        return 0
    known = {e.body["id"] for e in entries if e.kind == KILL}
    keys = {a.name: a.public_key for a in ledger.actors()}
    for request in waiting:
        if request.id not in known:
            body = asdict(request) | {"killed": list(request.killed)}
            body["verified"] = _is_theirs(request, keys.get(request.by))
            ledger.append(
                workload=workload, version=None, kind=KILL, body=body, actor=actor, now=now
            )
        killnotes.entered(_serving(home), request)
    return len(waiting)


def _is_theirs(request: Request, public_key: str | None) -> bool:
    return request.how == KEY and public_key == request.public_key and request.is_signed()


def clear(
    home: Path, ledger: Ledger, actor: Actor, *, workload: str, reason: str, now: datetime
) -> None:
    """Let tables decide again. The entry comes first: what is not in the ledger is not cleared.

    Raises:
        NotAllowed: The actor has no role that may, or another key than the ledger knows.
        ValueError: The switch is not thrown, or there is no reason.
        LedgerError: The ledger cannot be written; the switch stays thrown.
    """
    said = stated(reason, "clearing the kill switch")
    _check_clearer(ledger, actor)
    reconcile(ledger, actor, home=home, workload=workload, now=now)
    if killed(home) is None:
        raise ValueError("the kill switch is not thrown; there is nothing to clear.")
    with _alone(home):
        known, thrown = killnotes.ids(_serving(home)), killed(home)
        if thrown is None or not thrown.id:
            raise ValueError("the kill switch was turned by hand just now; look again, then clear.")
        home_again = [table.to_dict() for table in brought_home(_serving(home))]
        body = {"id": thrown.id, "to": thrown.to, "reason": said, "tables": home_again}
        ledger.append(
            workload=workload, version=None, kind=CLEARED, body=body, actor=actor, now=now
        )
        killnotes.over(_serving(home), thrown, known)
        if switch.target(_serving(home)) == killnotes.folder(_serving(home), thrown.id).name:
            bring_home(_serving(home))
            switch.turn(_serving(home), switch.OFF)
            _give_way(home, killnotes.kept(_serving(home), but=".cleared"))


def _check_clearer(ledger: Ledger, actor: Actor) -> None:
    known = next((a for a in ledger.actors() if a.name == actor.name), None)
    is_theirs = known is not None and known.public_key == actor.public_key
    if not is_theirs or not ledger.roles(actor.name) & CLEARERS:
        raise NotAllowed(
            f"{actor.name}, with this key, may not clear the kill switch; it takes a person with "
            f"the role {' or '.join(sorted(CLEARERS))}."
        )
