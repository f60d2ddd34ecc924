"""The ledger alone says where a release stands; what cannot follow is refused by its number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ledger import LedgerError
from penstock.release import Market, Measure, Rollout
from penstock.rollout.folding import (
    Unfoldable,
    active,
    fold,
    next_release,
    plan_in_force,
    release_id,
    releases,
)
from penstock.rollout.plan import Phase, plan_of
from penstock.rollout.state import APPROVAL, COMMAND, IN_FORCE, INTENT, OPENED, Act, Ask
from penstock.rollout.table import TrafficTable
from tests.rollout.machine import START, VERSION, WORKLOAD
from tests.rollout.machine_parts import MemoryLedger

POLICY = Rollout(
    canary_percents=(10, 100),
    soak=timedelta(seconds=10),
    deadline=timedelta(seconds=90),
    primary=Measure(name="clicks", source="right", margin=0.01, deviation=0.5),
    markets=(
        Market(name="us", canary_percents=(10, 100)),
        Market(name="eu", canary_percents=(5, 100), approve=True),
    ),
)
NAME = release_id(WORKLOAD, VERSION, "us", 1)
TABLE = TrafficTable(sequence=7, salt="s", champion="a", challenger="b", buckets=6, mirror=None)


class Book:
    """A ledger with a release in it, written line by line."""

    def __init__(self, *, opened: bool = True) -> None:
        self.ledger, self.at, self.n = MemoryLedger(), 0.0, 0
        if opened:
            self.open()

    def open(self, market: str = "us", k: int = 1) -> str:
        """Open a release and return its name."""
        name, plan = release_id(WORKLOAD, VERSION, market, k), plan_of(POLICY, market=market)
        document = {"plan": plan.to_dict(), "plan_hash": plan.fingerprint()}
        self.write(OPENED, {"market": market, "trigger": "manual", **document}, name=name)
        return name

    def write(self, kind: str, body: dict[str, Any], *, name: str = NAME) -> None:
        """Append a line, a second after the one before."""
        self.at += 1
        self.ledger.append(
            workload=WORKLOAD,
            version=VERSION,
            kind=kind,
            body={"release": name, **body},
            actor="ops",
            now=START + timedelta(seconds=self.at),
        )

    def intend(self, act: Act | str, step: int | None = None, **more: Any) -> None:
        """Append an intent, with a table where it moves traffic."""
        self.n += 1
        moves = act in (Act.ENTER, Act.STEP_BACK, Act.RESTORE, Act.ROLL_BACK, Act.FINISH)
        table = TABLE.to_dict() | {"sequence": 7 + self.n} if moves else None
        fields = {"n": self.n, "action": str(act), "step": step, "why": "so", "table": table}
        self.write(INTENT, {**fields, **more})

    def confirm(self, n: int | None = None) -> None:
        """Append that the last intent is in force, or that another one is."""
        self.write(IN_FORCE, {"n": self.n if n is None else n, "milliseconds": 3.0})

    def did(self, act: Act | str, step: int | None = None, **more: Any) -> None:
        """Append an intent and that it is in force."""
        self.intend(act, step, **more)
        self.confirm()

    def ask(self, ask: str) -> int:
        """Append a command and return its sequence."""
        self.write(COMMAND, {"command": ask, "reason": "to be sure"})
        return self.ledger.head().sequence

    def state(self) -> Any:
        """Return where the release stands."""
        return fold(self.ledger.entries(), NAME)


def climbed(*acts: tuple[Act, int | None]) -> Book:
    """Return a book in which these were done."""
    book = Book()
    for act, step in acts:
        book.did(act, step)
    return book


IN_CANARY = ((Act.ENTER, 0), (Act.ENTER, 1))
STRUCK = (*IN_CANARY, (Act.STEP_BACK, 0))

# what was done, and the phase, the phase within, step and strikes after it
LIVES: tuple[tuple[tuple[tuple[Act, int | None], ...], tuple[Any, ...]], ...] = (
    ((), ("PREPARE", None, None, 0)),
    (((Act.FAIL, None),), ("FAILED", None, None, 0)),
    (((Act.PAUSE, None),), ("PAUSED", "PREPARE", None, 0)),
    (((Act.ENTER, 0),), ("SHADOW", None, 0, 0)),
    (IN_CANARY, ("CANARY", None, 1, 0)),
    ((*IN_CANARY, (Act.ENTER, 2)), ("PROGRESSIVE", None, 2, 0)),
    ((*IN_CANARY, (Act.ENTER, 2), (Act.ENTER, 3)), ("BAKE", None, 3, 0)),
    ((*IN_CANARY, (Act.ENTER, 2), (Act.ENTER, 3), (Act.FINISH, None)), ("DONE", None, 3, 0)),
    ((*IN_CANARY, (Act.ROLL_BACK, None)), ("ROLLED_BACK", None, 1, 0)),
    ((*IN_CANARY, (Act.KILL, None)), ("KILLED", None, 1, 0)),
    ((*IN_CANARY, (Act.EXTEND, None)), ("CANARY", None, 1, 0)),
    ((*IN_CANARY, (Act.RESTORE, 1)), ("CANARY", None, 1, 0)),
    (STRUCK, ("STEPPED_BACK", None, 0, 1)),
    ((*STRUCK, (Act.ENTER, 1)), ("CANARY", None, 1, 1)),
    ((*STRUCK, (Act.RESTORE, 0)), ("STEPPED_BACK", None, 0, 1)),
    ((*STRUCK, (Act.PAUSE, None)), ("PAUSED", "STEPPED_BACK", 0, 1)),
    ((*STRUCK, (Act.PAUSE, None), (Act.RESUME, None)), ("STEPPED_BACK", None, 0, 1)),
    ((*STRUCK, (Act.AWAIT, 1)), ("AWAIT", "STEPPED_BACK", 0, 1)),
    ((*IN_CANARY, (Act.PAUSE, None)), ("PAUSED", "CANARY", 1, 0)),
    ((*IN_CANARY, (Act.PAUSE, None), (Act.PAUSE, None)), ("PAUSED", "CANARY", 1, 0)),
    ((*IN_CANARY, (Act.RESUME, None)), ("CANARY", None, 1, 0)),
    ((*IN_CANARY, (Act.PAUSE, None), (Act.STEP_BACK, 0)), ("PAUSED", "STEPPED_BACK", 0, 1)),
    ((*IN_CANARY, (Act.PAUSE, None), (Act.RESTORE, 1)), ("PAUSED", "CANARY", 1, 0)),
    ((*IN_CANARY, (Act.AWAIT, 2)), ("AWAIT", "CANARY", 1, 0)),
    ((*IN_CANARY, (Act.AWAIT, 2), (Act.ENTER, 2)), ("PROGRESSIVE", None, 2, 0)),
    ((*IN_CANARY, (Act.AWAIT, 2), (Act.PAUSE, None)), ("PAUSED", "CANARY", 1, 0)),
    (
        (*IN_CANARY, (Act.AWAIT, 2), (Act.PAUSE, None), (Act.RESUME, None)),
        ("AWAIT", "CANARY", 1, 0),
    ),
    ((*IN_CANARY, (Act.AWAIT, 2), (Act.STEP_BACK, 0)), ("STEPPED_BACK", None, 0, 1)),
    ((*IN_CANARY, (Act.AWAIT, 2), (Act.RESTORE, 1)), ("CANARY", None, 1, 0)),
)


@pytest.mark.parametrize(("acts", "stands"), LIVES, ids=lambda v: " ".join(map(str, v))[:60])
def test_each_life_ends_where_it_should(
    acts: tuple[tuple[Act, int | None], ...], stands: tuple[Any, ...]
):
    """What was done one after the other says where the release stands."""
    state = climbed(*acts).state()

    assert (state.phase, state.within, state.step, state.strikes) == stands
    assert state.pending is None
    assert state.n == len(acts)


REFUSED: tuple[tuple[tuple[tuple[Act, int | None], ...], Act, int | None], ...] = (
    ((), Act.ENTER, 1),
    ((), Act.ENTER, None),
    ((), Act.STEP_BACK, None),
    ((), Act.FINISH, None),
    ((), Act.EXTEND, None),
    ((), Act.RESTORE, None),
    (IN_CANARY, Act.ENTER, 0),
    (IN_CANARY, Act.ENTER, 1),
    (IN_CANARY, Act.ENTER, 3),
    (IN_CANARY, Act.AWAIT, 3),
    (IN_CANARY, Act.FINISH, None),
    (IN_CANARY, Act.FAIL, None),
    (IN_CANARY, Act.STEP_BACK, 1),
    (((Act.ENTER, 0),), Act.STEP_BACK, -1),
    ((*IN_CANARY, (Act.PAUSE, None)), Act.ENTER, 2),
    ((*IN_CANARY, (Act.PAUSE, None)), Act.AWAIT, 2),
    ((*IN_CANARY, (Act.ROLL_BACK, None)), Act.ENTER, 2),
    ((*IN_CANARY, (Act.ROLL_BACK, None)), Act.ROLL_BACK, None),
    ((*IN_CANARY, (Act.KILL, None)), Act.RESTORE, 1),
)


@pytest.mark.parametrize(("acts", "act", "step"), REFUSED)
def test_what_cannot_follow_is_refused_by_its_number(
    acts: tuple[tuple[Act, int | None], ...], act: Act, step: int | None
):
    """No step is skipped, left twice or entered from a pause or an end."""
    book = climbed(*acts)
    book.intend(act, step)

    with pytest.raises(Unfoldable, match=f"entry {book.ledger.head().sequence} "):
        book.state()


def test_only_what_is_in_force_counts():
    """An intent alone changes nothing but that it is pending; read back, it counts from then."""
    book = climbed((Act.ENTER, 0))
    before = book.state()
    book.intend(Act.ENTER, 1)
    held = book.state()
    book.confirm()
    after = book.state()

    assert (held.phase, held.step, held.table) == (before.phase, before.step, before.table)
    assert (held.n, held.pending.n, held.pending.act) == (2, 2, Act.ENTER)
    assert (after.phase, after.pending) == (Phase.CANARY, None)
    assert after.table == held.pending.table
    assert after.entered_at == START + timedelta(seconds=book.at)


def test_a_second_confirmation_changes_nothing():
    """Two controllers may both read the effect back; one of an earlier intent is late."""
    book = climbed(*IN_CANARY)
    before = book.state()
    book.confirm()
    book.confirm(1)

    after = book.state()

    assert (after.phase, after.entered_at, after.n) == (before.phase, before.entered_at, 2)


def test_an_intent_may_take_the_place_of_one_that_came_too_late():
    """Nothing of the replaced one counts, nor does its late confirmation."""
    book = climbed((Act.ENTER, 0))
    book.intend(Act.ENTER, 1)
    book.intend(Act.RESTORE, 0)
    book.confirm(2)
    assert book.state().pending.act is Act.RESTORE
    book.confirm(3)

    assert (book.state().phase, book.state().step) == (Phase.SHADOW, 0)


@pytest.mark.parametrize("act", [Act.STEP_BACK, Act.ROLL_BACK, Act.KILL])
def test_nothing_forward_takes_the_place_of_a_step_back(act: Act):
    """What was decided for harm is done, or something stronger; a strike cannot be lost."""
    book = climbed(*IN_CANARY)
    book.intend(act, 0 if act is Act.STEP_BACK else None)
    book.intend(Act.ENTER, 2)

    with pytest.raises(Unfoldable, match="in the place of"):
        book.state()


def test_numbers_must_follow():
    """A number out of turn or of an intent that was never written is refused."""
    gap, unknown = climbed((Act.ENTER, 0)), climbed((Act.ENTER, 0))
    gap.n += 1
    gap.intend(Act.ENTER, 1)
    unknown.confirm(4)

    for book in (gap, unknown):
        with pytest.raises(Unfoldable):
            book.state()


def test_a_release_begins_with_its_opening_and_has_one():
    """Without an opening there is no release; two make neither."""
    twice, early = Book(), Book(opened=False)
    twice.open()
    early.did(Act.ENTER, 0)

    with pytest.raises(Unfoldable, match="opened before"):
        twice.state()
    with pytest.raises(Unfoldable, match="was not opened"):
        early.state()
    with pytest.raises(LedgerError, match="no release 'digits/9/us/1'"):
        fold(twice.ledger.entries(), "digits/9/us/1")


@pytest.mark.parametrize(
    "body",
    [
        {"n": 1, "action": "dance", "step": 0, "why": "so", "table": None},
        {"n": 1, "action": "enter", "step": 0, "why": "so", "table": {"slots": 3}},
        {"n": 1, "action": "enter", "step": "0", "why": "so", "table": None},
        {"n": 1, "step": 0, "why": "so"},
    ],
)
def test_a_body_that_is_none_is_refused_with_its_entry(body: dict[str, Any]):
    """A field that lacks or is of another kind says which entry it is in."""
    book = Book()
    book.write(INTENT, body)

    with pytest.raises(Unfoldable, match="entry 2"):
        book.state()


def test_kinds_that_are_not_known_are_passed_over():
    """What another part writes about a release is none of the fold's business."""
    book = climbed(*IN_CANARY)
    before = book.state()
    book.write("drill", {"milliseconds": 70})
    book.write(APPROVAL, {"granted": True, "binds": {}})

    assert book.state().phase == before.phase
    assert book.state().n == before.n


@pytest.mark.parametrize("body", [{"command": "dance", "reason": "x"}, {"command": None}, {}])
def test_nobody_stops_a_release_with_words_that_mean_nothing(body: dict[str, Any]):
    """A command that asks nothing known is passed over."""
    book = climbed(*IN_CANARY)
    book.write(COMMAND, body)

    assert book.state().commands == ()


def test_a_command_is_open_until_what_answers_it_is_in_force():
    """The intent that heeds a command ends it once it is read back, not before."""
    book = climbed(*IN_CANARY)
    asked = book.ask("pause")
    book.intend(Act.PAUSE, answers=asked)
    assert [c.sequence for c in book.state().commands] == [asked]
    book.confirm()

    assert book.state().commands == ()


def test_a_wish_to_go_on_never_stands_before_another():
    """Promote is open only until something else is asked, or the step is left."""
    book = climbed(*IN_CANARY)
    book.ask("promote")
    book.ask("abort")
    assert [c.ask for c in book.state().commands] == [Ask.ABORT]
    book.ask("promote")
    book.did(Act.STEP_BACK, 0)

    assert [c.ask for c in book.state().commands] == [Ask.ABORT]


def test_a_command_after_the_end_asks_nothing():
    """Whoever was slower than the end of a release has no claim on it."""
    book = climbed(*IN_CANARY, (Act.ROLL_BACK, None))
    book.ask("pause")

    assert book.state().commands == ()


def test_waiting_keeps_what_was_asked_with():
    """An approval binds to the evidence that the question was asked with, pause or not."""
    book = climbed((Act.ENTER, 0))
    book.did(Act.AWAIT, 1, fingerprint="sha256:77")
    asked_at = START + timedelta(seconds=book.at)
    book.did(Act.PAUSE)
    book.did(Act.RESUME)
    state = book.state()
    assert (state.awaited, state.fingerprint, state.asked_at) == (1, "sha256:77", asked_at)
    book.did(Act.ENTER, 1)

    assert (book.state().awaited, book.state().fingerprint) == (None, "")


def test_the_step_counts_from_what_put_it_in_force():
    """Entering and restoring begin a step's time; extending, waiting and pausing leave it."""
    book = climbed((Act.ENTER, 0))
    began = book.state().entered_at
    for act, step in ((Act.AWAIT, 1), (Act.PAUSE, None), (Act.RESUME, None), (Act.EXTEND, None)):
        book.did(act, step)
        assert book.state().entered_at == began
    assert book.state().extended == 1
    book.did(Act.RESTORE, 0)
    assert book.state().entered_at == START + timedelta(seconds=book.at)
    assert book.state().extended == 1
    book.did(Act.ENTER, 1)

    assert book.state().extended == 0


@given(st.integers(1, 10_000))
def test_a_clock_that_went_back_does_not_begin_a_step_earlier(back: int):
    """The ledger's time is the newest of any entry, so a step never began before what led to it."""
    book = climbed((Act.ENTER, 0))
    newest = book.at
    book.at -= back
    book.did(Act.ENTER, 1)

    assert book.state().entered_at == START + timedelta(seconds=max(newest, book.at))


def test_a_strike_that_ends_the_release_counts():
    """A rollback is a strike where its intent says so."""
    book = climbed(*STRUCK)
    book.did(Act.ROLL_BACK, strike=True)

    assert (book.state().phase, book.state().strikes) == (Phase.ROLLED_BACK, 2)


def test_a_changed_plan_restarts_its_step():
    """The same step under another plan begins again, keeps its phase, and its plan is the new."""
    book = climbed(*STRUCK)
    plan = plan_of(POLICY, market="eu")
    book.did(Act.ENTER, 0, plan=plan.to_dict(), plan_hash=plan.fingerprint())

    state = book.state()
    assert (state.phase, state.step, state.strikes) == (Phase.STEPPED_BACK, 0, 1)
    assert state.entered_at == START + timedelta(seconds=book.at)
    assert plan_in_force(book.ledger.entries(), NAME)["market"] == "eu"


def test_a_changed_plan_says_what_its_step_is():
    """The step that was the last but one may be the last of a shorter plan, paused or not."""
    for pause in ((), ((Act.PAUSE, None),)):
        book = climbed(*IN_CANARY, *pause)
        plan = plan_of(replace(POLICY, markets=(), canary_percents=(100,))).to_dict()
        plan["steps"] = [plan["steps"][0], plan["steps"][2]]
        book.did(Act.ENTER, 1, plan=plan, plan_hash="")

        state = book.state()
        assert (state.within or state.phase) is Phase.BAKE
        assert (state.phase is Phase.PAUSED) is bool(pause)


def test_releases_are_named_in_order_and_known_while_they_go_on():
    """Names count up by version and market; what ended is not active."""
    book = Book()
    other = book.open("eu")
    entries = book.ledger.entries

    assert releases(entries()) == [NAME, other]
    assert [s.release for s in active(entries())] == [NAME, other]
    assert [s.release for s in active(entries(), "eu")] == [other]
    assert next_release(entries(), WORKLOAD, VERSION, "us") == f"{WORKLOAD}/{VERSION}/us/2"
    book.did(Act.FAIL)
    assert [s.release for s in active(entries())] == [other]
    assert next_release(entries(), WORKLOAD, 9, "us") == f"{WORKLOAD}/9/us/1"
    with pytest.raises(Unfoldable):
        plan_in_force(entries(), "digits/9/us/1")


def test_another_release_says_nothing_of_this_one():
    """Entries of one market's release leave the fold of another as it is."""
    book = Book()
    other = book.open("eu")
    for kind, body in _life():
        book.write(kind, body, name=other)

    assert book.state().phase is Phase.PREPARE
    assert fold(book.ledger.entries(), other).phase is Phase.SHADOW


def _life() -> Iterator[tuple[str, dict[str, Any]]]:
    table = TABLE.to_dict()
    yield INTENT, {"n": 1, "action": "enter", "step": 0, "why": "so", "table": table}
    yield IN_FORCE, {"n": 1, "milliseconds": 2.0}
