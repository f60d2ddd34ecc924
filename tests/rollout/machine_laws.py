"""The twelve invariants of a release, as questions to a world; each raises where one is broken.

They read the ledger, the tables that were ever written, and what was seen when it was decided; none
of them asks :func:`penstock.rollout.decide.decide` what it thinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.ledger import MOVED, Entry, Stage
from penstock.rollout.action import Action
from penstock.rollout.decide import decide, reconsider
from penstock.rollout.folding import fold
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.state import IN_FORCE, INTENT, Act, State
from penstock.rollout.table import BUCKETS, RULES, TrafficTable
from penstock.rollout.tables import table_for
from penstock.verdict import Outcome, Verdict
from tests.rollout.machine import Decision, World

FORWARD = (Act.ENTER, Act.FINISH)


@dataclass(frozen=True)
class Took:
    """An intent whose effect was read back."""

    act: Act
    body: Mapping[str, Any]
    decision: Decision
    before: State
    after: State

    @property
    def replans(self) -> bool:
        """Whether it restarts its step, under another plan."""
        return self.body.get("plan") is not None

    @property
    def forward(self) -> bool:
        """Whether it moved users or copies on from a step that was in force.

        A step entered again has the same users: its evidence begins anew.
        """
        if self.step_left is None or self.replans:
            return False
        return self.act is Act.FINISH or (
            self.act is Act.ENTER and self.after.step != self.step_left
        )

    @property
    def step_left(self) -> int | None:
        """Index of the step that it left."""
        return self.before.step


@dataclass
class Known:
    """What was read of a ledger already: it only grows."""

    read: int = 0
    written: dict[int, Entry] = field(default_factory=dict[int, Entry])
    took: list[Took] = field(default_factory=list[Took])


def took(world: World, market: str) -> list[Took]:
    """Return the intents of a market's release that took effect, in order."""
    name, entries = world.release(market), world.ledger.entries()
    known = world.kept.setdefault(market, Known())
    for at in range(known.read, len(entries)):
        entry = entries[at]
        if entry.body.get("release") != name:
            continue
        if entry.kind == INTENT:
            known.written[entry.body["n"]] = entry
        elif entry.kind == IN_FORCE:
            before, after = fold(entries[:at], name), fold(entries[: at + 1], name)
            if before.pending is not None and after.pending is None:
                intent = known.written[entry.body["n"]]
                act, decision = Act(intent.body["action"]), world.behind[intent.sequence]
                known.took.append(Took(act, intent.body, decision, before, after))
    known.read = len(entries)
    return known.took


def production_was_earned(world: World, market: str) -> None:
    """1. No version reaches PRODUCTION without passes in shadow and canary, in order."""
    plan = world.plans[market]
    moves = [e.target for e in world.ledger.entries() if e.kind == MOVED]
    order = [s for s in Stage if s in moves]
    assert moves == [str(s) for s in order], "a stage was skipped or taken twice"
    done = [t for t in took(world, market) if t.act is Act.FINISH]
    if not done or plan.first:
        return
    passed = [t for t in took(world, market) if t.act is Act.ENTER and t.forward]
    left = [t.step_left for t in passed]
    assert set(left) | {done[0].step_left} == set(range(len(done[0].decision.plan.steps)))
    for t in (*passed, done[0]):
        assert Verdict.from_dict(t.body["verdict"]).outcome is Outcome.PASS


def one_version_per_user(world: World, market: str) -> None:
    """2. One version per user within a step; forward only more of them; after a rollback none."""
    challenger, first = world.slots.challenger, world.plans[market].first
    salts, held = set[str](), frozenset[int]()
    for t in took(world, market):
        table = t.after.table
        if table is None or t.body["table"] is None:
            assert t.after.table == t.before.table
            continue
        on = frozenset(b for b in range(BUCKETS) if table.slot_for(b) == challenger)
        salts.add(table.salt)
        if t.act in FORWARD:
            assert held <= on or t.replans
        elif t.act in (Act.ROLL_BACK, Act.KILL):
            assert first or not on
        held = on
    assert len(salts) <= 1
    state = world.state(market)
    if state.phase in (Phase.ROLLED_BACK, Phase.KILLED) and not first:
        assert challenger not in world.plane.answers(market)
        assert world.plane.written(market).mirror is None


def shadow_answers_nobody(world: World, market: str) -> None:
    """3. A copy's answer never reaches a user, and nothing but the table is asked for users."""
    for table in world.plane.history[market]:
        assert table.mirror not in {table.slot_for(b) for b in range(BUCKETS)}
    state = world.state(market)
    if state.phase is Phase.SHADOW and state.pending is None and state.table is not None:
        assert state.table.buckets == 0
        assert state.table.mirror == world.slots.challenger


def forward_needs_a_pass(world: World, market: str) -> None:
    """4. Forward only by a pass of every check, made in the step, after the whole soak."""
    for t in took(world, market):
        if not t.forward:
            continue
        seen, step = t.decision.seen, t.decision.plan.steps[t.step_left]
        assert seen.judgement is not None
        assert {c.outcome for c in seen.judgement.verdict.checks} == {Outcome.PASS}
        assert seen.evidence_at is not None
        assert seen.evidence_at >= t.before.entered_at
        assert t.decision.now - t.before.entered_at >= step.soak
        cooled = (t.before.within or t.before.phase) is Phase.STEPPED_BACK
        if cooled and not t.body["answers"]:
            assert t.decision.now - t.before.entered_at >= t.decision.plan.cool_down


def bad_evidence_never_moves_forward(world: World, market: str) -> None:
    """5. Missing, stale or contradictory evidence never moves traffic forward."""
    for t in took(world, market):
        if not t.forward:
            continue
        seen, now = t.decision.seen, t.decision.now
        timeout = t.decision.plan.evidence_timeout
        assert not seen.conflict
        assert seen.evidence_at is not None
        assert now - timeout <= seen.evidence_at <= now + timeout


def restored_only_when_all_is_well(world: World, market: str) -> None:
    """5. Users whom another table took home come back as they first came: with a way back."""
    for t in took(world, market):
        seen, table = t.decision.seen, t.after.table
        if t.act is not Act.RESTORE or table is None or seen.in_force_buckets is None:
            continue
        if table.buckets > seen.in_force_buckets:
            assert seen.ready
            assert seen.standby_ready
            assert not seen.conflict
            assert t.decision.state.phase is not Phase.PAUSED


def two_strikes_end_it(world: World, market: str) -> None:
    """6. Two strikes never end in DONE; a critical failure never waits."""
    strikes = sum(bool(t.body["strike"]) for t in took(world, market))
    state = world.state(market)
    assert state.strikes == strikes <= 2
    if strikes == 2:
        assert state.phase is Phase.ROLLED_BACK
    if strikes and state.phase is Phase.DONE:
        assert strikes == 1
    for d in world.decisions:
        judged = d.seen.judgement
        if d.state.phase in ENDED or d.state.step is None or judged is None:
            continue
        back = (d.state.within or d.state.phase) is Phase.STEPPED_BACK
        if back and d.plan.steps[d.state.step].shadow and not judged.critical:
            # What fails in shadow while the first strike cools down is put aside.
            continue
        if judged.critical or (judged.outcome is Outcome.FAIL and d.state.strikes):
            assert d.act in (Act.ROLL_BACK, Act.KILL)
        elif judged.outcome is Outcome.FAIL:
            assert d.act in (Act.ROLL_BACK, Act.KILL, Act.STEP_BACK)


def a_way_back_at_all_times(world: World, market: str) -> None:
    """7. From every state there is a rollback that needs no more than its table."""
    state, plan = world.state(market), world.plans[market]
    if state.phase in ENDED or plan.first:
        return
    written = world.plane.written(market)
    back = table_for(
        Action(act=Act.ROLL_BACK, why="harm"),
        plan,
        state,
        world.slots,
        sequence=written.sequence + 1,
        salt=state.release,
    )
    assert back is not None
    assert {back.slot_for(b) for b in range(BUCKETS)} == {world.slots.champion}
    # A watchdog knows the table alone, and it names the champion.
    assert written.champion == world.slots.champion


def the_killed_version_answers_nobody(world: World, market: str) -> None:
    """8. After a kill nobody is on the version, whatever a controller writes behind the switch."""
    state = world.state(market)
    if world.plans[market].first or state.phase is Phase.DONE:
        return
    finishing = state.pending is not None and state.pending.act is Act.FINISH
    if world.plane.thrown or (state.phase is Phase.KILLED and not finishing):
        assert world.slots.challenger not in world.plane.answers(market)


def as_without_a_crash(world: World, market: str) -> None:
    """9. What took effect is what one controller that never died would have done, once each."""
    held: State | None = None
    for t in took(world, market):
        if held is not None:
            assert replace(t.before, pending=None, n=0, last=0, commands=()) == replace(
                held, n=0, last=0, commands=()
            )
        d = t.decision
        if not t.replans and not (t.act is Act.ROLL_BACK and "plan was changed" in t.body["why"]):
            asked = decide if d.state.pending is None else reconsider
            action = asked(d.plan, d.state, d.seen, d.now)
            assert (action.act, action.step) == (t.act, t.body["step"])
        held = t.after
    tables = world.plane.history[market]
    numbers = [t.sequence for t in tables]
    assert numbers == sorted(set(numbers)), "a table was put in force twice or out of order"


def every_table_is_explained(world: World, market: str) -> None:
    """10. An entry explains each table that was ever in force; the fold knows the one that is."""
    intended = [TrafficTable.from_dict(e.body["table"]) for e in _tabled(world, market)]
    first, *later = world.plane.history[market]
    assert first.sequence == 3
    for table in later:
        assert table in intended or table in world.foreign
    state, written = world.state(market), world.plane.written(market)
    if state.pending is None and state.table is not None and written not in world.foreign:
        assert written == state.table


def somebody_is_routable(world: World, market: str) -> None:
    """11. The champion or the declared fallback answers at all times."""
    champion = world.slots.champion or world.slots.challenger
    up = {champion, RULES} | ({world.slots.challenger} if world.ready else set())
    done = world.state(market).phase is Phase.DONE
    # A first version that is given up leaves its users to the rules, where they are declared.
    may = {champion} | ({RULES} if world.slots.champion is None else set())
    for table in world.plane.history[market]:
        assert (table.fallback or table.champion) in {*up, world.slots.challenger}
        assert done or table.champion in may
    assert all(world.plane.answers(market))


def _tabled(world: World, market: str) -> list[Entry]:
    return [e for e in world.ledgered(market) if e.body["table"] is not None]


LAWS = {
    1: production_was_earned,
    2: one_version_per_user,
    3: shadow_answers_nobody,
    4: forward_needs_a_pass,
    5: bad_evidence_never_moves_forward,
    5.5: restored_only_when_all_is_well,
    6: two_strikes_end_it,
    7: a_way_back_at_all_times,
    8: the_killed_version_answers_nobody,
    9: as_without_a_crash,
    10: every_table_is_explained,
    11: somebody_is_routable,
}
"""By their numbers in the specification; 12 compares two markets, where one has acted."""
