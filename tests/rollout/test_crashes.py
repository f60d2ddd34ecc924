"""9 and 10 on whole stories: cut anywhere, a release ends where it would have ended uncut.

A story is a word, each letter one look of a controller at the world after something happened. It is
told once without a crash and once with one at each point of each tick, over a ledger in memory; and
once over the real ledger, cut in every tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import REGISTERED, Ledger, Stage
from penstock.release import Measure, Rollout, Trigger
from penstock.rollout.folding import fold
from penstock.rollout.judgement import Effect
from penstock.rollout.plan import Phase
from penstock.rollout.state import IN_FORCE, Ask, State
from penstock.rollout.table import TrafficTable
from penstock.rollout.tables import Slots
from penstock.verdict import Outcome
from tests.people import person
from tests.rollout import machine_controller, machine_loop
from tests.rollout.machine import START, VERSION, WORKLOAD, World, judged
from tests.rollout.machine_laws import LAWS

POLICY = Rollout(
    canary_percents=(10, 100),
    soak=timedelta(seconds=10),
    deadline=timedelta(seconds=90),
    evidence_timeout=timedelta(seconds=40),
    primary=Measure(name="clicks", source="right", margin=0.01, deviation=0.5),
)
LOOPS: dict[str, Callable[[World, str, str], Iterator[None]]] = {
    "small loop": machine_loop.tick,
    "controller": machine_controller.tick,
}

# p all is well for a soak; f harm; c critical harm; s silence; i nothing sure until the deadline;
# a granted; r refused; u pause; o resume; x abort; k kill; w another table in force
STORIES = {
    "promoted": ("ppppppp", Trigger.MANUAL, Phase.DONE),
    "two strikes": ("pppfppf", Trigger.MANUAL, Phase.ROLLED_BACK),
    "one strike": ("pppfppppp", Trigger.MANUAL, Phase.DONE),
    "critical": ("pppc", Trigger.MANUAL, Phase.ROLLED_BACK),
    "silence": ("ppps", Trigger.MANUAL, Phase.ROLLED_BACK),
    "never sure": ("pppi", Trigger.MANUAL, Phase.ROLLED_BACK),
    "approved": ("ppappppp", Trigger.DRIFT, Phase.DONE),
    "refused": ("ppr", Trigger.DRIFT, Phase.ROLLED_BACK),
    "paused": ("ppuoppppp", Trigger.MANUAL, Phase.DONE),
    "aborted": ("pppx", Trigger.MANUAL, Phase.ROLLED_BACK),
    "killed": ("pppk", Trigger.MANUAL, Phase.KILLED),
    "displaced": ("pppwppppp", Trigger.MANUAL, Phase.DONE),
}


@dataclass
class Cut:
    """Ends a tick at one point; the next one goes on without anything but ledger and plane."""

    loop: Callable[[World, str, str], Iterator[None]]
    at: Callable[[int], bool]
    points: int = 0

    def look(self, world: World) -> None:
        """Look at the world until one tick has come to its end, or to that of its intent."""
        done = in_force(world)
        while in_force(world) == done:
            running: Any = self.loop(world, "all", "one")
            for _ in running:
                self.points += 1
                if self.at(self.points):
                    running.close()
                    break
            else:
                return


def in_force(world: World) -> int:
    """Return how many intents took effect."""
    return sum(e.kind == IN_FORCE for e in world.ledger.entries())


def happens(world: World, what: str) -> None:
    """Let a letter of a story happen."""
    evidence = {
        "p": judged(Outcome.PASS, effect=Effect.BETTER),
        "f": judged(Outcome.FAIL, effect=Effect.WORSE),
        "c": judged(Outcome.FAIL, critical="a wrong golden answer"),
        "i": judged(Outcome.INCONCLUSIVE),
    }
    asks = {"u": Ask.PAUSE, "o": Ask.RESUME, "x": Ask.ABORT}
    world.elapsed += timedelta(seconds={"i": 91, "s": 41}.get(what, 11))
    if what != "s":
        world.tell("all", evidence.get(what, evidence["p"]))
    if what in "ar":
        world.answer("all", granted=what == "a")
    elif what in asks:
        world.ask("all", asks[what])
    elif what == "k":
        world.plane.thrown = "bad answers"
    elif what == "w":
        world.displace("all")


def told(word: str, trigger: Trigger, cut: Cut, world: World | None = None) -> World:
    """Return the world after a story."""
    world = world or World(POLICY, Slots(champion="a", challenger="b"), trigger)
    for what in word:
        happens(world, what)
        cut.look(world)
    return world


def came_to(world: World) -> tuple[State, list[TrafficTable], Stage, str]:
    """Return all that a story came to: state, every table there was, lifecycle."""
    entries = world.ledger.entries()
    kinds = " ".join(e.kind for e in entries if e.kind != "paged")
    state = replace(world.state("all"), last=0)
    return state, world.plane.history["all"], world.stage(), kinds


def never(_point: int) -> bool:
    """Cut nowhere."""
    return False


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", STORIES)
def test_9_cut_at_any_point_a_story_ends_the_same(name: str, loop: str):
    """State, tables, lifecycle and kinds of entries are those of the story that was not cut."""
    word, trigger, end = STORIES[name]
    whole = Cut(LOOPS[loop], never)
    world = told(word, trigger, whole)
    for law in LAWS.values():
        law(world, "all")
    uncut = came_to(world)
    assert uncut[0].phase is end
    assert whole.points > len(word)
    # The longest story everywhere; what the others have of their own is at their ends.
    begin = 1 if name == "one strike" else whole.points - 25
    for at in range(max(1, begin), whole.points + 1):
        cut = Cut(LOOPS[loop], at.__eq__)

        assert came_to(told(word, trigger, cut)) == uncut, f"cut at point {at}"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ["one strike", "two strikes", "killed"])
def test_9_cut_again_and_again_a_story_ends_the_same(name: str, loop: str):
    """However often it is cut, and wherever: each tick begins anew and comes a little further."""
    word, trigger, _ = STORIES[name]
    uncut = came_to(told(word, trigger, Cut(LOOPS[loop], never)))
    for step in (37, 41, 53):
        cut = Cut(LOOPS[loop], lambda point, step=step: point % step == 0)

        assert came_to(told(word, trigger, cut)) == uncut


def intended(world: World, loop: Callable[[World, str, str], Iterator[None]]) -> None:
    """Let a controller die between its intent to enter the canary and everything else."""
    told("p", Trigger.MANUAL, Cut(loop, never), world)
    happens(world, "p")
    running: Any = loop(world, "all", "one")
    while world.state("all").pending is None:
        next(running)
    running.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_9_whoever_is_slow_changes_nothing_that_another_has_done(loop: str):
    """It stops anywhere in a step forward, another takes users back, and the first goes on."""
    tick = LOOPS[loop]
    alone = Cut(tick, never)
    told("pp", Trigger.MANUAL, alone)
    for at in range(1, alone.points + 1):
        world = told("p", Trigger.MANUAL, Cut(tick, never))
        happens(world, "p")
        slow: Any = tick(world, "all", "slow")
        for _ in range(at):
            next(slow, None)
        for what in "pfpx":
            happens(world, what)
            Cut(tick, never).look(world)
        back = world.plane.written("all")
        for _ in slow:
            pass

        assert world.plane.written("all") == back
        assert world.state("all").phase is Phase.ROLLED_BACK
        for law in LAWS.values():
            law(world, "all")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("what", "end"), [("x", 0), ("f", 0), ("s", 0), ("k", 0), ("p", 6)])
def test_5_a_step_that_was_only_intended_is_not_taken_on_old_evidence(
    what: str, end: int, loop: str
):
    """After a crash the evidence, a person and the switch count, not what a dead one intended."""
    world = World(POLICY, Slots(champion="a", challenger="b"), Trigger.MANUAL)
    intended(world, LOOPS[loop])
    happens(world, what)
    Cut(LOOPS[loop], never).look(world)

    assert max(table.buckets for table in world.plane.history["all"]) == end


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", STORIES)
def test_10_every_table_that_was_in_force_follows_from_the_ledger(name: str, loop: str):
    """Replayed entry by entry, the ledger says each table in the order in which they were."""
    word, trigger, _ = STORIES[name]
    world = told(word, trigger, Cut(LOOPS[loop], never))
    entries, tables = world.ledger.entries(), list[TrafficTable]()
    for at, entry in enumerate(entries, start=1):
        if entry.kind == IN_FORCE:
            table = fold(entries[:at], world.release("all")).table
            tables += [table] if table is not None and table not in tables else []
        elif "table" in entry.body and entry.kind != "intent":
            tables.append(TrafficTable.from_dict(entry.body["table"]))

    assert tables == world.plane.history["all"][1:]


def real(path: Path, trigger: Trigger) -> World:
    """Return a world with the real ledger."""
    ledger, actor = Ledger(f"sqlite:///{path}"), person()
    body = {"package": "p2", "digest": "sha256:2", "fingerprint": "f2"}
    named: dict[str, Any] = {"workload": WORKLOAD, "version": VERSION, "actor": actor}
    ledger.append(kind=REGISTERED, body=body, now=START, **named)
    slots = Slots(champion="a", challenger="b")
    return World(POLICY, slots, trigger, ledger=ledger, actor=actor)


@pytest.mark.parametrize("name", ["one strike", "approved", "killed"])
def test_9_on_the_real_ledger_a_story_ends_the_same(name: str, tmp_path: Path):
    """Over SQLite, cut in every tick, the controller comes to what it comes to uncut."""
    word, trigger, end = STORIES[name]
    ends = list[Any]()
    for number, at in enumerate((never, lambda point: point % 41 == 0)):
        world = real(tmp_path / f"{number}.db", trigger)
        told(word, trigger, Cut(machine_controller.tick, at), world)
        ends.append(came_to(world))
        world.ledger.verify()
        world.ledger.close()

    assert ends[0] == ends[1]
    assert ends[0][0].phase is end
