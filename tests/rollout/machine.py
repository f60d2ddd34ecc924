"""A world for releases: what evidence says, what people do, what each clock shows.

Time is that of a clock that nobody can set; each controller has its own, which may be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.ledger import Entry, Stage, stage_of
from penstock.release import Rollout, Trigger
from penstock.rollout.folding import fold
from penstock.rollout.judgement import Approved, Effect, Judgement, Seen
from penstock.rollout.opened import Opened, Placed
from penstock.rollout.plan import ENDED, Plan
from penstock.rollout.state import APPROVAL, COMMAND, INTENT, OPENED, Act, Ask, Command, State
from penstock.rollout.table import BUCKETS, TrafficTable
from penstock.rollout.tables import Slots
from penstock.verdict import Check, Outcome, Verdict
from tests.rollout.machine_parts import MemoryLedger, MemoryPlane

START = datetime(2026, 3, 1, tzinfo=UTC)
WORKLOAD, VERSION = "digits", 2
FOREIGN = "table of another"
"""Kind of the entries of a watchdog or a drill: the table that it put in force."""

HASTE = (Ask.ROLL_BACK, Ask.ABORT)


@dataclass(frozen=True)
class Told:
    """What the log says of one step of one release."""

    judgement: Judgement
    at: datetime | None
    step_began: datetime
    lazy: bool = False
    """The reader shows it of the next step as well, whose it is not."""

    conflict: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision and all that it was made of."""

    state: State
    seen: Seen
    now: datetime
    act: Act | None
    plan: Plan


@dataclass
class World:
    """Everything outside of the controllers."""

    policy: Rollout
    slots: Slots
    trigger: Trigger = Trigger.MANUAL
    ledger: Any = field(default_factory=MemoryLedger)
    actor: Any = "controller"
    steady: bool = False
    """Whether people's entries are never dated before the newest one, as the real ledger asks."""

    elapsed: timedelta = timedelta(0)
    offsets: dict[str, timedelta] = field(default_factory=dict[str, timedelta])
    """By controller: how far its clock is ahead."""

    told: dict[str, Told] = field(default_factory=dict[str, Told])
    ready: bool = True
    refused: str = ""
    standby_ready: bool = True
    drilled: str = ""
    documents: tuple[str, ...] = ()
    decisions: list[Decision] = field(default_factory=list[Decision])
    behind: dict[int, Decision] = field(default_factory=dict[int, Decision])
    """By the sequence of an intent's entry: the decision that it was written for."""

    foreign: list[TrafficTable] = field(default_factory=list[TrafficTable])
    states: dict[str, tuple[int, State]] = field(default_factory=dict[str, tuple[int, State]])
    kept: dict[str, Any] = field(default_factory=dict[str, Any])
    """By market: what the laws have read already."""

    def __post_init__(self) -> None:
        champion = self.slots.champion or self.slots.challenger
        self.plans = self.planned()
        first = TrafficTable(
            sequence=3, salt="", champion=champion, challenger=None, buckets=0, mirror=None
        )
        self.plane = MemoryPlane({m: [replace(first, market=m)] for m in self.plans})
        self.enter("moved", {"to": "STAGING"}, stage=Stage.STAGING)
        for market, plan in self.plans.items():
            self.enter(OPENED, self.opened(market).body(plan))

    def opened(self, market: str) -> Opened:
        """Return what the release of a market is opened with."""
        champion = self.slots.champion
        return Opened(
            release=self.release(market),
            workload=WORKLOAD,
            market=market,
            trigger=self.trigger,
            challenger=Placed(version=VERSION, digest="", slot=self.slots.challenger),
            champion=None if champion is None else Placed(version=1, digest="", slot=champion),
        )

    def planned(self) -> dict[str, Plan]:
        """Return the plan of each market by the policy as it is now."""
        plans = {m: self.opened(m).plan(self.policy) for m in self.policy.market_names()}
        self.declared = {m: plan.to_dict() for m, plan in plans.items()}
        return plans

    def dated(self) -> datetime:
        """Return the date of a person's next entry."""
        entries, now = self.ledger.entries() if self.steady else (), self.clock("")
        return max([now, *(datetime.fromisoformat(e.at) for e in entries[-1:])])

    def enter(self, kind: str, body: Mapping[str, Any], *, stage: Stage | None = None) -> None:
        """Append an entry by somebody whose clock is right."""
        if stage is not None:
            self.move(stage, "by hand")
            return
        self.ledger.append(
            workload=WORKLOAD,
            version=VERSION,
            kind=kind,
            body=body,
            actor=self.actor,
            now=self.dated(),
        )

    def move(self, to: Stage, reason: str) -> None:
        """Move the version, unless it is there or further already."""
        held = self.stage()
        if list(Stage).index(held) >= list(Stage).index(to):
            return
        self.ledger.move(
            workload=WORKLOAD,
            version=VERSION,
            to=to,
            reason=reason,
            actor=self.actor,
            now=self.dated(),
        )

    def stage(self) -> Stage:
        """Return where the version stands."""
        return stage_of(self.ledger.entries(WORKLOAD), VERSION)

    def release(self, market: str) -> str:
        """Return the name of the release of a market."""
        return f"{WORKLOAD}/{VERSION}/{market}/1"

    def clock(self, who: str) -> datetime:
        """Return the time on somebody's clock."""
        return START + self.elapsed + self.offsets.get(who, timedelta(0))

    def state(self, market: str) -> State:
        """Return where a market's release stands; folded anew only where the ledger has grown."""
        end = self.ledger.head().sequence
        known = self.states.get(market)
        if known is None or known[0] != end:
            known = end, fold(self.ledger.entries(), self.release(market))
            self.states[market] = known
        return known[1]

    def tell(self, market: str, judgement: Judgement, **more: Any) -> None:
        """Let the log say this of the step that is in force now."""
        self.told[market] = Told(
            judgement=judgement,
            at=more.pop("at", max(self.clock(""), self.state(market).entered_at)),
            step_began=self.state(market).entered_at,
            **more,
        )

    def look(self, market: str, state: State, who: str) -> Seen:
        """Return what a controller sees for a state."""
        told = self.told.get(market)
        if told is not None and told.step_began != state.entered_at and not told.lazy:
            told = None
        judgement = None if state.step is None else judged(Outcome.INCONCLUSIVE)
        return Seen(
            ready=self.ready,
            refused=self.refused,
            judgement=judgement if told is None or state.step is None else told.judgement,
            evidence_at=None if told is None else told.at,
            standby_ready=self.standby_ready,
            drilled=self.drilled,
            documents=self.documents,
            approval=self.approval(state, self.clock(who)),
            killed=self.plane.killed(),
            intended=state.table is None or self.plane.written(market) == state.table,
            in_force_buckets=self.challenged(market),
            conflict="" if told is None else told.conflict,
            lifecycle="archived by hand" if self.stage() is Stage.ARCHIVED else "",
            command=_first(state.commands),
        )

    def challenged(self, market: str) -> int:
        """Return how many buckets the table in force gives the challenger."""
        table = self.plane.written(market)
        return sum(table.slot_for(b) == self.slots.challenger for b in range(BUCKETS))

    def approval(self, state: State, now: datetime) -> Approved | None:
        """Return the newest answer that binds to what the state waits for, and holds."""
        for entry in reversed(self.ledger.entries(WORKLOAD)):
            body = entry.body
            bound = [state.release, state.awaited, state.fingerprint]
            if entry.kind == APPROVAL and [body["release"], *body["binds"]] == bound:
                if datetime.fromisoformat(body["expires"]) < now:
                    continue
                return Approved(
                    sequence=entry.sequence,
                    granted=body["granted"],
                    actor="approver",
                    reason=body["reason"],
                )
        return None

    def ask(self, market: str, ask: Ask) -> None:
        """Let an operator ask for something."""
        body = {"release": self.release(market), "command": str(ask), "reason": "to be sure"}
        self.enter(COMMAND, body)

    def answer(self, market: str, *, granted: bool, days: int = 14) -> None:
        """Let an approver answer what the release waits for."""
        state = self.state(market)
        body = {
            "release": state.release,
            "granted": granted,
            "binds": [state.awaited, state.fingerprint],
            "expires": (self.clock("") + timedelta(days=days)).isoformat(),
            "reason": "looked at it",
        }
        self.enter(APPROVAL, body)

    def displace(self, market: str) -> None:
        """Let a watchdog give every user to the champion; it says so in the ledger."""
        last = self.plane.written(market)
        table = replace(
            last,
            sequence=last.sequence + 1,
            challenger=None,
            buckets=0,
            mirror=None,
            trickle=None,
        )
        self.foreign.append(table)
        self.plane.apply(table)
        self.enter(FOREIGN, {"table": table.to_dict()})

    def elsewhere(self, market: str) -> bool:
        """Return whether the version is in another market, or on its way there."""
        others = [self.state(m) for m in self.plans if m != market]
        return any(s.phase not in ENDED or s.phase == "DONE" for s in others)

    def ledgered(self, market: str) -> list[Entry]:
        """Return the intents of a market's release."""
        name = self.release(market)
        return [
            e for e in self.ledger.entries() if e.kind == INTENT and e.body.get("release") == name
        ]


def judged(
    outcome: Outcome, *, effect: Effect = Effect.UNCLEAR, critical: str = "", no_value: bool = False
) -> Judgement:
    """Return a judgement of two checks, the worse of which ended so."""
    checks = (
        Check(name="errors", outcome=outcome, reason=f"it is {outcome}"),
        Check(name="clicks", outcome=Outcome.PASS, reason="no worse"),
    )
    return Judgement(
        verdict=Verdict(checks),
        effect=effect,
        reason=f"errors: it is {outcome}",
        critical=critical,
        no_value=no_value,
    )


def _first(commands: tuple[Command, ...]) -> Command | None:
    """Return what is heeded next: what moves users back goes before its turn."""
    hasty = [c for c in commands if c.ask in HASTE]
    return next(iter((*hasty, *commands)), None)
