"""A whole release by the controller, on a fake cluster, from evidence that lies in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.ledger import Ledger, Stage, stage_of
from penstock.release import Trigger
from penstock.rollout.opened import opened_of
from penstock.rollout.ports import TableError
from penstock.rollout.state import INTENT
from penstock.rollout.table import BUCKETS
from tests.rollout.adapters import published
from tests.rollout.adapters.stage import PLACE
from tests.rollout.controlled.world import World, world

RELEASE = "digits/2/all/1"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world."""
    published.need()
    with world(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def ledger(place: World) -> Iterator[Ledger]:
    """Return its ledger."""
    held = place.ledger()
    yield held
    held.close()


def slot_states(place: World) -> dict[str, tuple[str, str | None]]:
    """Return what each slot does."""
    seen = {slot: place.slots().seen(slot) for slot in ("a", "b")}
    return {slot: (s.state, s.version) for slot, s in seen.items()}


def test_a_release_outlives_the_replica_that_began_it(place: World, ledger: Ledger):
    """Opened unasked, cut off from the API server, killed in canary, finished by another one."""
    one = place.replica("one", opens=True)
    place.until(one, lambda: place.phase() == "SHADOW")
    assert slot_states(place) == {"a": ("ready", "1"), "b": ("ready", "2")}

    place.cluster.fake.denied = {"GET", "PATCH"}
    one.rounds[0].turn()
    assert "denies" in one.rounds[0].problem
    assert "denies" in one.ready()
    assert one.rounds[0].pause_s() > one.rounds[0].every_s, "later each time"
    place.cluster.fake.denied = set()

    place.until(one, lambda: place.phase() == "CANARY")
    assert one.rounds[0].problem == ""
    shown = place.table().buckets
    assert 0 < shown < BUCKETS

    # Killed: it gives nothing back. Users stay with whom they have until another one leads.
    two = place.replica("two")
    two.election.turn()
    two.rounds[0].turn()
    assert (two.election.leads(), place.table().buckets) == (False, shown)
    place.until(two, lambda: place.phase() == "DONE")

    assert (place.table().champion, place.table().trickle) == ("b", "a")
    assert slot_states(place) == {"a": ("ready", "1"), "b": ("ready", "2")}
    entries = ledger.entries("digits")
    assert stage_of(entries, 2) is Stage.PRODUCTION
    assert opened_of(entries, RELEASE).trigger is Trigger.MANUAL
    buckets = [e.body["table"]["buckets"] for e in entries if e.kind == INTENT]
    assert buckets == [0, 16, 32, BUCKETS, BUCKETS, 0]
    found = place.cluster.asked("anybody")
    assert found is not None
    assert found.service == PLACE.service("b")

    # The first one wakes up again, and finds that it may do nothing.
    one.rounds[0].turn()
    assert one.rounds[0].problem == ""
    plane = one.rounds[0].open
    with plane() as late, pytest.raises(TableError, match="leads no more"):
        late.site.stop_slot("a")
    text = two.numbers.text().decode()
    assert 'penstock_controller_rounds_total{outcome="done",workload="digits"}' in text
    assert 'penstock_controller_releases{phase="BAKE",workload="digits"} 0.0' in text


def test_harm_takes_everybody_back_and_the_slot_is_given_up(place: World, ledger: Ledger):
    """What somebody changed by hand is put back first; then users fail, and are back at once."""
    one = place.replica(opens=True)
    place.until(one, lambda: place.phase() == "SHADOW")
    place.cluster.fake.edit(place.cluster.main, {"spec": {"hostnames": ["else.example.com"]}})
    before = place.table().sequence
    place.until(one, lambda: place.table().sequence > before)
    assert place.cluster.plane.foreign() == ""
    acts = [e.body["action"] for e in ledger.entries("digits") if e.kind == INTENT]
    assert "restore" in acts

    place.failing = lambda version, copy: version == "2" and not copy
    place.until(one, lambda: place.phase() == "ROLLED_BACK")

    assert (place.table().champion, place.table().buckets) == ("a", 0)
    assert slot_states(place)["b"] == ("stopped", None)
    assert stage_of(ledger.entries("digits"), 2) is Stage.ARCHIVED

    # At rest nobody's edit stays either, and nothing is done where nothing is to do.
    one.rounds[0].turn()
    place.cluster.fake.edit(place.cluster.main, {"spec": {"hostnames": ["else.example.com"]}})
    assert place.cluster.plane.foreign() != ""
    one.election.turn()
    one.rounds[0].turn()
    assert place.cluster.plane.foreign() == ""
    sequence, written = place.table().sequence, place.cluster.fake.store.version
    one.rounds[0].turn()
    assert (place.table().sequence, place.cluster.fake.store.version) == (sequence, written)


def test_a_thrown_kill_switch_ends_a_release_and_slots_stay(place: World):
    """A person's one command; the controller notes it, and touches neither route nor slot."""
    one = place.replica(opens=True)
    place.until(one, lambda: place.phase() == "SHADOW")
    place.cluster.fake.kubectl(place.cluster.dialect.throw())
    place.cluster.programming.settle()

    place.until(one, lambda: place.phase() == "KILLED")

    assert slot_states(place) == {"a": ("ready", "1"), "b": ("ready", "2")}
    found = place.cluster.asked("anybody")
    assert found is not None
    assert found.arm == "fallback"


def test_a_challenger_with_a_forgotten_pod_is_never_shown_to_anybody(place: World):
    """The release waits in PREPARE until the last replica serves the version."""
    one = place.replica(opens=True)
    place.kserve.forgets = True
    place.until(one, lambda: place.phase() == "PREPARE")
    for _ in range(3):
        place.step(one)
    assert (place.phase(), place.table().mirror) == ("PREPARE", None)
    assert "version 1; slot b serves version 2" in place.slots().seen("b").error

    place.kserve.remember()
    place.until(one, lambda: place.phase() == "SHADOW")
