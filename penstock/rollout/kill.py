"""The kill switch: everybody to the declared fallback, whoever else is dead.

Throwing it writes files and nothing else: a request that says who and why, then the link that Envoy
follows (:mod:`penstock.rollout.switch`). It needs no ledger, no controller, no registry and no
supervisor. Who may throw it is known from a roll that is copied out of the ledger whenever that can
be read; the request is signed by the person's key, kept, and entered in the ledger when that is
back. Only :func:`clear` turns it off, for a person with the role, in the ledger.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.ledger import Actor, Ledger
from penstock.ledger.actors import signed_by
from penstock.ledger.entry import canonical
from penstock.rollout import switch, written
from penstock.rollout.access import write_private
from penstock.rollout.routing import ANSWERING
from penstock.rollout.table import RULES, TrafficTable

KILL, CLEARED = "kill", "kill cleared"
"""Kinds of the entries by which the ledger tells of it."""

THROWERS = frozenset({"compliance", "operator", "admin"})
CLEARERS = frozenset({"compliance", "admin"})

BY_HAND = "whoever may write the files of this home"
ROLL = "kill-roll.json"
_SIGNED = b"penstock kill v1\n"
_KEPT = "kill-"


class NotAllowed(PermissionError):
    """Whoever asks may not do this to the switch; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """That the switch is thrown: by whom, where to, why."""

    id: str
    to: str
    """Slot that answers everybody from then on."""

    reason: str
    by: str
    how: str
    """``key``: signed; ``token``: over HTTP; ``file``: the link was turned by hand."""

    at: str
    version: str | None
    """That the slot serves."""

    killed: tuple[str, ...]
    """Versions that may answer nobody until it is cleared."""

    serving: Mapping[str, Any] | None = None
    """What the slot should run, so that it can be brought up again."""

    public_key: str = ""
    signature: str = ""

    def signing_input(self) -> bytes:
        """Return what is signed."""
        said = {k: v for k, v in asdict(self).items() if k != "signature"}
        return _SIGNED + canonical(said | {"killed": list(self.killed)}).encode("ascii")

    def __str__(self) -> str:
        return f"{self.by} sent everybody to slot {self.to}: {self.reason}"


def _serving(home: Path) -> Path:
    return home / "serving"


def remember(home: Path, ledger: Ledger) -> None:
    """Copy who may throw the switch out of the ledger, for when that cannot be read.

    Raises:
        LedgerError: It cannot be read now; the copy of before stays.
    """
    people = [
        {"name": a.name, "public_key": a.public_key, "roles": sorted(a.roles)}
        for a in ledger.actors()
        if not a.revoked and a.roles & THROWERS
    ]
    _serving(home).mkdir(parents=True, exist_ok=True)
    write_private(_serving(home) / ROLL, people)


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
    made = _request(home, reason=reason, by=actor.name, how="key", now=now, to=to)
    made = replace(made, public_key=actor.public_key)
    return _turn(home, replace(made, signature=actor.sign(made.signing_input())))


def throw_by_token(
    home: Path, name: str, *, reason: str, now: datetime, to: str | None = None
) -> Request:
    """Do the same for a caller whose token was found to be right.

    Raises:
        ValueError, OSError: As :func:`throw`.
    """
    return _turn(home, _request(home, reason=reason, by=name, how="token", now=now, to=to))


def check_person(home: Path, actor: Actor) -> None:
    """Refuse whom the copied roll does not know in a role that may throw the switch.

    Raises:
        NotAllowed: It does not.
    """
    try:
        people = json.loads((_serving(home) / ROLL).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise NotAllowed(
            f"nobody is known here yet ({e}); start the servers once while the ledger can be read: "
            "penstock up. By hand: docs/runbooks/kill.md"
        ) from e
    known = next((p for p in people if p["name"] == actor.name), None)
    if known is None or known["public_key"] != actor.public_key:
        raise NotAllowed(
            f"{actor.name}, with this key, may not throw the kill switch; it takes the role "
            f"{' or '.join(sorted(THROWERS))}. An admin gives roles: penstock ledger enrol."
        )


def _request(
    home: Path, *, reason: str, by: str, how: str, now: datetime, to: str | None
) -> Request:
    if not reason.strip():
        raise ValueError("the kill switch wants a reason; say in a sentence why.")
    before = killed(home)
    slot = to or (before.to if before else fallback_of(_tables(home)))
    if slot not in ANSWERING:
        raise ValueError(f"there is no slot {slot!r}; choose one of {', '.join(ANSWERING)}.")
    made = _noted(home, slot, before, reason=reason.strip(), by=by, how=how, now=now)
    if made.version is None:
        raise ValueError(f"slot {slot} serves nothing, so nobody would be answered; name another.")
    if before is not None and made.version in before.killed:
        raise ValueError(
            f"version {made.version} in slot {slot} was killed; only a person with the role "
            f"{' or '.join(sorted(CLEARERS))} brings it back: penstock kill clear."
        )
    return made


def _noted(
    home: Path, to: str, before: Request | None, *, reason: str, by: str, how: str, now: datetime
) -> Request:
    """Return a request with what it does: every version but the slot's own is killed."""
    slots, at = _slots(home), now.astimezone(UTC)
    serving = slots.get(to)
    version = None if serving is None else serving["version"]
    others = {s["version"] for s in slots.values() if s is not None} - {version}
    gone = others | set(() if before is None else before.killed)
    return Request(
        id=f"{at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        to=to,
        reason=reason,
        by=by,
        how=how,
        at=at.isoformat(),
        version=version,
        killed=tuple(sorted(gone - {RULES})),
        serving=serving,
    )


def fallback_of(tables: Mapping[str, TrafficTable]) -> str:
    """Return where the switch leads: rules where any market declares them, else a slot.

    Of two markets that name different slots the one counts that nobody tries out, and then the one
    that most name: the switch is for everybody at once.
    """
    named = [table.fallback or table.champion for table in tables.values()]
    if not named:
        raise ValueError("no table says where the kill switch leads; name a slot with --to.")
    if RULES in named:
        return RULES
    tried = {table.challenger for table in tables.values() if table.buckets}
    return min(named, key=lambda slot: (slot in tried, -named.count(slot), slot))


def _tables(home: Path) -> dict[str, TrafficTable]:
    try:
        return written.tables(_serving(home) / "routes" / "table.json")
    except (OSError, ValueError, LookupError):
        return {}


def _slots(home: Path) -> dict[str, Any]:
    try:
        text = (_serving(home) / "desired.json").read_text(encoding="utf-8")
        return json.loads(text)["slots"]
    except (OSError, ValueError, KeyError):
        return {}


def _turn(home: Path, request: Request) -> Request:
    """Keep the request, then turn the link to the folder that bears its name.

    Where a disk is too full to keep it, the link is turned nevertheless, to a folder that has been
    there since the first start; who did it is then not known.
    """
    serving = _serving(home)
    folder = switch.folder_of(serving) / f"{_KEPT}{request.id}"
    try:
        switch.prepare(serving)
        write_private(folder.with_name(f"{folder.name}.json"), asdict(request))
        switch.fill(folder, request.to)
        switch.turn(serving, folder.name)
    except OSError:
        switch.turn(serving, f"to-{request.to}")
    return request


def killed(home: Path) -> Request | None:
    """Return the request in force, None while the switch is off.

    One that was thrown by hand names nobody; see :func:`adopt`.
    """
    to = switch.thrown_to(_serving(home))
    if to is None:
        return None
    kept = switch.folder_of(_serving(home)) / f"{switch.target(_serving(home))}.json"
    try:
        return _read(kept)
    except (OSError, ValueError, TypeError):
        return Request(
            id="", to=to, reason="no reason was given", by=BY_HAND, how="file", at="",
            version=None, killed=(),
        )  # fmt: skip


def adopt(home: Path, now: datetime) -> Request | None:
    """Make a request of a switch that was turned by hand, so that it is known what is killed."""
    found = killed(home)
    if found is None or found.id:
        return found
    noted = _noted(home, found.to, None, reason=found.reason, by=BY_HAND, how="file", now=now)
    return _turn(home, noted)


def _read(path: Path) -> Request:
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    made = Request(**held)
    return replace(made, killed=tuple(made.killed))


def unrecorded(home: Path) -> list[Request]:
    """Return the requests that are not known to be in the ledger, oldest first."""
    folder = switch.folder_of(_serving(home))
    found = [p for p in folder.glob(f"{_KEPT}*.json") if not p.with_suffix(".entered").exists()]
    return sorted(map(_read, found), key=lambda request: request.at)


def reconcile(ledger: Ledger, actor: Actor, *, home: Path, workload: str, now: datetime) -> int:
    """Enter in the ledger what was done to the switch while it was away; return how many entries.

    The entry is the actor's, who vouches for nothing but that the request lay here; the request
    bears its own signature, and whether that is right is said.

    Raises:
        LedgerError: It is still away; nothing is lost.
    """
    adopt(home, now)
    waiting = unrecorded(home)
    if not waiting:
        return 0
    known = {e.body["id"] for e in ledger.entries(workload) if e.kind == KILL}
    keys = {a.name: a.public_key for a in ledger.actors()}
    for request in waiting:
        if request.id not in known:
            body = asdict(request) | {"killed": list(request.killed)}
            body["verified"] = _is_theirs(request, keys.get(request.by))
            ledger.append(
                workload=workload, version=None, kind=KILL, body=body, actor=actor, now=now
            )
        (switch.folder_of(_serving(home)) / f"{_KEPT}{request.id}.entered").touch()
    return len(waiting)


def _is_theirs(request: Request, public_key: str | None) -> bool:
    return (
        request.how == "key"
        and public_key == request.public_key
        and signed_by(request.public_key, request.signature, request.signing_input())
    )


def clear(
    home: Path, ledger: Ledger, actor: Actor, *, workload: str, reason: str, now: datetime
) -> None:
    """Let tables decide again. The entry comes first: what is not in the ledger is not cleared.

    Raises:
        NotAllowed: The actor has no role that may.
        ValueError: The switch is not thrown, or there is no reason.
        LedgerError: The ledger cannot be written; the switch stays thrown.
    """
    if not reason.strip():
        raise ValueError("clearing the kill switch wants a reason; say why it is safe again.")
    if not ledger.roles(actor.name) & CLEARERS:
        raise NotAllowed(
            f"{actor.name} may not clear the kill switch; it takes a person with the role "
            f"{' or '.join(sorted(CLEARERS))}."
        )
    reconcile(ledger, actor, home=home, workload=workload, now=now)
    thrown = killed(home)
    if thrown is None:
        raise ValueError("the kill switch is not thrown; there is nothing to clear.")
    cleared = {e.body["id"] for e in ledger.entries(workload) if e.kind == CLEARED}
    if thrown.id not in cleared:
        body = {"id": thrown.id, "to": thrown.to, "reason": reason.strip()}
        ledger.append(
            workload=workload, version=None, kind=CLEARED, body=body, actor=actor, now=now
        )
    if (held := killed(home)) is not None and held.id == thrown.id:
        switch.turn(_serving(home), switch.OFF)
