"""What a release does in each state and situation, one line each, and the laws behind the lines."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.release import Market, Measure, Rollout, Trigger
from penstock.rollout.action import Action
from penstock.rollout.case import Case
from penstock.rollout.decide import decide, reconsider, replanned
from penstock.rollout.judgement import Approved, Effect, Judgement, Seen
from penstock.rollout.plan import ENDED, Phase, Plan, plan_of
from penstock.rollout.state import Act, Ask, Command, Pending, State
from penstock.rollout.table import TrafficTable, buckets_for
from penstock.verdict import Check, Outcome, Verdict

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = Rollout(
    canary_percents=(10, 50, 100),
    soak=3 * DAY,
    shadow_soak=7 * DAY,
    progressive_soak=2 * DAY,
    bake=10 * DAY,
    cool_down=5 * DAY,
    deadline=14 * DAY,
    evidence_timeout=HOUR,
    primary=Measure(name="clicks", source="right", margin=0.01, deviation=0.5),
)
PLAN = plan_of(POLICY)
"""0 shadow, 1 canary 10 %, 2 progressive 50 %, 3 progressive 100 %, 4 bake."""

STRICT = plan_of(
    replace(POLICY, markets=(Market(name="eu", canary_percents=(5, 100), approve=True),)),
    market="eu",
)
"""0 shadow, 1 canary 5 %, 2 progressive 100 %, 3 bake; a person lets it enter 1 and 2."""

PATIENT = plan_of(replace(POLICY, extensions=1))
DRIFTED = plan_of(POLICY, trigger=Trigger.DRIFT)
FIRST = plan_of(POLICY, first=True)

TABLE = TrafficTable(sequence=4, salt="s", champion="a", challenger="b", buckets=6, mirror=None)


def state_of(phase: Phase | str, step: int | None = None, **more: Any) -> State:
    """Return a release that entered this step at BEGAN."""
    fields: dict[str, Any] = {
        "release": "digits/2/all/1",
        "workload": "digits",
        "market": "all",
        "phase": Phase(phase),
        "step": step,
        "opened_at": BEGAN,
        "entered_at": BEGAN,
        "table": None if step is None else TABLE,
    }
    return State(**{**fields, **more})


def judged(outcome: Outcome | str, **more: Any) -> Judgement:
    """Return a judgement of one check that ended so."""
    check = Check(name="errors", outcome=Outcome(outcome), reason="3 of 900")
    effect = more.pop("effect", Effect.PARITY)
    return Judgement(verdict=Verdict((check,)), effect=effect, reason="3 of 900", **more)


def seen_of(outcome: Outcome | str | None, at: datetime, **more: Any) -> Seen:
    """Return what is seen when everything but this is well; evidence is a minute old."""
    fields: dict[str, Any] = {
        "ready": True,
        "judgement": None if outcome is None else judged(outcome),
        "evidence_at": at - timedelta(minutes=1),
    }
    return Seen(**{**fields, **more})


def said(action: Action) -> str:
    """Return an action as the lines below write it."""
    words = [f"hold: {action.waits_for}" if action.act is None else str(action.act)]
    words += [] if action.step is None else [str(action.step)]
    words += ["strike"] * action.strike + ["critical"] * action.critical
    words += [] if action.answers is None else [f"answers {action.answers}"]
    return " ".join(words)


def asked(ask: Ask) -> Command:
    """Return a command, entry 77 of the ledger."""
    return Command(sequence=77, ask=ask, reason="to be sure", actor="ops", key_id="k", at=BEGAN)


def answer(granted: bool) -> Approved:
    """Return an answer, entry 88 of the ledger."""
    return Approved(sequence=88, granted=granted, actor="eve", reason="read it")


PREPARE = state_of("PREPARE")
SHADOW, CANARY = state_of("SHADOW", 0), state_of("CANARY", 1)
PROGRESSIVE, BAKE = state_of("PROGRESSIVE", 2), state_of("BAKE", 4)
STRUCK = replace(CANARY, strikes=1)
BACK = state_of("STEPPED_BACK", 1, strikes=1)
BACK_IN_SHADOW = state_of("STEPPED_BACK", 0, strikes=1)
PAUSED_BACK_IN_SHADOW = state_of("PAUSED", 0, within=Phase.STEPPED_BACK, strikes=1)
AWAIT = state_of("AWAIT", 0, within=Phase.SHADOW, awaited=1)
PAUSED = state_of("PAUSED", 1, within=Phase.CANARY)
PAUSED_AWAIT = state_of("PAUSED", 0, within=Phase.SHADOW, awaited=1)
PREPARE_PAUSED = state_of("PAUSED", within=Phase.PREPARE)
FIRST_BAKE = state_of("BAKE", 0)

CRITICAL = {"judgement": judged("fail", critical="a wrong golden answer")}
HOME = {"intended": False, "in_force_buckets": 0}
NO_VALUE = {"judgement": judged("pass", no_value=True)}

# state, days since it began, outcome of its evidence, what else is seen, plan, what it does
LINES: tuple[tuple[State, float, str | None, dict[str, Any], Plan, str], ...] = (
    # PREPARE: the server starts
    (PREPARE, 0.1, None, {"ready": False}, PLAN, "hold: server"),
    (PREPARE, 0.1, None, {}, PLAN, "enter 0"),
    (PREPARE, 14.1, None, {"ready": False}, PLAN, "fail"),
    (PREPARE, 0.1, None, {"ready": False, "refused": "wrong hash"}, PLAN, "fail"),
    (PREPARE, 0.1, None, {"standby_ready": False}, PLAN, "hold: standby"),
    (PREPARE, 0.1, None, {"drilled": "no drill"}, PLAN, "enter 0"),
    (PREPARE, 0.1, None, {"documents": ("dpia",)}, PLAN, "enter 0"),
    (PREPARE, 0.1, None, {"killed": "ops"}, PLAN, "kill"),
    (PREPARE, 0.1, None, {"lifecycle": "archived"}, PLAN, "roll back"),
    (PREPARE, 0.1, None, {"command": asked(Ask.ABORT)}, PLAN, "roll back answers 77"),
    (PREPARE, 0.1, None, {"command": asked(Ask.PAUSE)}, PLAN, "pause answers 77"),
    (PREPARE_PAUSED, 20, None, {}, PLAN, "hold: person"),
    (PREPARE_PAUSED, 20, None, {"ready": False}, PLAN, "hold: person"),
    (PREPARE_PAUSED, 20, None, {"refused": "wrong hash"}, PLAN, "fail"),
    # SHADOW: copies only
    (SHADOW, 1, "inconclusive", {}, PLAN, "hold: users"),
    (SHADOW, 1, "pass", {}, PLAN, "hold: soak"),
    (SHADOW, 7, "pass", {}, PLAN, "enter 1"),
    (SHADOW, 1, "fail", {}, PLAN, "roll back strike"),
    (SHADOW, 1, "error", {}, PLAN, "hold: evidence"),
    (SHADOW, 7, "pass", {}, DRIFTED, "await 1"),
    (SHADOW, 7, "pass", {}, STRICT, "await 1"),
    (SHADOW, 7, "pass", {"documents": ("dpia",)}, STRICT, "hold: documents"),
    (SHADOW, 7, "pass", {"drilled": "no drill"}, STRICT, "await 1"),
    (SHADOW, 7, "pass", {"drilled": "no drill"}, PLAN, "hold: drill"),
    (SHADOW, 14.1, "inconclusive", {}, PLAN, "roll back"),
    # CANARY: the first users
    (CANARY, 1, "pass", {}, PLAN, "hold: soak"),
    (CANARY, 3, "pass", {}, PLAN, "enter 2"),
    (CANARY, 3, "pass", {"ready": False}, PLAN, "hold: server"),
    (CANARY, 3, "pass", {"standby_ready": False}, PLAN, "hold: standby"),
    (CANARY, 3, "pass", {"drilled": "overdue"}, PLAN, "hold: drill"),
    (CANARY, 3, "pass", {"conflict": "clocks differ"}, PLAN, "hold: evidence"),
    (CANARY, 3, "pass", {"intended": False}, PLAN, "restore 1"),
    (CANARY, 13, "inconclusive", {}, PLAN, "hold: users"),
    (CANARY, 14.1, "inconclusive", {}, PLAN, "roll back"),
    (CANARY, 14.1, "inconclusive", {}, PATIENT, "extend"),
    (replace(CANARY, extended=1), 14.1, "inconclusive", {}, PATIENT, "hold: users"),
    (replace(CANARY, extended=1), 28.1, "inconclusive", {}, PATIENT, "roll back"),
    (CANARY, 14.1, "pass", {"standby_ready": False}, PLAN, "hold: standby"),
    (CANARY, 14.1, "error", {}, PATIENT, "roll back"),
    (CANARY, 1, "error", {}, PLAN, "hold: evidence"),
    (CANARY, 1, None, {}, PLAN, "hold: evidence"),
    (CANARY, 1, None, {"evidence_at": None}, PLAN, "roll back"),
    (CANARY, 3, "pass", {"evidence_at": BEGAN + 2 * DAY}, PLAN, "roll back"),
    (CANARY, 0.01, "error", {"evidence_at": None}, PLAN, "hold: evidence"),
    (CANARY, 1, "fail", {}, PLAN, "step back 0 strike"),
    (CANARY, 1, "fail", {"standby_ready": False, "drilled": "overdue"}, PLAN, "step back 0 strike"),
    (CANARY, 1, "fail", {"conflict": "clocks differ"}, PLAN, "step back 0 strike"),
    (STRUCK, 1, "fail", {}, PLAN, "roll back strike"),
    (STRUCK, 3, "pass", {}, PLAN, "enter 2"),
    (CANARY, 0, "fail", CRITICAL, PLAN, "roll back strike critical"),
    (CANARY, 1, "pass", {"refused": "crash loop"}, PLAN, "roll back strike critical"),
    (CANARY, 1, "pass", NO_VALUE, PLAN, "hold: soak"),
    (CANARY, 3, "pass", NO_VALUE, PLAN, "roll back"),
    (CANARY, 3, "pass", NO_VALUE | {"command": asked(Ask.PROMOTE)}, PLAN, "enter 2 answers 77"),
    (CANARY, 1, "pass", {"killed": "ops"}, PLAN, "kill"),
    (CANARY, 1, "fail", {"killed": "ops"}, PLAN, "kill"),
    (CANARY, 1, "pass", {"lifecycle": "archived"}, PLAN, "roll back"),
    (CANARY, 1, "pass", {"command": asked(Ask.ROLL_BACK)}, PLAN, "roll back answers 77"),
    (CANARY, 1, "pass", {"command": asked(Ask.PAUSE)}, PLAN, "pause answers 77"),
    (CANARY, 1, "pass", {"command": asked(Ask.RESUME)}, PLAN, "resume answers 77"),
    (CANARY, 1, "pass", {"command": asked(Ask.PROMOTE)}, PLAN, "hold: soak"),
    (CANARY, 3, "pass", {"command": asked(Ask.PROMOTE)}, PLAN, "enter 2 answers 77"),
    (CANARY, 3, "inconclusive", {"command": asked(Ask.PROMOTE)}, PLAN, "hold: users"),
    (CANARY, 3, "pass", {"command": asked(Ask.PROMOTE)}, STRICT, "await 2"),
    # PROGRESSIVE: as CANARY
    (PROGRESSIVE, 1, "pass", {}, PLAN, "hold: soak"),
    (PROGRESSIVE, 2, "pass", {}, PLAN, "enter 3"),
    (PROGRESSIVE, 1, "fail", {}, PLAN, "step back 1 strike"),
    (replace(PROGRESSIVE, strikes=1), 1, "fail", {}, PLAN, "roll back strike"),
    # BAKE: everybody; the one before stands by
    (BAKE, 9, "pass", {}, PLAN, "hold: soak"),
    (BAKE, 10, "pass", {}, PLAN, "finish"),
    (BAKE, 10, "pass", {"standby_ready": False}, PLAN, "hold: standby"),
    (BAKE, 1, "fail", {}, PLAN, "roll back strike"),
    (BAKE, 1, "error", {"evidence_at": None}, PLAN, "roll back"),
    # AWAIT: a person must agree
    (AWAIT, 8, "pass", {}, STRICT, "hold: approval"),
    (AWAIT, 99, "pass", {}, STRICT, "hold: approval"),
    (AWAIT, 8, "pass", {"approval": answer(True)}, STRICT, "enter 1 answers 88"),
    (AWAIT, 8, "pass", {"approval": answer(False)}, STRICT, "roll back answers 88"),
    (AWAIT, 8, "inconclusive", {"approval": answer(True)}, STRICT, "hold: users"),
    (AWAIT, 99, "inconclusive", {}, STRICT, "hold: users"),
    (AWAIT, 8, "pass", {"approval": answer(True), "drilled": "none"}, STRICT, "hold: drill"),
    (AWAIT, 8, "pass", {"approval": answer(True), "documents": ("d",)}, STRICT, "hold: documents"),
    (AWAIT, 8, "pass", {"command": asked(Ask.PROMOTE)}, STRICT, "hold: approval"),
    (AWAIT, 8, "fail", {"approval": answer(True)}, STRICT, "roll back strike"),
    (AWAIT, 8, "pass", {"evidence_at": BEGAN}, STRICT, "roll back"),
    (AWAIT, 8, "pass", {"intended": False}, STRICT, "restore 0"),
    (AWAIT, 8, "pass", {"command": asked(Ask.PAUSE)}, STRICT, "pause answers 77"),
    # STEPPED_BACK: cooling down one step lower
    (BACK, 4, "pass", {}, PLAN, "hold: cool-down"),
    (BACK, 2, "pass", {}, PLAN, "hold: soak"),
    (BACK, 5, "pass", {}, PLAN, "enter 2"),
    (BACK, 4, "pass", {"command": asked(Ask.PROMOTE)}, PLAN, "enter 2 answers 77"),
    (BACK, 1, "fail", {}, PLAN, "roll back strike"),
    (BACK_IN_SHADOW, 7, "pass", {}, PLAN, "enter 1"),
    # In shadow nobody is at risk: what fails during the cool-down is put aside, once.
    (BACK_IN_SHADOW, 1, "fail", {}, PLAN, "hold: cool-down"),
    (BACK_IN_SHADOW, 6.9, "fail", {}, PLAN, "hold: cool-down"),
    (BACK_IN_SHADOW, 7, "fail", {}, PLAN, "enter 0"),
    (BACK_IN_SHADOW, 1, "fail", {"evidence_at": None}, PLAN, "roll back"),
    (BACK_IN_SHADOW, 1, "fail", CRITICAL, PLAN, "roll back strike critical"),
    (replace(SHADOW, strikes=1), 1, "fail", {}, PLAN, "roll back strike"),
    (PAUSED_BACK_IN_SHADOW, 9, "fail", {}, PLAN, "hold: person"),
    # Users whom another table took home come back only where a step forward might be taken.
    (CANARY, 1, None, HOME, PLAN, "restore 1"),
    (CANARY, 1, "error", HOME | {"evidence_at": None, "ready": False}, PLAN, "roll back"),
    (CANARY, 0.01, "error", HOME | {"evidence_at": None}, PLAN, "restore 1"),
    (CANARY, 1, "error", HOME, PLAN, "hold: evidence"),
    (CANARY, 1, None, HOME | {"conflict": "clocks differ"}, PLAN, "hold: evidence"),
    (CANARY, 1, None, HOME | {"ready": False}, PLAN, "hold: server"),
    (CANARY, 1, None, HOME | {"standby_ready": False}, PLAN, "hold: standby"),
    (PAUSED, 1, None, HOME, PLAN, "hold: person"),
    (PAUSED, 1, None, HOME | {"command": asked(Ask.RESUME)}, PLAN, "resume answers 77"),
    (CANARY, 3, "pass", HOME | {"standby_ready": False}, PLAN, "hold: standby"),
    (CANARY, 1, None, HOME | {"in_force_buckets": 6, "ready": False}, PLAN, "restore 1"),
    # PAUSED: nothing forward, everything back
    (PAUSED, 99, "pass", {}, PLAN, "hold: person"),
    (PAUSED, 99, "inconclusive", {}, PLAN, "hold: person"),
    (PAUSED, 1, "pass", {"command": asked(Ask.RESUME)}, PLAN, "resume answers 77"),
    (PAUSED, 9, "pass", {"command": asked(Ask.PROMOTE)}, PLAN, "hold: person"),
    (PAUSED, 1, "pass", {"command": asked(Ask.ABORT)}, PLAN, "roll back answers 77"),
    (PAUSED, 1, "fail", {}, PLAN, "step back 0 strike"),
    (PAUSED, 1, "fail", CRITICAL, PLAN, "roll back strike critical"),
    (PAUSED, 1, "pass", {"evidence_at": None}, PLAN, "roll back"),
    (PAUSED, 1, "pass", {"intended": False}, PLAN, "restore 1"),
    (PAUSED, 1, "pass", {"killed": "ops"}, PLAN, "kill"),
    (PAUSED_AWAIT, 8, "pass", {"approval": answer(True)}, STRICT, "hold: person"),
    (PAUSED_AWAIT, 8, "pass", {"approval": answer(False)}, STRICT, "roll back answers 88"),
    # a first version: nobody to compare with, nobody to go back to, nobody to stand by
    (PREPARE, 0.1, None, {"standby_ready": False, "drilled": "none"}, FIRST, "enter 0"),
    (FIRST_BAKE, 1, "pass", {}, FIRST, "hold: soak"),
    (FIRST_BAKE, 3, "pass", {"standby_ready": False, "drilled": "none"}, FIRST, "finish"),
    (FIRST_BAKE, 1, "fail", {}, FIRST, "roll back strike"),
)


@pytest.mark.parametrize(
    ("state", "days", "outcome", "more", "plan", "does"),
    LINES,
    ids=[f"{n}-{line[0].phase}-{line[2]}-{line[5]}" for n, line in enumerate(LINES)],
)
def test_each_state_and_situation_has_its_action(
    state: State, days: float, outcome: str | None, more: dict[str, Any], plan: Plan, does: str
):
    """In this state, so long after it began and seeing this, it does this."""
    now = BEGAN + days * DAY

    action = decide(plan, state, seen_of(outcome, now, **more), now)

    assert said(action) == does
    assert action.why


@pytest.mark.parametrize("phase", sorted(ENDED))
@pytest.mark.parametrize("outcome", list(Outcome))
def test_what_has_ended_stays_ended(phase: Phase, outcome: Outcome):
    """Nothing leads out of an end, not even harm or the kill switch."""
    state = state_of(phase, 4)

    action = decide(PLAN, state, seen_of(outcome, BEGAN, killed="ops", **CRITICAL), BEGAN)

    assert action.act is None


phases = st.sampled_from(
    (SHADOW, CANARY, PROGRESSIVE, BAKE, STRUCK, BACK, BACK_IN_SHADOW, PAUSED, AWAIT)
)
waits = st.floats(-40, 40).map(lambda days: days * DAY)
outcomes = st.sampled_from([*Outcome, None])


@given(phases, outcomes, waits, waits, st.booleans(), st.sampled_from([None, *Ask]))
def test_only_a_fresh_pass_after_the_soak_moves_forward(
    state: State,
    outcome: Outcome | None,
    waited: timedelta,
    age: timedelta,
    conflict: bool,
    ask: Ask | None,
):
    """Whatever the clock, the step and the person: forward takes a pass, fresh, after the soak."""
    now = BEGAN + waited
    command = None if ask is None else asked(ask)
    contradiction = "clocks differ" if conflict else ""
    seen = seen_of(outcome, now, evidence_at=now - age, command=command, conflict=contradiction)

    action = decide(PLAN, state, seen, now)

    if action.act in (Act.ENTER, Act.FINISH, Act.AWAIT) and action.step != state.step:
        assert outcome is Outcome.PASS
        assert waited >= PLAN.steps[state.step or 0].soak
        assert abs(age) <= PLAN.evidence_timeout
        assert not conflict


@given(phases, waits, st.sampled_from([None, *Ask]), st.booleans(), st.booleans())
def test_harm_never_waits(
    state: State, waited: timedelta, ask: Ask | None, standby_ready: bool, intended: bool
):
    """A failing check moves users back at once, whatever the clock, people or servers say."""
    now = BEGAN + waited
    command = None if ask is None else asked(ask)
    seen = seen_of(
        "fail", now, command=command, standby_ready=standby_ready, intended=intended, ready=False
    )

    action = decide(PLAN, state, seen, now)

    if Case(PLAN, state, seen, now).recovering:
        assert action.act not in (Act.FINISH, Act.AWAIT)
        assert action.step in (None, 0), "only copies, until evidence has begun anew"
        return
    assert action.act in (Act.STEP_BACK, Act.ROLL_BACK)
    assert action.act is Act.ROLL_BACK or not state.strikes


@given(phases, st.floats(-40, 0).map(lambda days: days * DAY))
def test_a_clock_set_back_never_shortens_a_wait(state: State, waited: timedelta):
    """A step that seems to begin in the future has lasted no time at all."""
    now = BEGAN + waited
    trusting = plan_of(replace(POLICY, evidence_timeout=99 * DAY))

    action = decide(trusting, state, seen_of("pass", now, evidence_at=BEGAN), now)

    assert action.act is None


@pytest.mark.parametrize("at", [None, BEGAN - HOUR, BEGAN + 200 * DAY])
def test_a_pass_needs_an_answer_of_its_own_step(at: datetime | None):
    """A pass is an error where the challenger's answer is missing, of before, or yet to come."""
    trusting = plan_of(replace(POLICY, evidence_timeout=99 * DAY))
    now = BEGAN + 3 * DAY

    action = decide(trusting, CANARY, seen_of("pass", now, evidence_at=at), now)

    assert said(action) == "hold: evidence"


def test_a_record_of_the_future_does_not_keep_a_release_alive():
    """An answer from further ahead than evidence may be old is no evidence, and runs out."""
    now = BEGAN + 2 * HOUR

    action = decide(PLAN, CANARY, seen_of("pass", now, evidence_at=now + 2 * HOUR), now)

    assert action.act is Act.ROLL_BACK
    assert "no evidence for 2 h" in action.why


def test_a_hold_says_when_it_ends_at_the_latest():
    """Whoever waits is told until when: soak, cool-down, evidence, users, server."""
    at = BEGAN + DAY

    until = [
        decide(PLAN, state, seen_of(outcome, at, **more), at).until
        for state, outcome, more in (
            (CANARY, "pass", {}),
            (BACK, "pass", {}),
            (CANARY, "error", {}),
            (CANARY, "inconclusive", {}),
            (PREPARE, None, {"ready": False}),
        )
    ]

    minute = timedelta(minutes=1)
    assert until == [
        BEGAN + 3 * DAY,
        BEGAN + 5 * DAY,
        at - minute + HOUR,
        BEGAN + 14 * DAY,
        BEGAN + 14 * DAY,
    ]


def pending(act: Act, step: int | None, state: State) -> State:
    """Return the state with an intent that was written and not done."""
    held = Pending(n=5, act=act, step=step, table=TABLE, why="all passed", body={})
    return replace(state, n=5, pending=held)


def test_nothing_is_decided_over_an_intent_that_is_not_finished():
    """An intent is finished or reconsidered, never decided past; without one neither is asked."""
    with pytest.raises(ValueError, match="intent 5 of digits/2/all/1 is not finished"):
        decide(PLAN, pending(Act.ENTER, 2, CANARY), seen_of("pass", BEGAN), BEGAN)
    with pytest.raises(ValueError, match="no intent of digits/2/all/1 is pending"):
        reconsider(PLAN, CANARY, seen_of("pass", BEGAN), BEGAN)
    with pytest.raises(ValueError, match="which its plan does not have"):
        decide(PLAN, replace(CANARY, step=9), seen_of("pass", BEGAN), BEGAN)


@pytest.mark.parametrize(
    ("days", "outcome", "more", "does"),
    [
        (3, "pass", {}, "enter 2"),
        (3, "inconclusive", {}, "hold: users"),
        (3, "fail", {}, "step back 0 strike"),
        (3, "pass", {"evidence_at": None}, "roll back"),
        (3, "pass", {"command": asked(Ask.ABORT)}, "roll back answers 77"),
        (3, "pass", {"command": asked(Ask.PAUSE)}, "restore 1"),
        (3, "pass", {"killed": "ops"}, "kill"),
        (3, "pass", HOME | {"ready": False, "command": asked(Ask.PAUSE)}, "pause answers 77"),
    ],
)
def test_a_move_forward_that_was_only_intended_must_be_right_still(
    days: float, outcome: str, more: dict[str, Any], does: str
):
    """A dead controller's intent is done only if it would be decided now; else what is, fenced."""
    now = BEGAN + days * DAY

    action = reconsider(PLAN, pending(Act.ENTER, 2, CANARY), seen_of(outcome, now, **more), now)

    assert said(action) == does


def test_a_pause_lets_a_shadow_begin_that_was_intended():
    """Before the first table there is none to restore, and copies harm nobody."""
    now = BEGAN + HOUR
    seen = seen_of(None, now, command=asked(Ask.PAUSE))

    assert said(reconsider(PLAN, pending(Act.ENTER, 0, PREPARE), seen, now)) == "enter 0"


def test_a_changed_plan_restarts_the_step_or_ends_the_release():
    """A step that the new plan has begins again; another share was never passed."""
    table = replace(TABLE, buckets=buckets_for(10))
    here = replace(CANARY, table=table)
    slower = plan_of(replace(POLICY, soak=4 * DAY))
    wider = plan_of(replace(POLICY, canary_percents=(20, 100)))

    assert replanned(slower, PREPARE) is None
    assert said(replanned(slower, here) or Action(act=None, why="")) == "enter 1"
    assert said(replanned(wider, here) or Action(act=None, why="")) == "roll back"
    assert said(replanned(wider, replace(here, step=9)) or Action(act=None, why="")) == "roll back"
