"""What a release was opened with: its versions, their slots, its market, its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penstock.ledger import Entry
from penstock.release import Rollout, Trigger
from penstock.rollout.independence import opening
from penstock.rollout.plan import Plan, plan_of
from penstock.rollout.tables import Slots


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A version, the package it was registered with, and the slot it runs in."""

    version: int
    digest: str
    slot: str


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The facts of a release that never change."""

    release: str
    workload: str
    market: str
    trigger: Trigger
    challenger: Placed
    champion: Placed | None
    """None of a first version."""

    fault: Mapping[str, str] | None = None
    """Deliberate, to rehearse a rollback: kind, on."""

    queued: int | None = None
    """Entry by which it was put into the queue."""

    @property
    def slots(self) -> Slots:
        """Where its versions run."""
        champion = None if self.champion is None else self.champion.slot
        return Slots(champion=champion, challenger=self.challenger.slot)

    def plan(self, policy: Rollout) -> Plan:
        """Return its plan by a policy, which may not be the one it was opened with."""
        first = self.champion is None
        return plan_of(policy, market=self.market, first=first, trigger=self.trigger)

    def body(self, plan: Plan) -> dict[str, Any]:
        """Return the body of the entry that opens it."""
        return {
            "release": self.release,
            "market": self.market,
            "trigger": str(self.trigger),
            "plan": plan.to_dict(),
            "plan_hash": plan.fingerprint(),
            "challenger": asdict(self.challenger),
            "champion": None if self.champion is None else asdict(self.champion),
            "fault": None if self.fault is None else dict(self.fault),
            "queued": self.queued,
        }


def opened_of(entries: Sequence[Entry], release: str) -> Opened:
    """Return what a release was opened with.

    Raises:
        LookupError: The ledger does not know it.
    """
    entry = opening(entries, release)
    body = entry.body
    champion = body["champion"]
    return Opened(
        release=release,
        workload=entry.workload,
        market=body["market"],
        trigger=Trigger(body["trigger"]),
        challenger=Placed(**body["challenger"]),
        champion=None if champion is None else Placed(**champion),
        fault=body.get("fault"),
        queued=body.get("queued"),
    )
