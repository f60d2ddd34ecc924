"""Laws of who carries a release: one at a time, known to a watchdog, by clocks that only go on."""

from __future__ import annotations

import json
import os
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rollout.clock import SteadyClock
from penstock.rollout.lease import FileLease, leases_of
from penstock.rollout.table import SLOTS, TrafficTable
from penstock.rollout.watchdog import Watchdog, asked, exposed, returned
from tests.rollout.carried import RELEASE, START

LATER = timedelta(seconds=29)
MUCH_LATER = timedelta(seconds=31)


class Seconds:
    """A monotonic clock of the test's."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.at


@pytest.fixture
def leases(tmp_path: Path) -> tuple[FileLease, FileLease]:
    """Two controllers' leases in one folder."""
    return FileLease(tmp_path), FileLease(tmp_path)


def died(folder: Path) -> None:
    """Make the lease one whose holder's process has ended."""
    path = next(leases_of(folder).glob("*.json"))
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "start": "another's"}))


def test_one_holds_it_at_a_time(leases: tuple[FileLease, FileLease]):
    """Until it is given back or has expired, nobody else gets it; who lost it is told."""
    one, other = leases
    assert one.acquire(RELEASE, START)
    assert not other.acquire(RELEASE, START + LATER)
    assert one.renew(RELEASE, START + LATER, freeze=False)
    assert not other.renew(RELEASE, START + LATER, freeze=False)

    one.release(RELEASE)
    assert other.acquire(RELEASE, START + LATER)
    assert not one.renew(RELEASE, START + LATER, freeze=False)
    assert one.acquire(RELEASE, START + LATER + MUCH_LATER)
    assert not other.renew(RELEASE, START + LATER + MUCH_LATER, freeze=False)


def test_another_release_has_a_lease_of_its_own(leases: tuple[FileLease, FileLease]):
    """Markets are carried by whoever takes each."""
    one, other = leases
    assert one.acquire("digits/2/us/1", START)
    assert other.acquire("digits/2/eu/1", START)


def test_who_has_ended_holds_nothing(leases: tuple[FileLease, FileLease], tmp_path: Path):
    """The lease of a process that died, or gave up, is free at once."""
    one, other = leases
    one.acquire(RELEASE, START)
    died(tmp_path)
    assert other.acquire(RELEASE, START)

    other.abandon(RELEASE)
    assert one.acquire(RELEASE, START)


def test_a_clock_that_is_behind_takes_no_lease(leases: tuple[FileLease, FileLease]):
    """To who lives in the past it has not expired."""
    one, other = leases
    one.acquire(RELEASE, START)
    assert not other.acquire(RELEASE, START - timedelta(days=1))


def test_what_the_last_holder_said_of_traffic_holds_until_the_next_speaks(
    leases: tuple[FileLease, FileLease], tmp_path: Path
):
    """Taking a lease thaws nothing."""
    one, other = leases
    one.acquire(RELEASE, START)
    one.renew(RELEASE, START, freeze=True)
    died(tmp_path)
    other.acquire(RELEASE, START)
    watchdog = Watchdog(leases=leases_of(tmp_path))
    watchdog.look()
    assert watchdog.carried()
    other.abandon(RELEASE)
    watchdog.look()
    (held,) = watchdog.ended()
    assert held.freeze


def test_the_watchdog_counts_by_its_own_clock(tmp_path: Path):
    """A lease ends when its holder does, or when nothing is written for its time; not before."""
    seconds, own = Seconds(), Seconds()
    lease = FileLease(tmp_path, timeout_s=30, monotonic=own)
    watchdog = Watchdog(leases=leases_of(tmp_path), clock=seconds)
    watchdog.look()
    assert (watchdog.ended(), watchdog.carried()) == ([], False)
    lease.acquire(RELEASE, START)
    for _ in range(5):
        watchdog.look()
        assert watchdog.ended() == []
        seconds.at += 29
        own.at += 29
        # Whatever its holder's clock says: that it was written anew is what counts.
        lease.renew(RELEASE, START - timedelta(days=3), freeze=False)
    watchdog.look()
    seconds.at += 31
    watchdog.look()
    assert [held.release for held in watchdog.ended()] == [RELEASE]

    own.at += 31
    lease.renew(RELEASE, START, freeze=False)
    watchdog.look()
    assert watchdog.ended() == []
    died(tmp_path)
    watchdog.look()
    assert [held.pid for held in watchdog.ended()] == [os.getpid()]


def test_a_torn_lease_is_as_old_as_it_was(tmp_path: Path):
    """What cannot be read renews nothing, and hides nothing."""
    seconds = Seconds()
    FileLease(tmp_path).acquire(RELEASE, START)
    watchdog = Watchdog(leases=leases_of(tmp_path), clock=seconds)
    watchdog.look()
    next(leases_of(tmp_path).glob("*.json")).write_text("{ torn")
    seconds.at += 31
    watchdog.look()
    assert [held.release for held in watchdog.ended()] == [RELEASE]


def test_a_renewal_is_written_when_it_must_be(tmp_path: Path):
    """Often enough for the watchdog, at once when the traffic is to be left, and not more."""
    own = Seconds()
    lease = FileLease(tmp_path, timeout_s=30, monotonic=own)
    lease.acquire(RELEASE, START)
    path = next(leases_of(tmp_path).glob("*.json"))
    before = path.read_text()
    assert lease.renew(RELEASE, START, freeze=False)
    assert path.read_text() == before
    assert lease.renew(RELEASE, START, freeze=True)
    assert json.loads(path.read_text())["freeze"]
    own.at += 3
    kept = path.read_text()
    assert lease.renew(RELEASE, START, freeze=True)
    assert path.read_text() != kept


@given(
    champion=st.sampled_from(SLOTS),
    buckets=st.integers(0, 64),
    shadow=st.booleans(),
    sequence=st.integers(0, 10**6),
)
def test_returned_everybody_is_with_the_champion(
    champion: str, buckets: int, shadow: bool, sequence: int
):
    """Whatever the table was, the next one exposes nobody and needs no other slot."""
    other = "b" if champion == "a" else "a"
    table = TrafficTable(
        sequence=sequence,
        salt="s",
        champion=champion,
        challenger=None if shadow else other,
        buckets=0 if shadow else buckets,
        mirror=other if shadow else None,
        trickle=champion if buckets == 64 and not shadow else None,
    )
    home = returned(table)
    assert exposed(table) == (shadow or buckets > 0)
    assert not exposed(home)
    assert {home.slot_for(bucket) for bucket in range(64)} == {champion} == asked(home)
    assert home.sequence == sequence + 1


@given(
    steps=st.lists(st.floats(0, 1e6), min_size=1, max_size=20),
    jumps=st.lists(st.floats(-1e8, 1e8), min_size=20, max_size=20),
    anchor=st.floats(-1e8, 1e8),
)
def test_time_only_goes_on(steps: list[float], jumps: list[float], anchor: float):
    """However the wall clock jumps, a soak is as long as the monotonic source says, or longer."""
    wall, seconds = [START], Seconds()
    newest = START + timedelta(seconds=anchor)
    clock = SteadyClock(newest, wall=lambda: wall[0], monotonic=seconds)
    begun = last = clock.now()
    assert begun >= newest
    for step, jump in zip(steps, jumps, strict=False):
        seconds.at += step
        wall[0] = START + timedelta(seconds=jump)
        now = clock.now()
        assert now >= last
        last = now
    assert abs((last - begun).total_seconds() - sum(steps)) < 1e-3


def test_how_far_the_ledger_is_ahead_is_known():
    """A wall clock that was set back is behind what the ledger knows, by so much."""
    seconds = Seconds()
    clock = SteadyClock(START + timedelta(hours=1), wall=lambda: START, monotonic=seconds)
    assert clock.ahead_s() == 3600
    assert SteadyClock(None, wall=lambda: START, monotonic=seconds).ahead_s() == 0
    assert SteadyClock(None).now().tzinfo is UTC
