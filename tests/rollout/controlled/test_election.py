"""Laws of the election: never two at once, somebody soon; who leads no more writes no more."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.rollout.adapters.election import (
    Election,
    Fenced,
    Led,
    Times,
    lease_ref,
    reachable,
    standing,
)
from penstock.rollout.adapters.kubernetes import Session
from penstock.rollout.adapters.server import Server
from penstock.rollout.ports import TableError
from tests.rollout.adapters.fakeserver import TOKEN, FakeServer, serving
from tests.rollout.controlled.world import LEASE, lease

NOW = datetime(2026, 1, 5, tzinfo=UTC)
TIMES = Times(lease_s=15, renew_s=10, retry_s=2)


class Time:
    """Seconds that a test says; clocks of several machines are off, and go at other rates."""

    def __init__(self) -> None:
        self.s = 0.0

    def of(self, *, ahead_s: float = 0.0, rate: float = 1.0) -> Any:
        return lambda: ahead_s + rate * self.s


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """Return an API server with an empty Lease."""
    with serving() as made:
        made.create(dict(lease()), manager="person")
        yield made


def candidate(fake: FakeServer, time: Time, me: str, **clock: float) -> Election:
    """Return one that leads nothing yet."""
    server = Server(Session.at(fake.url, token=TOKEN), timeout_s=1.0)
    named: dict[str, Any] = {
        "wall": lambda: NOW + timedelta(seconds=time.s),
        "rng": random.Random(1),
        "monotonic": time.of(**clock),
    }
    return Election(server, LEASE, me, times=TIMES, **named)


def held(fake: FakeServer) -> dict[str, Any]:
    """Return what the Lease says."""
    return fake.store.read(LEASE.path).get("spec", {})


def test_the_first_leads_and_the_other_waits(fake: FakeServer):
    """Until the first has not renewed for a whole lease; then it has stopped for long."""
    time = Time()
    one, other = candidate(fake, time, "one"), candidate(fake, time, "other", ahead_s=1e6)

    assert (one.turn(), other.turn()) == (True, False)
    time.s = 9.0
    assert one.leads()
    time.s = 10.0
    assert not one.leads(), "it could not renew, so it acts no more"
    assert not other.turn(), "and nobody does before the lease is over"
    time.s = 15.0
    assert other.turn()
    assert not one.turn()
    assert held(fake)["leaseTransitions"] == 2


def test_a_lease_is_what_kubernetes_takes(fake: FakeServer):
    """By its published schema, held and given back."""
    one = candidate(fake, Time(), "one")
    for act in (one.turn, one.give_back):
        act()
        kubernetes_validate.validate(fake.store.read(LEASE.path), "1.33", strict=True)


def test_given_back_it_is_free_at_once(fake: FakeServer):
    """SIGTERM costs nobody a lease's length; what is another's is not given back."""
    time = Time()
    one, other = candidate(fake, time, "one"), candidate(fake, time, "other")
    one.turn()

    other.give_back()
    assert held(fake)["holderIdentity"] == "one"
    one.give_back()

    assert not one.leads()
    assert other.turn()


def test_what_the_api_server_does_not_answer_is_no_lease(fake: FakeServer):
    """Nobody leads by what it remembers; the reason is said, and over when it is."""
    time = Time()
    one = candidate(fake, time, "one")
    one.turn()
    fake.denied = {"PATCH"}
    time.s = 5.0
    assert one.turn(), "what it has it has"
    assert "denies" in one.problem
    time.s = 11.0
    assert not one.turn()
    fake.denied = set()
    assert (one.turn(), one.problem) == (True, "")
    assert reachable(Server(Session.at(fake.url, token=TOKEN)), LEASE) == ""
    gone = lease_ref("elsewhere")
    assert "manifests" in reachable(Server(Session.at(fake.url, token=TOKEN)), gone)


def test_a_stale_leader_writes_nothing(fake: FakeServer):
    """In the middle of a round: what it asks is answered, what it would change is not sent."""
    time = Time()
    one = candidate(fake, time, "one")
    server = Server(Fenced(Session.at(fake.url, token=TOKEN), one.leads))
    one.turn()
    version = server.get(LEASE)["metadata"]["resourceVersion"]
    time.s = 10.0
    before = len([r for r in fake.requests if r[0] == "PATCH"])

    with pytest.raises(TableError, match="leads no more"):
        server.apply(LEASE, {"spec": {"holderIdentity": "one"}}, version=version)

    assert len([r for r in fake.requests if r[0] == "PATCH"]) == before
    assert server.get(LEASE)["spec"]["holderIdentity"] == "one"


def test_a_release_is_carried_by_who_leads(fake: FakeServer):
    """There is no lease of a release of its own to be lost, left, or cleared up."""
    one = candidate(fake, Time(), "one")
    leases = Led(one.leads)
    assert not leases.acquire("digits/2/all/1", NOW)
    one.turn()
    assert leases.acquire("digits/2/all/1", NOW)
    assert leases.renew("digits/2/all/1", NOW, freeze=False)
    leases.release("digits/2/all/1")
    leases.abandon("digits/2/all/1")
    leases.drop("digits/2/all/1")
    assert (one.leads(), list(leases.known())) == (True, [])


def test_who_stands_gives_back_when_told_to_stop(fake: FakeServer):
    """Its thread renews until then."""
    server = Server(Session.at(fake.url, token=TOKEN))
    quick = Times(lease_s=3, renew_s=2, retry_s=0.01)
    one, stop = Election(server, LEASE, "one", times=quick), threading.Event()
    thread = threading.Thread(target=standing, args=(one, stop))
    thread.start()
    while held(fake).get("holderIdentity") != "one":
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert held(fake)["holderIdentity"] == ""
    assert not one.leads()


@pytest.mark.parametrize(("lease_s", "renew_s", "retry_s"), [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
def test_times_that_would_let_two_lead_are_refused(lease_s: float, renew_s: float, retry_s: float):
    """A holder must have stopped before anybody may begin."""
    with pytest.raises(ValueError, match="was wanted"):
        Times(lease_s=lease_s, renew_s=renew_s, retry_s=retry_s)


class Elections(RuleBasedStateMachine):
    """Candidates with other clocks, lost answers, crashes and pauses, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._context = serving()
        self.fake = self._context.__enter__()
        self.fake.create(dict(lease()), manager="person")
        self.time, self.born = Time(), 0
        self.all = [self._born(), self._born()]

    def _born(self) -> Election:
        self.born += 1
        clock = {"ahead_s": 100.0 * self.born, "rate": (0.9, 1.0, 1.1)[self.born % 3]}
        return candidate(self.fake, self.time, f"c{self.born}", **clock)

    @rule(who=st.integers(0, 1))
    def turn(self, who: int) -> None:
        """One tries."""
        self.all[who].turn()

    @rule(seconds=st.sampled_from([0.5, 2.0, 9.9, 13.0, 17.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by, for whoever is paused too."""
        self.time.s += seconds

    @rule(who=st.integers(0, 1))
    def lose(self, who: int) -> None:
        """The answer to a renewal is lost after it was made."""
        self.fake.breaks = 1
        self.all[who].turn()
        self.fake.breaks = 0

    @rule(who=st.integers(0, 1), politely=st.booleans())
    def end(self, who: int, politely: bool) -> None:
        """One ends, or crashes; another one takes its place."""
        if politely:
            self.all[who].give_back()
        self.all[who] = self._born()

    @precondition(lambda self: not any(one.leads() for one in self.all))
    @rule()
    def soon(self) -> None:
        """Whoever goes on asking leads after a lease's length."""
        for _ in range(3):
            if self.all[0].turn():
                return
            self.time.s += 17.0
        assert self.all[0].turn()

    @invariant()
    def one_at_most(self) -> None:
        """Two never lead at once."""
        assert sum(one.leads() for one in self.all) <= 1

    def teardown(self) -> None:
        self._context.__exit__(None, None, None)


Elections.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestElections = Elections.TestCase


def test_what_nobody_thought_of_does_not_end_who_stands(fake: FakeServer):
    """Its thread would be gone for good, while probes say that all is well."""
    one = candidate(fake, Time(), "one")
    broken = True

    class Odd:
        def get(self, ref: Any) -> Any:
            if broken:
                raise ValueError("a proxy says []")
            return whole.get(ref)

        def apply(self, *given: Any, **named: Any) -> Any:
            return whole.apply(*given, **named)

    whole, one._server = one._server, Odd()  # type: ignore[assignment]
    assert (one.turn(), one.problem) == (False, "ValueError: a proxy says []")
    broken = False
    assert one.turn()
