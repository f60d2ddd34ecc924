"""A whole release by the controller, on a fake cluster, from evidence that lies in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.ledger import Ledger, LedgerError, Stage, stage_of
from penstock.release import Trigger
from penstock.rollout import opening
from penstock.rollout.opened import opened_of
from penstock.rollout.ports import TableError
from penstock.rollout.state import INTENT
from penstock.rollout.table import BUCKETS
from penstock.storage.errors import StoreError
from tests.rollout.adapters import published
from tests.rollout.adapters.fakeserver import apply
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


def test_a_package_that_is_gone_keeps_no_other_release_from_being_judged(
    place: World, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """A third version waits whose package nobody can read; the second is judged all the same."""
    one = place.replica(opens=True)
    place.register(3, Stage.STAGING, over=1)
    kept = opening.registered.package_to_serve

    def gone(entries: Any, version: int, **more: Any) -> Any:
        if version == 3:
            raise StoreError("there is no such object")
        return kept(entries, version, **more)

    monkeypatch.setattr(opening.registered, "package_to_serve", gone)
    place.until(one, lambda: place.phase() == "CANARY")
    place.failing = lambda version, copy: version == "2" and not copy
    place.until(one, lambda: place.phase() == "ROLLED_BACK")
    assert one.rounds[0].problem == ""
    said = [e["text"] for e in place.told if e["event"] == "unmoved"]
    assert said.count("there is no such object") == 1


def test_who_says_the_same_as_a_route_stops_steps_and_fills_no_ledger(place: World, ledger: Ledger):
    """Nothing is to be restored, and nothing may be taken: it waits, and goes on when it may."""
    one = place.replica(opens=True)
    place.until(one, lambda: place.phase() == "SHADOW")
    path, store = place.cluster.main, place.cluster.fake.store
    live = store.read(path)
    named = {name: live["metadata"][name] for name in ("name", "namespace")}
    asked = {k: live[k] for k in ("apiVersion", "kind")}
    asked |= {"metadata": named, "spec": {"rules": live["spec"]["rules"]}}
    store.write(path, apply(live, asked, "argocd", force=False, now=store.now()))
    for _ in range(5):
        place.step(one)
    intents = [e for e in ledger.entries("digits") if e.kind == INTENT]
    assert (place.phase(), len(intents)) == ("SHADOW", 2)
    assert any("argocd" in str(e.get("text")) for e in place.told if e["event"] == "unmoved")

    live = store.read(path)
    held = [m for m in live["metadata"]["managedFields"] if m["manager"] != "argocd"]
    store.write(path, live | {"metadata": live["metadata"] | {"managedFields": held}})
    place.until(one, lambda: place.phase() == "CANARY")


def test_without_the_ledger_the_next_leader_gives_everybody_back_too(
    place: World, monkeypatch: pytest.MonkeyPatch
):
    """It has carried nothing yet; what the routes say is enough, before and after it has begun."""
    one, two = place.replica("one", opens=True), place.replica("two")
    place.until(one, lambda: place.phase() == "CANARY")
    assert place.table().buckets > 0
    one.election.give_back()
    two.election.turn()

    def away(*_: object) -> None:
        raise LedgerError("the ledger does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "entries", away)
        two.rounds[0].turn()
    assert "does not answer" in two.rounds[0].problem
    assert (place.table().champion, place.table().buckets) == ("a", 0)
    place.until(two, lambda: place.table().buckets > 0)

    two.rounds[0].close()
    with two.rounds[0].open() as late:
        monkeypatch.setattr(Ledger, "entries", away)
        with pytest.raises(LedgerError):
            late.round()
        assert place.table().buckets == 0
        monkeypatch.undo()


def test_what_was_read_for_a_release_goes_with_it(place: World):
    """And a clock that was put off while nothing goes on is set anew."""
    one = place.replica(opens=True)
    place.until(one, lambda: place.phase() == "CANARY")
    with one.rounds[0].open() as late:
        late.round()
        assert not late.over, "a release goes on"
    place.failing = lambda version, copy: version == "2" and not copy
    place.until(one, lambda: place.phase() == "ROLLED_BACK")
    opened: list[Any] = []
    made = one.rounds[0].open
    one.rounds[0].open = lambda: opened.append(0) or made()  # type: ignore[assignment,func-returns-value]
    place.step(one)
    place.step(one)
    assert len(opened) == 1, "once, behind what it had carried"
    with made() as rested:
        rested.round()
        assert not rested.over
        rested.conductor.clock._begun_s -= 100
        assert rested.over
