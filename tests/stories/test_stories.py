"""Whole stories, on real parts: a version's way to its users or back, and who answered them.

The stories share one home, in which one release follows the other as in a real one. Nothing here
looks at the clock: the ledger tells what was done in which order and why, users tell who answered.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.ledger import champion, serving_order
from penstock.release import WhenBusy
from penstock.rollout import kill
from penstock.rollout.lease import leases_of, read
from penstock.rollout.past import PAGED
from penstock.rollout.plan import ENDED, Phase
from penstock.rollout.state import INTENT, OPENED
from penstock.rollout.table import buckets_for
from penstock.stage import Refused
from tests.packages import wait_for
from tests.people import person
from tests.stories.house import (
    COMPLIANCE,
    OPERATOR,
    POLICY,
    House,
    Story,
    answered,
    carrying,
    controller,
)

pytestmark = pytest.mark.timeout(600)

CANARY, HALF, ALL = "canary 25 %", "progressive 50 %", "progressive 100 %"
FORWARD = ["shadow", CANARY, HALF, ALL, "bake"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One home, whose version 1 answers everybody."""
    made = House(path=tmp_path_factory.mktemp("stories"))
    try:
        made.begin()
        yield made
    finally:
        made.end()


def entered(story: Story) -> list[str | None]:
    """Return the steps that were entered, in order."""
    return [step for act, step in story.way if act == "enter"]


def in_canary(story: Story) -> bool:
    """Return whether users are on the challenger for the first time."""
    return story.state.phase is Phase.CANARY


def test_a_worse_version_and_one_that_fails_at_half_the_users(house: House):
    """The first never gets further than its canary; the second waits for it, and strikes twice.

    One ranks wrongly. The other, queued behind it, fails requests when it has many of them: at half
    of the users, again at half of them, and then nobody is on it any more.
    """
    policy = replace(POLICY, when_busy=WhenBusy.QUEUE)
    with house.conducted(policy) as conductor, house.users():
        worse = house.story(house.release(conductor, fault="ranking:share=0.9"))
        house.carry(conductor, lambda: in_canary(worse))
        assert conductor.open(house.wish(fault="errors:share=0.2,above=46")) is None
        house.carry(conductor, lambda: len(house.releases()) > 1)
        failing = house.story(house.releases()[-1])
        house.carry(conductor)

        assert worse.state.phase is Phase.ROLLED_BACK, str(worse)
        assert set(entered(worse)) == {"shadow", CANARY}, str(worse)
        assert any("clicks" in e.body["why"] for e in worse.strikes), str(worse)
        assert failing.entries[0].body["queued"], str(failing)
        assert failing.entries[0].sequence > worse.entries[-1].sequence
        assert twice_at_half(failing), str(failing)
    assert set(answered(house.saw())) <= {"1", worse.version, failing.version}
    reached = {worse.bucket(s["user"]) for s in house.saw() if s["version"] == worse.version}
    assert max(reached) < buckets_for(25)
    assert house.plane.observe().buckets == 0
    assert champion(house.entries()) == 1


def twice_at_half(story: Story) -> bool:
    """Return whether a release struck at half of the users, came back there, and went home."""
    way = [
        ("enter", "shadow"), ("enter", CANARY), ("enter", HALF), ("step back", CANARY),
        ("enter", HALF), ("roll back", None),
    ]  # fmt: skip
    failing = [
        row for e in story.strikes for row in e.body["rows"] if row["name"] == "failing users"
    ]
    return (
        story.way == way
        and story.state.strikes == 2
        and not any(e.body["critical"] for e in story.strikes)
        and all("failing users" in e.body["why"] for e in story.strikes)
        and all(row["estimate"] < POLICY.critical_error_share for row in failing)
    )


def test_one_that_is_slow_on_phones_is_caught_by_its_slice(house: House):
    """Few users have one, so that all together it is tolerable; the verdict names the slice."""
    policy = replace(POLICY, canary_percents=(30, 100), min_users=40)
    with house.conducted(policy) as conductor, house.users():
        fault = "latency:where=mobile=1,delay_ms=1500"
        story = house.story(house.release(conductor, fault=fault))
        house.carry(conductor)

        assert story.state.phase is Phase.ROLLED_BACK, str(story)
        assert set(entered(story)) == {"shadow", "canary 30 %"}, str(story)
        strike = story.strikes[0].body
        failed = [row["reason"] for row in strike["rows"] if row["outcome"] == "fail"]
        assert failed, str(story)
        assert all(reason.startswith("mobile: ") for reason in failed), str(story)
        named = [part["name"] for part in strike["segments"] if part["outcome"] == "fail"]
        assert named == ["mobile"]
    assert set(answered(house.saw())) == {"1", story.version}


@pytest.mark.parametrize("ends", ["users", "log"])
def test_without_evidence_everybody_goes_back(house: House, ends: str):
    """Users stay away, or the challenger's log ends: it waits, calls people, and fails safe."""
    policy = replace(POLICY, evidence_timeout=timedelta(seconds=8))
    with house.conducted(policy) as conductor:
        with house.users():
            story = house.story(house.release(conductor))
            house.carry(conductor, lambda: in_canary(story) and seen_some(story))
            slot = story.entries[0].body["challenger"]["slot"]
            if ends == "log":
                with without(house, slot):
                    house.carry(conductor)
                    since = time.time()
                    house.users_come(100)
        house.carry(conductor)

        assert story.state.phase is Phase.ROLLED_BACK, str(story)
        assert entered(story) == ["shadow", CANARY], str(story)
        assert not story.strikes
        assert "no evidence for" in story.state.reason
        kinds = [e.kind for e in story.entries]
        assert PAGED in kinds, str(story)
        assert [e.body["cause"] for e in story.entries if e.kind == PAGED] == ["evidence"]
    table = house.plane.observe()
    assert (table.buckets, table.mirror) == (0, None)
    if ends == "log":
        assert set(answered(house.saw(since=since))) == {"1"}


def seen_some(story: Story) -> bool:
    """Return whether the challenger has answered users of the step in force."""
    return any(s["version"] == story.version for s in story.house.saw())


@contextmanager
def without(house: House, slot: str) -> Iterator[None]:
    """Take a slot's log folder away; its server goes on, and nobody reads what it writes."""
    there = house.plane.log_folder(slot)
    away = there.with_name(f"{slot}-away")
    there.rename(away)
    try:
        yield
    finally:
        if there.exists():
            shutil.rmtree(away)
        else:
            away.rename(there)


def test_the_champion_dies_in_mid_canary(house: House):
    """Killed again and again it is brought back; nobody moves on, and nobody is blamed for it."""
    with house.conducted() as conductor, house.users():
        story = house.story(house.release(conductor))
        house.carry(conductor, lambda: in_canary(story) and seen_some(story))
        slot = story.entries[0].body["champion"]["slot"]
        since, killed = time.time(), set[int]()

        def killed_thrice() -> bool:
            """Kill it as soon as it is started again, before it can answer anybody."""
            pid = house.plane.status()["slots"][slot]["pid"]
            if pid is not None and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            return len(killed) >= 3

        house.carry(conductor, killed_thrice)
        assert in_canary(story), str(story)
        until = time.time()
        house.carry(conductor, lambda: HALF in entered(story))

        assert entered(story) == ["shadow", CANARY, HALF], str(story)
        assert story.state.strikes == 0
        assert champion(house.entries()) == 1
        canary = [look for look in story.looks if look["step"] == CANARY]
        assert not all(look["standby_ready"] for look in canary)
        assert canary[-1]["act"] == "enter"
        assert canary[-1]["standby_ready"]
        seen = [s for s in house.saw(since=since) if s["at"] < until]
    own = buckets_for(25)
    mine = [s for s in seen if story.bucket(s["user"]) < own]
    others = [s for s in seen if story.bucket(s["user"]) >= own]
    assert set(answered(mine)) == {story.version}
    assert "1" in answered(others)
    assert story.version not in answered(others)


def test_the_kill_switch_during_progressive(house: House):
    """From the next request on nobody reaches the version, until a person clears it, and after."""
    with house.conducted() as conductor, house.users():
        story = house.story(house.release(conductor))
        house.carry(conductor, lambda: story.state.phase is Phase.PROGRESSIVE)
        kill.throw(house.path, person(OPERATOR), reason="unfair", now=datetime.now(UTC))
        wait_for(lambda: house.plane.switch_in_force() is not None, 10)
        since = time.time()
        house.carry(conductor)

        assert story.state.phase is Phase.KILLED, str(story)
        assert "unfair" in story.state.reason
        before = [e.sequence for e in house.entries()]
        for _ in range(5):
            conductor.round()
        assert [e.sequence for e in house.entries()] == before
        assert house.plane.killed()
        named: dict[str, Any] = {
            "workload": "streamrec",
            "reason": "it was",
            "now": datetime.now(UTC),
        }
        kill.clear(house.path, house.ledger, person(COMPLIANCE), **named)
        wait_for(lambda: house.plane.switch_in_force() is None, 10)
        house.users_come(100)
        conductor.tidy()
    assert set(answered(house.saw(since=since))) == {"1"}
    kinds = [e.kind for e in house.entries() if e.kind in (kill.KILL, kill.CLEARED)]
    assert kinds == [kill.KILL, kill.CLEARED]
    assert champion(house.entries()) == 1


def frozen(house: House, story: Story) -> bool:
    """Return whether whoever carries a release has said that its users stay where they are."""
    name = f"{story.release.replace('/', '-')}.json"
    held = read(leases_of(house.path / "serving") / name)
    return held is not None and held.freeze


def test_the_controller_dies_in_mid_step(house: House):
    """Killed in canary, its users go home; at half, they stay. The next one ends where it would."""
    with carrying(house.path, house.ledger, POLICY) as made, house.users():
        story = house.story(house.release(made))
        with controller(house, POLICY) as process:
            wait_for(lambda: in_canary(story) and seen_some(story), 200)
            process.kill()
            wait_for(lambda: house.plane.observe().buckets == 0, 20)
            since = time.time()
            before = [e.sequence for e in story.entries]
            house.users_come(100)
            assert set(answered(house.saw(since=since))) == {"1"}
            assert [e.sequence for e in story.entries] == before
        with controller(house, POLICY) as process:
            wait_for(lambda: HALF in entered(story) and frozen(house, story), 200)
            process.kill()
            process.wait()
            since = time.time()
            house.users_come(200)
            assert set(answered(house.saw(since=since))) == {"1", story.version}
            assert house.plane.observe() == story.state.table
        with controller(house, POLICY) as process:
            wait_for(lambda: story.state.phase in ENDED, 200)
            assert process.wait(20) == 0

        assert story.state.phase is Phase.DONE, str(story)
        assert list(dict.fromkeys(entered(story))) == FORWARD, str(story)
        assert not story.strikes
        assert story.moves == ["STAGING", "SHADOW", "CANARY", "PRODUCTION"]
    assert set(answered(house.saw())) == {"1", story.version}


def test_a_good_version_is_promoted(house: House):
    """Every step in order, no user without an answer; the version before stands by, warm.

    Another release that is asked for meanwhile is refused, and nothing of it is begun.
    """
    with house.conducted() as conductor, house.users():
        story = house.story(house.release(conductor))
        house.carry(conductor, lambda: in_canary(story))
        second = house.wish()
        with pytest.raises(Refused, match=f"release {story.release} goes on, in CANARY"):
            conductor.open(second)
        house.carry(conductor)
        old, new = story.entries[0].body["champion"], story.entries[0].body["challenger"]

        assert story.state.phase is Phase.DONE, str(story)
        assert [step for _, step in story.way] == [*FORWARD, None]
        assert story.way[-1][0] == "finish"
        assert story.moves == ["STAGING", "SHADOW", "CANARY", "PRODUCTION"]
        table = house.plane.observe()
        assert (table.champion, table.trickle) == (new["slot"], old["slot"])
        assert house.plane.verify_slot(old["slot"]) == ""
    assert set(answered(house.saw())) == {str(old["version"]), story.version}, str(story)
    assert serving_order(house.entries())[:2] == [new["version"], old["version"]]
    opened = [e.version for e in house.entries() if e.kind in (OPENED, INTENT)]
    assert second.version not in opened
