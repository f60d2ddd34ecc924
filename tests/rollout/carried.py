"""A release in a controller's hands: real ledger and lease, a plane in a file, told evidence.

What the challenger's evidence says is a function of where the release stands, and so is what people
do: a run that was cut and taken up again meets the same as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock

from penstock.bundle import write_json
from penstock.ledger import REGISTERED, Ledger, Stage, stage_of
from penstock.ledger.standing import standings
from penstock.release import EVERYWHERE, Measure, Rollout, Trigger
from penstock.rollout import approvals, commands, folding
from penstock.rollout.controller import Controller
from penstock.rollout.judgement import Effect, Judgement, Window
from penstock.rollout.lease import FileLease
from penstock.rollout.observing import Observer
from penstock.rollout.opened import Opened, Placed
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.ports import Stale, TableError
from penstock.rollout.state import IN_FORCE, INTENT, OPENED, Ask, State
from penstock.rollout.table import TrafficTable
from penstock.verdict import Check, Outcome, Verdict
from tests.people import person

START = datetime(2026, 1, 5, tzinfo=UTC)
TICK_S = 6.0
POLICY = Rollout(
    canary_percents=(10, 50, 100),
    soak=timedelta(seconds=5),
    deadline=timedelta(seconds=300),
    evidence_timeout=timedelta(seconds=60),
    primary=Measure(name="right answers", source="right", margin=0.1, deviation=0.4),
)
FIRST = TrafficTable(sequence=7, salt="s", champion="a", challenger=None, buckets=0, mirror=None)
RELEASE = "digits/2/all/1"
CHAMPION = Placed(version=1, digest="sha256:1", slot="a")

Says = Callable[[State], Outcome]
Touch = Callable[[str], None]


def untouched(_what: str) -> None:
    """Let everything happen."""


@dataclass
class FilePlane:
    """A plane whose tables are a file, written by rename as the real one's are."""

    path: Path
    touch: Touch = untouched
    silent: bool = False
    """Whether it does not show what it uses."""

    def __post_init__(self) -> None:
        if not self.path.exists():
            self._keep([FIRST])

    def tables(self) -> list[TrafficTable]:
        """Return every table that was ever in the file."""
        return [TrafficTable.from_dict(t) for t in json.loads(self.path.read_text())]

    def _keep(self, tables: Sequence[TrafficTable]) -> None:
        write_json(self.path, [t.to_dict() for t in tables])

    def written(self, market: str) -> TrafficTable:
        """Return the newest table."""
        return replace(self.tables()[-1], market=market)

    observe = written

    def apply(self, table: TrafficTable) -> None:
        """Take a table; the same one again changes nothing, an older one is refused."""
        with FileLock(self.path.with_suffix(".lock")):
            held = self.tables()
            if table != held[-1]:
                if table.sequence <= held[-1].sequence:
                    raise Stale(f"table {table.sequence} after {held[-1].sequence}")
                self._keep([*held, table])
        self.touch("apply")

    def wait_applied(self, table: TrafficTable, *, timeout_s: float) -> None:
        """See the table in force, unless the plane is silent."""
        if self.silent:
            raise TableError("it does not say what it uses")
        self.touch("wait_applied")

    def verify(self, table: TrafficTable) -> str:
        """Find nothing wrong."""
        return ""

    def killed(self) -> str:
        """Say whether the switch is thrown: a file beside the tables."""
        return "thrown by a test" if self.path.with_suffix(".kill").exists() else ""

    def ready(self, slot: str) -> bool:
        """Say that every slot is ready."""
        return True


class Touched(Ledger):
    """A real ledger whose every entry is an effect."""

    touch: Touch = staticmethod(untouched)

    def append(self, **named: Any) -> Any:
        """Append, and say so."""
        entry = super().append(**named)
        self.touch(named["kind"])
        return entry


@dataclass
class Now:
    """A clock that goes as far as it is slept."""

    at: datetime = START

    def now(self) -> datetime:
        """Return the time."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self.at += timedelta(seconds=seconds)


@dataclass
class Noted:
    """A notifier that keeps what it was told."""

    events: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])

    def tell(self, event: Mapping[str, Any]) -> None:
        """Keep one event."""
        self.events.append(event)


@dataclass(frozen=True)
class Told:
    """Evidence that was told."""

    newest_at: float | None
    outcome: Outcome

    def summary(self) -> Mapping[str, Any]:
        """Return no counts."""
        return {}


@dataclass
class Reader:
    """Evidence as a function of where the release stands."""

    ledger: Ledger
    says: Says

    def poll(self) -> None:
        """Have nothing to read."""

    def evidence(self, window: Window, *, now: float, alive: bool) -> Told:
        """Return what the release's state says."""
        name = f"digits/{window.challenger}/{window.market}/1"
        state = folding.fold(self.ledger.entries("digits"), name)
        return Told(max(now, window.since), self.says(state))


def judge(_plan: object, evidence: Told, _step: object, *, now: datetime) -> Judgement:
    """Return the judgement that was told."""
    check = Check(name="errors", outcome=evidence.outcome, reason=f"it is {evidence.outcome}")
    return Judgement(
        verdict=Verdict((check,)), effect=Effect.PARITY, reason=f"errors: it is {evidence.outcome}"
    )


def well(_state: State) -> Outcome:
    """Say that all is well."""
    return Outcome.PASS


def registered(ledger: Ledger, version: int, *stages: Stage) -> None:
    """Register a version and move it through stages."""
    named: dict[str, Any] = {"workload": "digits", "version": version, "actor": person()}
    body = {"package": f"p{version}", "digest": f"sha256:{version}", "fingerprint": f"f{version}"}
    ledger.append(**named, kind=REGISTERED, body=body, now=START)
    for stage in stages:
        ledger.move(**named, to=stage, reason="t", now=START)


@dataclass(kw_only=True)
class Release:
    """Version 2 of digits on its way over version 1, for any number of controllers."""

    folder: Path
    policy: Rollout = POLICY
    trigger: Trigger = Trigger.MANUAL
    says: Says = well
    people: Callable[[Release, State, Ledger], None] = lambda _release, _state, _ledger: None
    touch: Touch = untouched
    lease: Callable[[], Any] | None = None
    champion: Placed | None = CHAMPION
    """None of a first version."""

    def open(self) -> None:
        """Enter both versions and open the release."""
        ledger = self.ledger()
        if self.champion is not None:
            registered(ledger, 1, Stage.STAGING, Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
        registered(ledger, 2, Stage.STAGING)
        for name, role in (("ann", "approver"), ("olaf", "operator")):
            key = person(name).public_key
            ledger.enrol(name=name, public_key=key, roles=[role], actor=person(), now=START)
        body = self.opened.body(self.opened.plan(self.policy))
        ledger.append(
            workload="digits", version=2, kind=OPENED, body=body, actor=person(), now=START
        )
        ledger.close()

    @property
    def opened(self) -> Opened:
        """What it is opened with."""
        return Opened(
            release=RELEASE,
            workload="digits",
            market=EVERYWHERE,
            trigger=self.trigger,
            challenger=Placed(version=2, digest="sha256:2", slot="b"),
            champion=self.champion,
        )

    def answered(self, ledger: Ledger, state: State) -> bool:
        """Return whether what waits has an answer that counts."""
        plan, entries = self.opened.plan(self.policy), ledger.entries("digits")
        roles, now = standings(ledger), _after(ledger)
        return approvals.binding(entries, state, plan, roles=roles, now=now) is not None

    def ledger(self) -> Touched:
        """Open the ledger anew, as another process does."""
        held = Touched(f"sqlite:///{self.folder / 'ledger.db'}")
        held.touch = self.touch
        return held

    def plane(self) -> FilePlane:
        """Return the plane."""
        return FilePlane(self.folder / "tables.json", self.touch)

    def controller(self, ledger: Touched, *, clock: Now | None = None) -> Controller:
        """Return a controller that knows nothing but where ledger and plane are."""
        plane, newest = self.plane(), datetime.fromisoformat(ledger.entries()[-1].at)
        reader: Any = Reader(ledger, self.says)
        return Controller(
            release=RELEASE,
            policy=self.policy,
            plane=plane,
            ledger=ledger,
            lease=self.lease() if self.lease else FileLease(self.folder / "serving"),
            clock=clock or Now(newest),
            notifier=Noted(),
            observer=Observer(plane=plane, reader=reader, ledger=ledger, judge=judge),
            actor=person(),
        )

    def carry(self, *, most: int = 60) -> State:
        """Carry the release to its end, as one process."""
        ledger = self.ledger()
        try:
            controller = self.controller(ledger)
            for _ in range(most):
                state = controller.tick()
                if state.phase in ENDED:
                    return state
                self.people(self, state, ledger)
                controller.clock.sleep(TICK_S)
        finally:
            ledger.close()
        raise AssertionError(f"it never ended: {state}")

    def state(self) -> State:
        """Return where it stands."""
        ledger = Ledger(f"sqlite:///{self.folder / 'ledger.db'}")
        try:
            return folding.fold(ledger.entries("digits"), RELEASE)
        finally:
            ledger.close()

    def story(self) -> Story:
        """Return what happened, without what may differ between two runs of the same."""
        ledger = Ledger(f"sqlite:///{self.folder / 'ledger.db'}")
        entries = ledger.entries("digits")
        ledger.close()
        mine = [e for e in entries if e.body.get("release") == RELEASE]
        intents = {e.body["n"]: e.body for e in mine if e.kind == INTENT}
        outcomes = [e.body["n"] for e in mine if e.kind == IN_FORCE]
        assert len(outcomes) == len(set(outcomes)), "two effects of one intent"
        table = self.plane().tables()[-1]
        state = folding.fold(entries, RELEASE)
        return Story(
            acts=tuple((intents[n]["action"], intents[n]["step"]) for n in outcomes),
            phase=state.phase,
            strikes=state.strikes,
            stage=stage_of(entries, 2),
            table=replace(table, sequence=0, salt=""),
            moves=tuple(e.target for e in entries if e.version == 2 and e.target),
        )


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a release came to."""

    acts: tuple[tuple[str, int | None], ...]
    phase: Phase
    strikes: int
    stage: Stage
    table: TrafficTable
    moves: tuple[str | None, ...]


def asks(*wishes: tuple[int, Ask]) -> Callable[[Release, State, Ledger], None]:
    """Return a person who asks for something at a step, once."""

    def act(_release: Release, state: State, ledger: Ledger) -> None:
        given = [e.body["command"] for e in ledger.entries("digits") if e.kind == "command"]
        for step, ask in wishes:
            if state.step != step or str(ask) in given or commands.out_of_place(state, ask):
                continue
            actor, now = person("olaf"), _after(ledger)
            commands.give(ledger, state, ask, reason="t", actor=actor, now=now)
            return

    return act


def answers(*, granted: bool) -> Callable[[Release, State, Ledger], None]:
    """Return an approver who answers whatever waits."""

    def act(release: Release, state: State, ledger: Ledger) -> None:
        if state.awaited is None or state.pending is not None or release.answered(ledger, state):
            return
        give, now = approvals.grant if granted else approvals.refuse, _after(ledger)
        plan = release.opened.plan(release.policy)
        give(ledger, state, plan, reason="t", actor=person("ann"), now=now)

    return act


def _after(ledger: Ledger) -> datetime:
    return datetime.fromisoformat(ledger.entries()[-1].at)
