"""A whole release by the controller, over the adapters and the fake API server's real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import Stage
from penstock.release import EVERYWHERE
from penstock.rollout.adapters.annotated import tables_of
from penstock.rollout.lease import FileLease
from penstock.rollout.plan import Phase
from penstock.rollout.table import RULES, bucket_of
from penstock.verdict import Outcome
from tests.rollout.adapters.stage import PLACE, stage
from tests.rollout.adapters.stage import Stage as Cluster
from tests.rollout.carried import RELEASE, Release, well

USERS = [f"user-{n}" for n in range(60)]


@dataclass(kw_only=True)
class OnCluster(Release):
    """A release whose plane is a cluster's."""

    cluster: Cluster
    shares: list[int] = field(default_factory=list[int])
    """Users of slot b, after each step."""

    def plane(self) -> Any:
        """Return a controller's plane."""
        return self.cluster.controller()


@pytest.fixture(params=["gateway", "istio"])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnCluster]:
    """Return a release that was opened and not carried yet."""
    with stage(request.param, edges=2) as cluster:
        shared = FileLease(tmp_path / "serving")
        made = OnCluster(folder=tmp_path, lease=lambda: shared, cluster=cluster)
        made.open()
        yield made


def at_each_tick(release: OnCluster, then: Callable[[OnCluster], None]) -> None:
    """Let something happen after each tick."""
    release.people = lambda _release, _state, _ledger: then(release)


def on_b(release: OnCluster) -> set[str]:
    """Return the users whom slot b answers at the first edge."""
    found = {user: release.cluster.asked(user) for user in USERS}
    return {user for user, f in found.items() if f and f.service == PLACE.service("b")}


def test_good_evidence_carries_every_user_over(release: OnCluster):
    """By the plan's shares, each user once and for all; in the end the champion is the new slot."""
    seen: list[set[str]] = []
    at_each_tick(release, lambda r: seen.append(on_b(r)))

    state = release.carry()

    assert state.phase is Phase.DONE
    assert all(before <= after for before, after in pairwise(seen))
    assert on_b(release) == set(USERS)
    salted = {u for u in USERS if bucket_of(RELEASE, u) < 6}
    assert salted in seen
    last = tables_of(release.cluster.fake.store.read(release.cluster.main))[EVERYWHERE]
    assert (last.champion, last.trickle, last.buckets) == ("b", "a", 0)
    assert release.cluster.plane.verify(last) == ""


def test_harm_takes_everybody_back(release: OnCluster):
    """Two strikes, and no user is on the challenger; its version is archived."""
    release.says = lambda s: Outcome.FAIL if s.step == 2 else Outcome.PASS

    state = release.carry()

    assert (state.phase, state.strikes) == (Phase.ROLLED_BACK, 2)
    assert on_b(release) == set()
    ledger = release.ledger()
    moves = [e.target for e in ledger.entries("digits") if e.version == 2 and e.target]
    ledger.close()
    assert moves[-1] == Stage.ARCHIVED


def test_a_lost_answer_at_any_write_ends_in_the_same_place(release: OnCluster):
    """Every answer to a write is lost once; the release goes on, and ends as it would have."""
    at_each_tick(release, lambda r: setattr(r.cluster.fake, "breaks", 1))

    assert release.carry(most=200).phase is Phase.DONE
    release.cluster.fake.breaks = 0
    assert on_b(release) == set(USERS)


def test_the_kill_switch_ends_it_and_stays(release: OnCluster):
    """A person's one command; the controller notes it and routes nobody around it."""
    thrown: list[bool] = []

    def throw(held: OnCluster) -> None:
        state = held.state()
        if state.step == 1 and not thrown:
            thrown.append(True)
            held.cluster.fake.kubectl(held.cluster.dialect.throw())
            held.cluster.programming.settle()

    release.says = well
    at_each_tick(release, throw)
    state = release.carry()

    assert state.phase is Phase.KILLED
    assert "WHY" in state.reason
    assert on_b(release) == set()
    assert release.cluster.plane.killed()


def test_the_fallback_of_the_policy_is_what_the_kill_rules_say(release: OnCluster):
    """During the release the kill rules lead to the champion or to the rules, never elsewhere."""
    release.says = lambda s: Outcome.PASS if s.step in (None, 0) else Outcome.INCONCLUSIVE
    release.carry(most=200)
    kill = release.cluster.fake.store.read(release.cluster.dialect.kill.path)

    table = tables_of(kill)[EVERYWHERE]

    assert (table.fallback or table.champion) in ("a", RULES)
