"""Laws of watching: a foreign change is told once, and nothing is missed for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.annotated import tables_of
from penstock.rollout.adapters.kubernetes import Session
from penstock.rollout.adapters.server import Server
from penstock.rollout.adapters.watch import changes, foreign_changes
from penstock.rollout.table import TrafficTable
from tests.rollout.adapters.fakeserver import TOKEN
from tests.rollout.adapters.stage import Stage, stage, table, wait

CANARY = table(sequence=2, challenger="b", buckets=6, mirror="b")
BACK = table(sequence=3)


@pytest.fixture
def gateway() -> Iterator[Stage]:
    """Return a stage of Gateway API."""
    with stage("gateway") as made:
        yield made


def in_force(made: Stage, table: TrafficTable) -> None:
    """Wait for a table that is there already."""
    made.plane.wait_applied(table, timeout_s=10.0)


def test_a_foreign_change_is_told_as_it_happens(gateway: Stage):
    """Each once, with what and who; our own tables are none."""
    in_force(gateway, table())
    stopped = threading.Event()
    told: list[str] = []
    server = Server(Session.at(gateway.fake.url, token=TOKEN))
    plane = gateway.controller()

    def follow() -> None:
        told.extend(foreign_changes(server, plane, stop=stopped.is_set, seconds=1.0))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        watched = [q for _, _, q in gateway.fake.requests]
        wait(lambda: any("watch" in q for _, _, q in list(gateway.fake.requests)))
        gateway.put(CANARY)
        gateway.fake.edit(gateway.main, {"spec": {"hostnames": ["other.example.com"]}})
        wait(lambda: told)
    finally:
        stopped.set()
        gateway.fake.edit(gateway.main, {"metadata": {"labels": {"last": "event"}}})
        thread.join()

    assert watched
    assert len(told) == 1
    assert "hostnames" in told[0]
    assert "kubectl-edit" in told[0]


def test_a_watch_is_taken_up_where_it_ended_and_read_anew_where_that_is_forgotten(gateway: Stage):
    """Bookmarks move the place on; after 410 the newest state is seen, whatever was missed."""
    in_force(gateway, table())
    server = Server(Session.at(gateway.fake.url, token=TOKEN))
    seen = changes(server, gateway.dialect.main, stop=lambda: False, seconds=1.0)

    assert next(seen) is not None
    gateway.put(replace(CANARY, sequence=1))
    gateway.fake.store.compact()
    anew = next(seen)
    assert anew is not None
    assert tables_of(anew)[EVERYWHERE].sequence == 1

    gateway.put(CANARY)
    following = next(seen)
    assert following is not None
    assert tables_of(following)[EVERYWHERE] == CANARY

    gateway.put(BACK)
    gateway.fake.store.compact()
    while (found := next(seen)) is not None and tables_of(found)[EVERYWHERE] != BACK:
        pass
    assert found is not None

    gateway.fake.store.remove(gateway.main)
    while next(seen) is not None:
        pass
    seen.close()
