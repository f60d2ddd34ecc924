"""The journal of one release: its part of the ledger, read and continued by one controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock.ledger import Actor, Entry, Ledger, Stage
from penstock.rollout.folding import fold
from penstock.rollout.ports import Clock
from penstock.rollout.state import INTENT, Pending, State

Told = Mapping[str, Any]


def unheard(_told: Told) -> None:
    """Take what nobody listens to."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Reads and appends; every append names the end of the chain that it was decided on."""

    release: str
    ledger: Ledger
    clock: Clock
    actor: Actor
    tell: Callable[[Told], None] = unheard
    """Takes every entry that was appended, as an event."""

    @property
    def workload(self) -> str:
        """The workload whose entries are read."""
        return self.release.split("/")[0]

    @property
    def version(self) -> int:
        """The version that is released."""
        return int(self.release.split("/")[1])

    @property
    def market(self) -> str:
        """Whose users are moved."""
        return self.release.split("/")[2]

    def read(self) -> tuple[int, Sequence[Entry]]:
        """Return the chain's end, read before the entries: what came between is a conflict."""
        head = self.ledger.head().sequence
        return head, self.ledger.entries(self.workload)

    def state(self) -> State:
        """Return where the release stands."""
        return fold(self.ledger.entries(self.workload), self.release)

    def now(self, entries: Sequence[Entry]) -> datetime:
        """Return the time, never before the newest entry."""
        return max(self.clock.now(), datetime.fromisoformat(entries[-1].at))

    def append(self, kind: str, body: Told, now: datetime, *, expect: int | None) -> None:
        """Add an entry.

        Raises:
            Conflict: The chain went on since ``expect``.
        """
        self.ledger.append(
            workload=self.workload,
            version=self.version,
            kind=kind,
            body=body,
            actor=self.actor,
            now=now,
            expect=expect,
        )
        self.say(kind, str(body.get("why", "")), **body)

    def move(self, to: Stage, pending: Pending, now: datetime, *, reason: str, expect: int) -> None:
        """Move the version one step through its lifecycle, for an intent.

        Raises:
            Conflict: The chain went on since ``expect``.
        """
        verdict = pending.body.get("verdict")
        self.ledger.move(
            workload=self.workload,
            version=self.version,
            to=to,
            reason=reason or str(pending.act),
            actor=self.actor,
            now=now,
            evidence={"release": self.release, "n": pending.n, "verdict": verdict},
            expect=expect,
        )

    def say(self, event: str, text: str, **more: Any) -> None:
        """Tell whoever listens; it holds nothing up."""
        named = {"event": event, "release": self.release, "workload": self.workload}
        at = self.clock.now().isoformat()
        self.tell({**more, **named, "market": self.market, "at": at, "text": text})


def is_pending(entries: Sequence[Entry], release: str, n: int) -> bool:
    """Return whether an intent still waits for its effect."""
    pending = fold(entries, release).pending
    return pending is not None and pending.n == n


def decided_at(entries: Sequence[Entry], release: str, n: int) -> datetime:
    """Return when an intent was written down, which is when it was decided.

    Raises:
        LookupError: There is none of that number.
    """
    for entry in reversed(entries):
        body = entry.body
        if entry.kind == INTENT and body.get("release") == release and body.get("n") == n:
            return datetime.fromisoformat(entry.at)
    raise LookupError(f"{release} has no intent {n}.")
