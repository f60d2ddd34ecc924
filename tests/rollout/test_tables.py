"""The table of each action: who answers, who gets copies, who stands by, who answers a kill."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.release import EVERYWHERE, Fallback, Measure, Rollout
from penstock.rollout.action import MOVES_TRAFFIC, Action
from penstock.rollout.plan import Phase, plan_of
from penstock.rollout.state import Act, State
from penstock.rollout.table import BUCKETS, TrafficTable
from penstock.rollout.tables import Slots, table_for

POLICY = Rollout(
    canary_percents=(10, 100),
    soak=timedelta(days=1),
    deadline=timedelta(days=9),
    primary=Measure(name="clicks", source="right", margin=0.01, deviation=0.5),
)
PLAN, FIRST = plan_of(POLICY), plan_of(POLICY, first=True)
RULED = plan_of(replace(POLICY, kill_to=Fallback.RULES))
SLOTS = Slots(champion="a", challenger="b")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
HELD = TrafficTable(sequence=4, salt="s", champion="a", challenger="b", buckets=6, mirror=None)
STATE = State(
    release="digits/2/all/1",
    workload="digits",
    market=EVERYWHERE,
    phase=Phase.CANARY,
    step=1,
    opened_at=NOW,
    entered_at=NOW,
    table=HELD,
)

# act, step, slots: champion, challenger, buckets, mirror, trickle, fallback
ROWS = (
    (Act.ENTER, 0, SLOTS, ("a", None, 0, "b", None, "a")),
    (Act.ENTER, 1, SLOTS, ("a", "b", 6, None, None, "a")),
    (Act.ENTER, 2, SLOTS, ("a", "b", 64, None, "a", "a")),
    (Act.ENTER, 3, SLOTS, ("a", "b", 64, None, "a", "a")),
    (Act.STEP_BACK, 0, SLOTS, ("a", None, 0, "b", None, "a")),
    (Act.RESTORE, 1, SLOTS, ("a", "b", 6, None, None, None)),
    (Act.FINISH, None, SLOTS, ("b", None, 0, None, "a", "a")),
    (Act.ROLL_BACK, None, SLOTS, ("a", None, 0, None, None, None)),
    (Act.KILL, None, SLOTS, ("a", None, 0, None, None, None)),
    (Act.FAIL, None, SLOTS, ("a", None, 0, None, None, None)),
)


@pytest.mark.parametrize(("act", "step", "slots", "says"), ROWS)
def test_each_action_has_its_table(
    act: Act, step: int | None, slots: Slots, says: tuple[object, ...]
):
    """This action puts in force who answers, who gets copies and who stands by."""
    action = Action(act=act, step=step, why="so")

    table = table_for(action, PLAN, STATE, slots, sequence=9, salt="s")

    assert table is not None
    fields = ("champion", "challenger", "buckets", "mirror", "trickle", "fallback")
    assert tuple(getattr(table, name) for name in fields) == says
    assert (table.sequence, table.market) == (9, EVERYWHERE)


@pytest.mark.parametrize("act", [None, *sorted(set(Act) - MOVES_TRAFFIC)])
def test_what_moves_no_traffic_has_no_table(act: Act | None):
    """A hold, a pause or a question leaves the table as it is."""
    assert table_for(Action(act=act, why="so"), PLAN, STATE, SLOTS, sequence=9, salt="s") is None


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_the_rules_answer_a_kill_where_the_policy_says_so(step: int):
    """With a fallback of rules every table says rules, whoever else could answer."""
    for act in sorted(MOVES_TRAFFIC - {Act.RESTORE}):
        action = Action(act=act, step=step, why="so")
        table = table_for(action, RULED, STATE, SLOTS, sequence=9, salt="s")
        assert table is not None
        assert table.fallback == "rules"


def test_a_first_version_has_nobody_to_go_back_to():
    """It answers everybody at its one step and at its end; given up, traffic stays as it is."""
    alone = Slots(champion=None, challenger="a")

    def made(act: Act, step: int | None = None) -> TrafficTable | None:
        action = Action(act=act, step=step, why="so")
        return table_for(action, FIRST, STATE, alone, sequence=9, salt="s")

    for table in (made(Act.ENTER, 0), made(Act.FINISH)):
        assert table is not None
        assert (table.champion, table.challenger, table.trickle) == ("a", None, None)
    assert [made(act) for act in (Act.ROLL_BACK, Act.KILL, Act.FAIL)] == [None, None, None]


def test_the_rules_answer_after_a_first_version_where_the_policy_says_so():
    """Given up, its users are the rules'; with rules as champion nothing is tried out."""
    ruled = plan_of(replace(POLICY, kill_to=Fallback.RULES), first=True)
    alone = Slots(champion=None, challenger="a")
    for act in (Act.ROLL_BACK, Act.KILL, Act.FAIL):
        action = Action(act=act, why="so")
        table = table_for(action, ruled, STATE, alone, sequence=9, salt="s")
        assert table is not None
        assert (table.champion, table.challenger, table.fallback) == ("rules", None, "rules")
        with pytest.raises(ValueError, match="champion is 'rules'"):
            replace(table, mirror="a")


def test_a_step_that_is_none_has_no_table():
    """A step beyond the plan, and a table to restore where there is none, are refused."""
    for action, state in (
        (Action(act=Act.ENTER, step=9, why="so"), STATE),
        (Action(act=Act.ENTER, step=None, why="so"), STATE),
        (Action(act=Act.RESTORE, step=1, why="so"), replace(STATE, table=None)),
    ):
        with pytest.raises(ValueError, match=r"there are 4|none to restore"):
            table_for(action, PLAN, state, SLOTS, sequence=9, salt="s")


@given(st.lists(st.integers(1, 99), max_size=6, unique=True).map(sorted))
def test_2_across_forward_steps_the_users_on_the_challenger_only_grow(percents: list[int]):
    """Whatever shares a policy has: nobody who is on it goes back by a forward step."""
    plan = plan_of(replace(POLICY, canary_percents=(*percents, 100)))
    held = frozenset[int]()
    acts = [Action(act=Act.ENTER, step=s.index, why="so") for s in plan.steps]
    for action in (*acts, Action(act=Act.FINISH, why="so")):
        table = table_for(action, plan, STATE, SLOTS, sequence=9, salt="s")
        assert table is not None
        on = frozenset(b for b in range(BUCKETS) if table.slot_for(b) == "b")
        assert held <= on
        held = on
    assert len(held) == BUCKETS
