"""Approvals: a person lets a release into its next step, for exactly what they were shown.

An approval binds to a :class:`Request`. Whatever of it changes afterwards makes another request, to
which nobody has said yes. A refusal needs no such care: it holds for the step, whatever changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from penstock.ledger import Actor, Entry, Ledger
from penstock.ledger.standing import Standings, standings
from penstock.rollout.documents import lacking, newest
from penstock.rollout.independence import APPROVER, dependent, opening, part
from penstock.rollout.judgement import Approved
from penstock.rollout.plan import Plan
from penstock.rollout.reasons import stated
from penstock.rollout.state import APPROVAL, State
from penstock.stage import Refused


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that an approval binds to."""

    release: str
    workload: str
    version: int
    digest: str
    """Of the package that is released."""

    market: str
    step: str
    """Name of the step that is asked for, as the plan has it."""

    fingerprints: tuple[str, ...]
    """Of the verdict that passed the step before; empty where a first step asks."""

    plan: str
    """Fingerprint of the plan, in which the whole policy is."""

    documents: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name and sha256 of each document that the market asks for and the ledger knows."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as an approval's entry holds them."""
        made = asdict(self)
        return {**made, "fingerprints": list(self.fingerprints), "documents": dict(self.documents)}

    def differs(self, bound: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the fields in which something that was bound is not this request."""
        own = self.to_dict()
        return tuple(name for name in own.keys() | bound.keys() if own.get(name) != bound.get(name))


def request_of(state: State, plan: Plan, entries: Sequence[Entry]) -> Request:
    """Return what an approval of the step that a release waits for must bind.

    Raises:
        Refused: The release waits for no approval.
        LookupError: The ledger does not know the release.
    """
    if state.awaited is None:
        raise Refused(f"release {state.release} waits for no approval; it is in {state.phase}.")
    opened = opening(entries, state.release)
    challenger = opened.body["challenger"]
    known = newest(entries, challenger["version"])
    return Request(
        release=state.release,
        workload=state.workload,
        version=challenger["version"],
        digest=challenger["digest"],
        market=state.market,
        step=plan.steps[state.awaited].name,
        fingerprints=(state.fingerprint,) if state.fingerprint else (),
        plan=plan.fingerprint(),
        documents={n: str(known[n].body.get("sha256")) for n in plan.documents if n in known},
    )


def _dependent(name: str, request: Request, entries: Sequence[Entry], roles: Standings) -> str:
    return dependent(
        name, release=request.release, version=request.version, entries=entries, roles=roles
    )


def grant(
    ledger: Ledger,
    state: State,
    plan: Plan,
    *,
    reason: str,
    actor: Actor,
    now: datetime,
    seen: Request | None = None,
) -> Entry:
    """Approve the step that a release waits for: a signed entry that binds to what is there now.

    Args:
        seen: What the actor was shown; nothing else is signed. None: whatever is there.

    Raises:
        Refused: Nothing waits, a required document lacks, the actor is not independent, or was
            shown something else; the text says what to do.
        ValueError: No reason is given, or one that cannot be printed.
        LedgerError: The ledger does not take the entry.
    """
    entries = ledger.entries(state.workload)
    request = request_of(state, plan, entries)
    if seen is not None and (different := request.differs(seen.to_dict())):
        raise Refused(
            f"nothing is approved: {', '.join(sorted(different))} changed since it was shown to "
            "you; look again."
        )
    if missing := lacking(entries, request.version, plan.documents):
        raise Refused(
            f"documents lack that an approval must bind to: {'; '.join(missing)}. Attach them "
            "first: penstock release attach."
        )
    if why := _dependent(actor.name, request, entries, standings(ledger)):
        raise Refused(
            f"this approval would not count: {why}. Somebody else with the role {APPROVER} must "
            "give it; an admin gives roles: penstock ledger enrol."
        )
    expires = now + plan.policy.approval_expiry
    body = {"granted": True, "expires": expires.astimezone(UTC).isoformat()}
    return _append(ledger, request, body, reason=reason, actor=actor, now=now)


def refuse(
    ledger: Ledger, state: State, plan: Plan, *, reason: str, actor: Actor, now: datetime
) -> Entry:
    """Refuse the step that a release waits for, which ends the release.

    Raises:
        Refused: Nothing waits.
        ValueError: No reason is given, or one that cannot be printed.
        LedgerError: The ledger does not take the entry, as of somebody without the role.
    """
    request = request_of(state, plan, ledger.entries(state.workload))
    return _append(ledger, request, {"granted": False}, reason=reason, actor=actor, now=now)


def _append(
    ledger: Ledger,
    request: Request,
    body: Mapping[str, Any],
    *,
    reason: str,
    actor: Actor,
    now: datetime,
) -> Entry:
    why = stated(reason, "an answer")
    said = {**body, "release": request.release, "binds": request.to_dict(), "reason": why}
    return ledger.append(
        workload=request.workload,
        version=request.version,
        kind=APPROVAL,
        body=said,
        actor=actor,
        now=now,
    )


def binding(
    entries: Sequence[Entry], state: State, plan: Plan, *, roles: Standings, now: datetime
) -> Approved | None:
    """Return the answer to what a release waits for; None while there is none that counts.

    A refusal comes before any approval; of approvals the newest that counts is the answer.

    Args:
        entries: Of the workload, all of them.
        roles: What everybody's signature is worth now; ``standings`` of the ledger.
    """
    if state.awaited is None:
        return None
    request = request_of(state, plan, entries)
    given = _given(entries, request)
    refusals = [e for e in given if not e.body.get("granted") and _heard(e, roles)]
    grants = [e for e in given if not _void(e, request, plan, entries, roles=roles, now=now)]
    answer = next(iter([*refusals, *reversed(grants)]), None)
    if answer is None:
        return None
    return Approved(
        sequence=answer.sequence,
        granted=answer.body.get("granted") is True,
        actor=answer.actor,
        reason=str(answer.body.get("reason", "")),
    )


def why_not(
    entries: Sequence[Entry], state: State, plan: Plan, *, roles: Standings, now: datetime
) -> tuple[str, ...]:
    """Return of each approval that was given for this step and does not count, why, for people."""
    if state.awaited is None:
        return ()
    request = request_of(state, plan, entries)
    said: list[str] = []
    for entry in _given(entries, request):
        void = _void(entry, request, plan, entries, roles=roles, now=now)
        if entry.body.get("granted") is True and void:
            said.append(f"the approval by {entry.actor}, entry {entry.sequence}, is void: {void}.")
    return tuple(said)


def _given(entries: Sequence[Entry], request: Request) -> list[Entry]:
    """Return what was answered for a release's step, whether it counts or not."""
    return [
        e
        for e in entries
        if e.kind == APPROVAL
        and e.body.get("release") == request.release
        and part(e, "binds").get("step") == request.step
    ]


def _heard(entry: Entry, roles: Standings) -> bool:
    """Return whether an entry's actor still may answer, by the key that signed it."""
    standing = roles.get(entry.actor)
    return standing is not None and standing.vouches(entry) and APPROVER in standing.roles


SAID = {
    "release": "it was given for another release",
    "workload": "it was given for another workload",
    "version": "it was given for another version",
    "digest": "the package is another than was approved",
    "market": "it was given for another market",
    "step": "it was given for another step",
    "fingerprints": "there is new evidence since",
    "plan": "the policy was changed since",
    "documents": "a required document was attached or replaced since",
}
"""What it means that a field of a request is not what an approval binds."""


def _void(
    entry: Entry,
    request: Request,
    plan: Plan,
    entries: Sequence[Entry],
    *,
    roles: Standings,
    now: datetime,
) -> str:
    """Return why an approval does not count; empty where it does."""
    if entry.body.get("granted") is not True:
        return "it is a refusal"
    if not _heard(entry, roles):
        return f"{entry.actor} may not approve any more, or signs with another key now"
    if why := _dependent(entry.actor, request, entries, roles):
        return why
    if different := request.differs(part(entry, "binds")):
        return "; ".join(SAID.get(n, f"{n} is unknown") for n in sorted(different))
    if (expires := _expires(entry, plan)) <= now:
        return f"it expired at {expires:%Y-%m-%d %H:%M}"
    return ""


def _expires(entry: Entry, plan: Plan) -> datetime:
    """Return when an approval ends, by its own word or the policy's, whichever is sooner."""
    longest = datetime.fromisoformat(entry.at) + plan.policy.approval_expiry
    try:
        return min(longest, datetime.fromisoformat(entry.body["expires"]))
    except (KeyError, TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
