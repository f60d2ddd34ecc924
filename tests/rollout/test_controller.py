"""Laws of the release loop: what it does, in which order, and where users are when it cannot."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import Ledger, LedgerError, Stage, champion
from penstock.release import Trigger
from penstock.rollout import branches, folding
from penstock.rollout.asking import WRONG
from penstock.rollout.fleet import PROBED_S, Fleet
from penstock.rollout.kill import KILL
from penstock.rollout.lease import FileLease
from penstock.rollout.opened import Placed
from penstock.rollout.plan import Phase
from penstock.rollout.ports import Stale, TableError
from penstock.rollout.state import IN_FORCE, INTENT, OPENED, Ask, State
from penstock.rollout.table import TrafficTable
from penstock.verdict import Outcome
from tests.people import person
from tests.rollout.carried import (
    POLICY,
    RELEASE,
    START,
    TICK_S,
    FilePlane,
    Now,
    Release,
    Touched,
    answers,
    asks,
)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """A release that was opened and not carried yet."""
    shared = FileLease(tmp_path / "serving")
    made = Release(folder=tmp_path, lease=lambda: shared)
    made.open()
    return made


def shares(release: Release) -> list[tuple[str | None, int]]:
    """Return of every table that was written who got copies, and how many buckets."""
    return [(t.mirror, t.buckets) for t in release.plane().tables()[1:]]


def test_good_evidence_carries_every_user_over(release: Release):
    """Shadow first, then each share, and the challenger's slot answers in the end."""
    state = release.carry()

    assert state.phase is Phase.DONE
    assert shares(release) == [
        ("b", 0), (None, 6), (None, 32), (None, 64), (None, 64), (None, 0),
    ]  # fmt: skip
    last = release.plane().tables()[-1]
    assert (last.champion, last.trickle) == ("b", "a")
    assert release.story().moves == ("STAGING", "SHADOW", "CANARY", "PRODUCTION")


@dataclass
class Refusing(FilePlane):
    """A plane that takes no table while it is told so, and says so at once."""

    refuses: list[bool] = field(default_factory=lambda: [True])

    def apply(self, table: TrafficTable) -> None:
        """Refuse, or take."""
        if self.refuses[0]:
            raise TableError("the role lacks it")
        super().apply(table)


def test_a_plane_that_refuses_costs_one_intent_however_long(release: Release):
    """A step forward that nobody takes waits as it was written; taken at last, it is carried."""
    ledger = release.ledger()
    controller = release.controller(ledger)
    plane = Refusing(release.plane().path)
    controller.plane = plane
    controller.observer = replace(controller.observer, plane=plane)

    for _ in range(5):
        state = controller.tick()
        assert controller.problem == "the role lacks it"
        controller.clock.sleep(TICK_S)
    assert [e.kind for e in ledger.entries("digits")].count(INTENT) == 1
    assert state.pending is not None

    plane.refuses[0] = False
    assert (controller.tick().phase, plane.tables()[-1].mirror) == (Phase.SHADOW, "b")
    ledger.close()


def test_a_first_version_has_every_user_from_its_one_step_on(tmp_path: Path):
    """There is nobody to compare it with; what is told of its share says so too."""
    release = Release(folder=tmp_path, champion=None)
    release.open()

    assert release.carry().phase is Phase.DONE

    ledger = release.ledger()
    intents = [e.body for e in ledger.entries("digits") if e.kind == INTENT]
    ledger.close()
    assert [(i["action"], i["share_percent"]) for i in intents] == [("enter", 0), ("finish", 100)]
    assert {t.slot_for(bucket) for t in release.plane().tables()[1:] for bucket in range(64)} == {
        "b"
    }


def test_harm_that_copies_show_reaches_nobody(release: Release):
    """A failure in shadow ends the release, and archives the version."""
    release.says = lambda _state: Outcome.FAIL
    state = release.carry()

    assert state.phase is Phase.ROLLED_BACK
    assert shares(release) == [("b", 0), (None, 0)]
    assert release.story().stage is Stage.ARCHIVED


def test_a_first_strike_steps_back_and_a_second_ends_it(release: Release):
    """One step lower after the first, the champion after the second; the stage never goes back."""
    release.says = lambda s: Outcome.FAIL if s.step == 2 else Outcome.PASS
    state = release.carry()

    assert (state.phase, state.strikes) == (Phase.ROLLED_BACK, 2)
    assert [b for _, b in shares(release)] == [0, 6, 32, 6, 32, 0]
    assert release.story().moves == ("STAGING", "SHADOW", "CANARY", "ARCHIVED")


def test_every_table_is_written_down_before_and_after(release: Release):
    """The plan comes first; each table has its intent before it and its reading after it."""
    seen: list[str] = []
    release.touch = seen.append
    release.carry()

    ledger = release.ledger()
    mine = [e for e in ledger.entries("digits") if e.body.get("release") == RELEASE]
    ledger.close()
    assert (mine[0].kind, bool(mine[0].body["plan_hash"])) == (OPENED, True)
    intended = [e.body["table"] for e in mine if e.kind == INTENT]
    assert intended == [t.to_dict() for t in release.plane().tables()[1:]]
    tables = [what for what in seen if what in (INTENT, "apply", "wait_applied", IN_FORCE)]
    assert tables == [INTENT, "apply", "wait_applied", IN_FORCE] * len(intended)


def test_only_an_approval_that_binds_opens_the_gate(tmp_path: Path):
    """A version trained on drift waits before its canary; traffic is as before while it does."""
    release = Release(folder=tmp_path, trigger=Trigger.DRIFT)
    release.open()
    with pytest.raises(AssertionError, match="never ended"):
        release.carry(most=10)
    waiting = release.state()
    assert (waiting.phase, waiting.within, waiting.awaited) == (Phase.AWAIT, Phase.SHADOW, 1)
    assert shares(release) == [("b", 0)]

    release.people = answers(granted=True)
    assert release.carry().phase is Phase.DONE


def test_a_refusal_ends_it(tmp_path: Path):
    """Who refuses sends the release home, and is named as the reason."""
    release = Release(folder=tmp_path, trigger=Trigger.DRIFT, people=answers(granted=False))
    release.open()

    state = release.carry()

    assert state.phase is Phase.ROLLED_BACK
    assert "ann refused" in state.reason


def test_a_thrown_switch_ends_the_release_and_leaves_nobody_behind(release: Release):
    """Killed in canary: the table below the switch gives everybody to the champion as well."""

    def throw(made: Release, state: State, _ledger: Ledger) -> None:
        if state.step == 1:
            made.plane().path.with_suffix(".kill").touch()

    release.people = throw
    state = release.carry()

    assert state.phase is Phase.KILLED
    assert "thrown by a test" in state.reason
    assert (release.plane().tables()[-1].champion, shares(release)[-1]) == ("a", (None, 0))


@pytest.mark.parametrize(("version", "ends"), [("2", Phase.KILLED), ("3", Phase.DONE)])
def test_a_switch_that_was_thrown_and_cleared_unseen_ends_the_release(
    release: Release, version: str, ends: Phase
):
    """The ledger alone tells of it; another version's kill is none of this one's."""

    def thrown(_made: Release, state: State, ledger: Ledger) -> None:
        if state.step == 1:
            body = {"id": "k", "killed": [version], "by": "eve", "to": "a", "reason": "unfair"}
            now = datetime.fromisoformat(ledger.entries()[-1].at)
            ledger.append(
                workload="digits", version=None, kind=KILL, body=body, actor=person(), now=now
            )

    release.people = thrown

    state = release.carry()

    assert state.phase is ends
    assert ends is Phase.DONE or "eve sent everybody to slot a: unfair" in state.reason


def test_an_error_is_no_news_to_a_controller_that_was_started_anew(release: Release):
    """However often it is: the time without evidence counts from the step's beginning."""
    ledger, clock = release.ledger(), Now(START)
    release.controller(ledger, clock=clock).tick()
    release.says = lambda _state: Outcome.ERROR
    for _ in range(2):
        clock.sleep(28)
        assert release.controller(ledger, clock=clock).tick().phase is Phase.SHADOW
    clock.sleep(28)

    assert release.controller(ledger, clock=clock).tick().phase is Phase.ROLLED_BACK
    ledger.close()


def test_a_changed_policy_restarts_the_step(release: Release):
    """What was shown under another plan counts for nothing: the step is entered anew."""
    ledger = release.ledger()
    clock = Now(START)
    controller = release.controller(ledger, clock=clock)
    controller.tick()
    clock.sleep(4)
    changed = replace(POLICY, alpha=0.02)
    state = replace_policy(release, changed, ledger, clock).tick()

    assert (state.step, state.n, state.entered_at) == (0, 2, clock.now())
    clock.sleep(4)
    assert replace_policy(release, changed, ledger, clock).tick().n == 2, "before its soak"
    ledger.close()


def replace_policy(release: Release, policy: Any, ledger: Touched, clock: Now) -> Any:
    """Return a controller of another policy, as after an edit and a restart."""
    anew = Release(folder=release.folder, policy=policy, lease=release.lease)
    return anew.controller(ledger, clock=clock)


def test_what_another_wrote_is_restored(release: Release):
    """A table by somebody else is no state of ours: the step's comes back, and it begins anew."""
    ledger, clock = release.ledger(), Now(START)
    controller = release.controller(ledger, clock=clock)
    controller.tick()
    plane = release.plane()
    held = plane.tables()[-1]
    plane.apply(replace(held, sequence=held.sequence + 1, mirror=None))
    clock.sleep(TICK_S)

    state = controller.tick()

    assert plane.tables()[-1] == replace(held, sequence=held.sequence + 2)
    assert (state.step, state.entered_at) == (0, clock.now())
    ledger.close()


def test_a_clock_that_is_set_back_shortens_no_soak(release: Release):
    """Time before the newest entry is as if none had gone by."""
    ledger, clock = release.ledger(), Now(START)
    release.controller(ledger, clock=clock).tick()

    for behind in (timedelta(days=300), timedelta(seconds=1)):
        late = release.controller(ledger, clock=Now(START - behind))
        for _ in range(3):
            assert late.tick().n == 1
            assert late.waits_for == "soak"
            late.clock.sleep(0.3)
    ledger.close()


def forge(database: Path) -> None:
    """Put an entry that nobody signed at the end of a ledger, past the library."""
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    last = dict(connection.execute("SELECT * FROM entries ORDER BY sequence DESC").fetchone())
    made = {
        **last,
        "sequence": last["sequence"] + 1,
        "previous": last["hash"],
        "hash": "0" * 64,
        "kind": "note",
        "origin": None,
        "target": None,
    }
    marks = ", ".join("?" * len(made))
    statement = f"INSERT INTO entries ({', '.join(made)}) VALUES ({marks})"
    connection.execute(statement, list(made.values()))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("step", range(5))
def test_a_ledger_that_breaks_under_way_leaves_no_user_on_the_challenger(
    release: Release, step: int
):
    """At every step: no record is a reason to stop, never one to leave users where they are."""
    broken: list[int] = []

    def people(made: Release, state: State, _ledger: Ledger) -> None:
        if state.step == step and not broken:
            broken.append(step)
            forge(made.folder / "ledger.db")

    release.people = people
    with pytest.raises(LedgerError, match="edited after it was signed"):
        release.carry()

    last = release.plane().tables()[-1]
    assert (last.champion, last.buckets, last.mirror) == ("a", 0, None)


@pytest.mark.parametrize("ask", [Ask.ABORT, Ask.ROLL_BACK])
@pytest.mark.parametrize("step", range(5))
def test_a_person_may_send_everybody_home_at_every_step(release: Release, ask: Ask, step: int):
    """Without approval and without evidence, at the next look."""
    release.people = asks((step, ask))
    state = release.carry()

    assert state.phase is Phase.ROLLED_BACK
    assert "olaf asked" in state.reason
    assert max(b for _, b in shares(release)) == max([0, 6, 32, 64, 64][: step + 1])


def test_a_plane_that_does_not_answer_is_said_and_tried_again(release: Release):
    """A rollback that could not be put in force stays decided, and is done when it can be."""
    ledger, clock = release.ledger(), Now(START)
    release.says = lambda _state: Outcome.FAIL
    controller = release.controller(ledger, clock=clock)
    controller.tick()
    plane: Any = controller.plane
    plane.silent = True

    state = controller.tick()
    assert state.pending is not None
    assert controller.problem == "it does not say what it uses"

    plane.silent = False
    assert controller.tick().phase is Phase.ROLLED_BACK
    assert [e.kind for e in ledger.entries("digits")].count(INTENT) == 2
    ledger.close()


class Overtaking(FilePlane):
    """A plane on which a person throws the switch just before a release is finished."""

    def apply(self, table: TrafficTable) -> None:
        """Throw the switch, and refuse the table that makes the challenger the champion."""
        if table.champion == "b" and not self.killed():
            self.path.with_suffix(".kill").touch()
            raise Stale("somebody wrote a newer one")
        super().apply(table)


def test_a_version_whose_finish_was_cut_short_is_nobodys_champion(release: Release):
    """It had climbed to PRODUCTION; killed, the ledger names the version that serves, and why."""
    plane = Overtaking(release.folder / "tables.json")
    release.plane = lambda: plane  # pyright: ignore[reportAttributeAccessIssue]

    state = release.carry()

    ledger = release.ledger()
    entries = ledger.entries("digits")
    ledger.close()
    assert state.phase is Phase.KILLED
    assert plane.tables()[-1].champion == "a"
    assert branches.champion_in(entries, "all", POLICY) == champion(entries) == 1
    (back,) = [e.body for e in entries if e.kind == branches.BACK]
    assert (back["from"], back["to"], back["reason"]) == (2, 1, "thrown by a test")


def test_wrong_golden_answers_do_not_wait(release: Release):
    """A version that began to answer otherwise than its package says is left at once."""
    ledger, clock = release.ledger(), Now(START)
    said = ["", "slot b gives wrong golden answers"]
    controller = release.controller(ledger, clock=clock)
    controller.observer = replace(controller.observer, wrong=lambda _placed: said.pop(0))
    assert controller.tick().phase is Phase.SHADOW
    clock.sleep(TICK_S)

    state = controller.tick()

    assert (state.phase, state.reason) == (Phase.ROLLED_BACK, "slot b gives wrong golden answers")
    assert said == []
    ledger.close()


@dataclass
class Probed:
    """A plane whose slots say what is told of their golden answers."""

    says: dict[str, str]
    asked: list[str] = field(default_factory=list[str])

    def verify_slot(self, slot: str) -> str:
        """Return what is wrong with a slot's golden answers."""
        self.asked.append(slot)
        return self.says[slot]


def test_a_challenger_is_asked_golden_requests_all_the_time():
    """Every few seconds; a wrong answer is told, and no answer is none."""
    plane: Any = Probed({"a": "slot a answered golden requests with 503", "b": ""})
    now_s = [0.0]
    fleet = Fleet(plane=plane, clock=lambda: now_s[0])
    one, two = (Placed(version=v, digest="", slot=s) for v, s in ((1, "a"), (2, "b")))

    assert fleet.wrong(one) == fleet.wrong(two) == ""
    plane.says["b"] = f"slot b {WRONG}: 0.3 apart"
    assert fleet.wrong(two) == ""
    now_s[0] = PROBED_S
    assert "wrong golden answers" in fleet.wrong(two)
    assert plane.asked == ["a", "b", "b"]
    assert fleet.wrong(replace(two, version=3)), "what was heard of another version is none of it"
    assert plane.asked == ["a", "b", "b", "b"]


def test_an_archived_version_goes_home(release: Release):
    """Whoever archives a version under way ends its release; nothing climbs from the archive."""
    ledger, clock = release.ledger(), Now(START)
    controller = release.controller(ledger, clock=clock)
    controller.tick()
    named: dict[str, Any] = {"workload": "digits", "version": 2, "actor": person()}
    ledger.move(**named, to=Stage.ARCHIVED, reason="t", now=START)
    clock.sleep(TICK_S)

    state = controller.tick()

    assert state.phase is Phase.ROLLED_BACK
    assert "archived" in state.reason
    assert folding.active(Ledger(f"sqlite:///{release.folder / 'ledger.db'}").entries()) == []
    ledger.close()
