"""What a release asks of people: who must act, why, and the exact command. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from penstock.rollout.drill import AGAIN
from penstock.rollout.past import PAGED, Past
from penstock.rollout.plan import Phase
from penstock.rollout.state import APPROVAL, State
from penstock.verdict import Outcome

PATIENCE = 0.5
"""Share of the policy's ``evidence_timeout`` for which evidence may be an error before people are
called: the rest is theirs, before everybody goes back to the champion."""

CALLING = frozenset({"evidence", "approval expired", "standby", "drill", "documents", "kill"})
"""Causes for which people are called. The others wait for whoever looks."""

LATER = frozenset({"drill", "documents"})
"""Causes that nobody is called for before the release waits for nothing else."""

Look = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One thing that somebody must do."""

    cause: str
    who: str
    """The role that may."""

    why: str
    command: str

    def to_dict(self) -> dict[str, str]:
        """Return plain values."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """What is known when it is asked."""

    past: Past
    state: State
    live: Look
    now: datetime

    def command(self, verb: str, *more: str) -> str:
        """Return a command that can be typed, about this release."""
        return " ".join(("penstock release", verb, self.state.release, *more))


def acting(past: Past, state: State, live: Look | None, now: datetime) -> list[dict[str, str]]:
    """Return what people must do, the most urgent first; empty while the release goes by itself.

    Args:
        live: The newest look; None where there is none.
    """
    asking = _Asking(past=past, state=state, live=live or {}, now=now)
    return [ask.to_dict() for find in _FINDERS for ask in find(asking)]


def page_due(past: Past, state: State, live: Look, now: datetime) -> dict[str, Any] | None:
    """Return the body of the entry that calls people now, or None.

    People are called once for each cause between two decisions of a release. The controller enters
    it under the kind :data:`penstock.rollout.past.PAGED`; the notifier passes it on.
    """
    done = {e.body["cause"] for e in past.entries if e.kind == PAGED and e.body.get("n") == state.n}
    for ask in acting(past, state, live, now):
        held_up = ask["cause"] not in LATER or live.get("waits_for") == ask["cause"]
        if ask["cause"] in CALLING - done and held_up:
            return {"release": past.release, "n": state.n, **ask}
    return None


def _kill(asking: _Asking) -> Iterator[Ask]:
    if asking.live.get("killed"):
        yield Ask(
            cause="kill",
            who="compliance",
            why=f"the kill switch is thrown: {asking.live['killed']}",
            command="penstock kill clear --reason WHY",
        )


def _evidence(asking: _Asking) -> Iterator[Ask]:
    """Ask for a look at evidence that has been an error for a while."""
    if asking.state.step is None or asking.live.get("outcome") != Outcome.ERROR:
        return
    newest = asking.live.get("evidence_at")
    since = asking.state.entered_at
    if newest is not None:
        since = max(since, datetime.fromisoformat(newest))
    timeout = timedelta(seconds=asking.past.plan["evidence_timeout"])
    if asking.now - since >= PATIENCE * timeout:
        reason = asking.live.get("conflict") or asking.live.get("reason") or "nothing is measured"
        yield Ask(
            cause="evidence",
            who="operator",
            why=f"{reason}; the release ends at {since + timeout:%H:%M:%S}",
            command=f"penstock logs {asking.past.opened.body['challenger']['slot']}",
        )


def _standby(asking: _Asking) -> Iterator[Ask]:
    if asking.live.get("standby_ready") is False and asking.past.opened.body["champion"]:
        slot = asking.past.opened.body["champion"]["slot"]
        yield Ask(
            cause="standby",
            who="operator",
            why=f"slot {slot} could not take everybody back; the release goes no further",
            command=f"penstock logs {slot}",
        )


def _drill(asking: _Asking) -> Iterator[Ask]:
    if asking.live.get("drilled"):
        why, _, command = str(asking.live["drilled"]).partition(f"; {AGAIN}")
        own = f"penstock release drill {asking.state.workload}"
        yield Ask(cause="drill", who="operator", why=why, command=command or own)


def _documents(asking: _Asking) -> Iterator[Ask]:
    for lacking in asking.live.get("documents") or ():
        name, _, _ = lacking.partition(": ")
        yield Ask(
            cause="documents",
            who="owner",
            why=lacking,
            command=asking.command("attach", f"{name} FILE"),
        )


def _approval(asking: _Asking) -> Iterator[Ask]:
    if asking.state.awaited is None:
        return
    step = asking.past.step_name(asking.state.awaited)
    ended = _expired(asking)
    yield Ask(
        cause="approval expired" if ended else "approval",
        who="approver",
        why=f"{step} waits for an approval" + (f"; that of {ended} has expired" if ended else ""),
        command=asking.command("approve", "--reason WHY"),
    )


def _expired(asking: _Asking) -> str:
    """Return who gave an approval that has expired, where no other one holds."""
    asked = asking.state.asked_at or asking.state.entered_at
    given = [
        e
        for e in asking.past.entries
        if e.kind == APPROVAL and e.body["granted"] and datetime.fromisoformat(e.at) >= asked
    ]
    over = [e for e in given if datetime.fromisoformat(e.body["expires"]) <= asking.now]
    return over[-1].actor if over and len(over) == len(given) else ""


def _paused(asking: _Asking) -> Iterator[Ask]:
    if asking.state.phase is Phase.PAUSED:
        yield Ask(
            cause="paused",
            who="operator",
            why=f"the release is paused: {asking.state.reason}",
            command=asking.command("resume", "--reason WHY"),
        )


_FINDERS: tuple[Callable[[_Asking], Iterator[Ask]], ...] = (
    _kill, _evidence, _standby, _drill, _documents, _approval, _paused,
)  # fmt: skip
