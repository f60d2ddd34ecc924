"""Laws of several writers at once: branches, controllers, people, and answers that get lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.annotated import tables_of
from penstock.rollout.adapters.cluster import ClusterPlane
from penstock.rollout.ports import Stale, TableError
from penstock.rollout.table import RULES
from tests.rollout.adapters.stage import Stage, stage, table

CANARY = table(sequence=2, challenger="b", buckets=6, mirror="b")
BACK = table(sequence=3)


@pytest.fixture
def gateway() -> Iterator[Stage]:
    """Return a stage of Gateway API."""
    with stage("gateway") as made:
        yield made


def test_markets_do_not_move_each_other(gateway: Stage):
    """Two branches write at once, each under its own sequence; both are in force in the end."""
    planes = {market: gateway.controller() for market in ("eu", "us", EVERYWHERE)}
    failed: list[TableError] = []

    def climb(market: str, plane: ClusterPlane) -> None:
        try:
            for n in range(1, 8):
                salt = f"{market}-salt"
                plane.apply(table(market=market, sequence=n, challenger="b", buckets=n, salt=salt))
        except TableError as e:
            failed.append(e)

    threads = [threading.Thread(target=climb, args=pair) for pair in planes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for market in {"eu", "us", EVERYWHERE}:
        held = gateway.plane.written(market)
        gateway.put(table(market=market, sequence=9, challenger="b", buckets=9, salt=held.salt))
    assert {gateway.plane.observe(m).buckets for m in ("eu", "us", EVERYWHERE)} == {9}


def test_what_another_branch_has_begun_is_kept(gateway: Stage):
    """A market's table that reached the kill rules alone stays there when another one writes."""
    gateway.fake.edit(gateway.main, {"spec": {"hostnames": ["else.example.com"]}})
    with pytest.raises(Stale, match="restored first"):
        gateway.plane.apply(table(market="eu", sequence=1, challenger="b", buckets=3))

    gateway.put(table(sequence=1, fallback=RULES))

    kept = tables_of(gateway.fake.store.read(gateway.dialect.kill.path))
    assert kept["eu"].buckets == 3
    assert kept[EVERYWHERE].fallback == RULES


def test_of_two_controllers_the_lower_sequence_never_wins(gateway: Stage):
    """Whatever the order of their reads and writes, the last table is the highest one written."""
    one, other = gateway.controller(), gateway.controller()

    def run(plane: ClusterPlane, sequences: list[int]) -> None:
        for n in sequences:
            try:
                plane.apply(table(sequence=n, challenger="b", buckets=n))
            except TableError:
                continue

    threads = [
        threading.Thread(target=run, args=(one, [1, 3, 5, 7, 9])),
        threading.Thread(target=run, args=(other, [2, 4, 6, 8, 10])),
    ]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    while any(thread.is_alive() for thread in threads):
        seen.append(gateway.plane.written(EVERYWHERE).sequence)
    for thread in threads:
        thread.join()

    assert seen == sorted(seen)
    assert gateway.plane.written(EVERYWHERE).sequence >= 9


class Races(RuleBasedStateMachine):
    """Two controllers, a person who edits, and lost answers, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._context = stage("gateway")
        self.stage = self._context.__enter__()
        self.planes = [self.stage.controller(), self.stage.controller()]
        self.highest = 0

    @rule(who=st.integers(0, 1), sequence=st.integers(0, 12), buckets=st.integers(0, 64))
    def write(self, who: int, sequence: int, buckets: int) -> None:
        """A controller writes a table, in time or late."""
        late = False
        try:
            self.planes[who].apply(
                table(sequence=sequence, challenger="b" if buckets else None, buckets=buckets)
            )
        except Stale as e:
            late = "restored first" not in str(e)
        assert not late or sequence <= self.highest

    @rule(buckets=st.integers(1, 63), lost=st.integers(1, 3))
    def lose(self, buckets: int, lost: int) -> None:
        """The answers to the next writes are lost."""
        self.stage.fake.breaks = lost
        with suppress(TableError):
            self.planes[0].apply(table(sequence=self.highest + 1, challenger="b", buckets=buckets))
        self.stage.fake.breaks = 0

    @rule()
    def edit(self) -> None:
        """A person changes what is ours."""
        self.stage.fake.edit(self.stage.main, {"spec": {"hostnames": ["else.example.com"]}})

    @rule()
    def restore(self) -> None:
        """A controller restores what should be, under a new sequence: it always can."""
        held = tables_of(self.stage.fake.store.read(self.stage.main))[EVERYWHERE]
        above = self.stage.plane.written(EVERYWHERE).sequence + 1
        self.planes[1].apply(replace(held, sequence=above))
        assert self.stage.plane.foreign() == ""

    @invariant()
    def the_fence_only_rises(self) -> None:
        """No table of a lower sequence takes the place of a higher one."""
        now = self.stage.plane.written(EVERYWHERE).sequence
        assert now >= self.highest
        self.highest = now

    def teardown(self) -> None:
        self._context.__exit__(None, None, None)


Races.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
TestRaces = Races.TestCase
