"""Laws of slots in a cluster: whose fields, and when a slot is ready: when each of its pods is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.rollout.adapters.assigned import DIGEST, SILENT_S, STOP, VERSION, Slots
from penstock.rollout.adapters.first import first_objects
from penstock.rollout.adapters.replicas import Replica, golden, other_than
from penstock.rollout.adapters.server import MANAGER, Missing
from penstock.rollout.adapters.site import Site
from penstock.rollout.fleet import Fleet
from penstock.rollout.ports import TableError
from penstock.rollout.servers import SlotFailed
from tests.rollout.adapters import published
from tests.rollout.adapters.fakestore import path_of
from tests.rollout.controlled.kserve import Pod, endpoints
from tests.rollout.controlled.world import World, world


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world."""
    published.need()
    with world(tmp_path, monkeypatch) as made:
        yield made


def assign(place: World, slots: Slots, slot: str = "b", version: int = 2) -> None:
    """Let a slot serve a version's package."""
    uri = place.uri(version)
    digest = place.packages[uri].digest
    slots.assign(slot, uri=uri, digest=digest, version=str(version))


def site(place: World, slots: Slots) -> Site:
    """Return tables and slots."""
    return Site(
        slots.server,
        place.cluster.dialect,
        slots,
        home=place.folder,
        packages=lambda version: place.packages[place.uri(version)],
        rules=True,
        sleep=lambda _seconds: None,
    )


def test_a_slot_serves_what_it_was_told_and_nothing_else_of_it_changes(place: World):
    """Five fields are ours, whoever made the rest; the object is what its schema allows."""
    slots = place.slots()
    path = slots.ref("b").path
    place.cluster.fake.edit(path, {"spec": {"predictor": {"model": {"runtime": "theirs"}}}})

    assign(place, slots)

    found = place.cluster.fake.store.read(path)
    predictor = found["spec"]["predictor"]
    assert predictor["model"] == {"runtime": "theirs", "storageUri": place.uri(2)}
    assert predictor["minReplicas"] == 2
    said = found["metadata"]["annotations"]
    assert (said[VERSION], said[STOP]) == ("2", "false")
    assert said[DIGEST] == place.packages[place.uri(2)].digest
    assert published.wrong({k: v for k, v in found.items() if k != "status"}) == []
    assert slots.seen("b").state == "ready"
    queries = [q for m, p, q in place.cluster.fake.requests if m == "PATCH" and p == path]
    assert {q["fieldManager"] for q in queries} == {MANAGER}
    assert all(q.get("force", "false") == "false" for q in queries)


def test_what_the_api_server_does_not_know_is_refused(place: World):
    """Strict: a misspelt field is no field that is passed over in silence."""
    slots = place.slots()
    found = slots.server.get(slots.ref("b"))
    with pytest.raises(TableError, match="minReplica"):
        slots.server.apply(
            slots.ref("b"),
            {"spec": {"predictor": {"minReplica": 1}}},
            version=found["metadata"]["resourceVersion"],
        )


def test_a_slot_is_taken_over_from_who_said_so_before(place: World):
    """Another tool that holds the version loses it, and keeps what is its own."""
    slots = place.slots()
    path = slots.ref("b").path
    changed = {"metadata": {"annotations": {STOP: "true", VERSION: "9", "theirs": "1"}}}
    place.cluster.fake.edit(path, changed, manager="argocd")

    assign(place, slots)

    said = place.cluster.fake.store.read(path)["metadata"]["annotations"]
    assert (said[STOP], said[VERSION], said["theirs"]) == ("false", "2", "1")


def test_a_stopped_slot_serves_nothing_and_remembers(place: World):
    """Its pods are gone; what it served is still written on it, and is no version of now."""
    slots = place.slots()
    assign(place, slots)
    assert len(place.kserve.pods["b"]) == 2

    slots.stop("b")

    assert place.kserve.pods["b"] == []
    assert (slots.seen("b").state, slots.seen("b").version) == ("stopped", None)
    held = place.cluster.fake.store.read(slots.ref("b").path)
    assert held["metadata"]["annotations"][VERSION] == "2"
    assign(place, slots)
    assert slots.seen("b").state == "ready"


def test_one_pod_of_another_version_and_the_slot_is_not_ready(place: World):
    """Seven servers of eight were updated once; here each is asked, by its own address."""
    slots = place.slots()
    assign(place, slots)
    old = Pod(slot="b", version="1", bundle=None)
    place.kserve.replace("b", [*place.kserve.pods["b"], old])

    seen = slots.seen("b")

    assert seen.state == "starting"
    assert "answers as slot b, version 1; slot b serves version 2" in seen.error
    place.kserve.replace("b", place.kserve.pods["b"][:2])
    assert slots.seen("b").state == "ready"


def test_behind_a_transformer_each_predictor_is_asked_too(place: World):
    """A transformer asks one predictor at a time, so what it says is of that one."""
    both = replace(place.slots(), place=replace(place.cluster.place, suffix="-transformer"))
    assign(place, place.slots())
    assert "no pod" in both.seen("b").error, "the transformers are who must be there"
    front = Pod(slot="b", version="2", bundle=None)
    made = endpoints("digits-b-transformer", 0, [front])
    place.cluster.fake.store.write(path_of(made), made)
    assert both.seen("b").state == "ready"

    place.kserve.pods["b"][1].version = "1"

    assert "version 1" in both.seen("b").error
    front.end()


def test_a_pod_that_does_not_answer_is_no_pod_that_is_right():
    """Nothing said is not a yes, and no pod at all is none that is wrong."""
    right = Replica(url="http://x", slot="b", version="2")
    assert other_than([right, right], "b", "2") == ""
    assert "does not answer" in other_than(
        [right, replace(right, problem="does not answer")], "b", "2"
    )
    assert "no pod" in other_than([], "b", "2")
    assert "unknown" in other_than([replace(right, version="")], "b", "2")
    assert "slot a" in other_than([replace(right, slot="a")], "b", "2")


def test_ready_is_said_of_the_generation_that_was_asked_for(place: World):
    """Until KServe has seen a change, what it says is of the version before."""
    slots = place.slots()
    place.kserve.stuck = True
    assign(place, slots)
    assert slots.seen("b").state == "starting"
    place.kserve.stuck = False
    path = slots.ref("b").path
    pods = [Pod(slot="b", version="2", bundle=None) for _ in range(2)]
    place.kserve.replace("b", pods)

    seen = slots.seen("b")
    assert (seen.state, "generation" in seen.error) == ("starting", True)

    place.kserve.reconcile(path, place.cluster.fake.store.read(path))
    assert slots.seen("b").state == "ready"


def test_a_pod_less_is_no_reason_to_call_a_slot_that_was_ready_unready(place: World):
    """A node is drained: KServe says unready, the pod that is left answers right."""
    slots = place.slots()
    assign(place, slots)
    assert slots.seen("b").state == "ready"
    place.kserve.replace("b", place.kserve.pods["b"][:1])
    path = slots.ref("b").path
    status = place.cluster.fake.store.read(path)["status"]
    status["conditions"][0] |= {"status": "False", "reason": "MinimumReplicasUnavailable"}
    place.cluster.fake.say(path, status)

    assert slots.seen("b").state == "ready"
    assert place.slots().seen("b").state == "starting", "who never saw it ready takes KServe's word"


def test_a_package_with_another_digest_fails_in_the_end(place: World):
    """Not at once, as a store may be slow; then its own words are the reason."""
    now = [0.0]
    slots = replace(place.slots(), monotonic=lambda: now[0], patience_s=60.0)
    slots.assign("b", uri=place.uri(2), digest="sha256:other", version="2")

    assert slots.seen("b").state == "starting"
    now[0] = 61.0
    seen = slots.seen("b")
    assert (seen.state, seen.error) == ("failed", "ModelLoadFailed: another digest")
    with pytest.raises(SlotFailed, match="refused to serve: ModelLoadFailed"):
        site(place, slots).wait_ready("b", version="2", timeout_s=1.0)


def test_golden_answers_are_asked_of_every_pod(place: World):
    """One that answers otherwise than the package says is found, whichever it is."""
    slots = place.slots()
    assign(place, slots)
    both = site(place, slots)
    assert both.verify_slot("b") == ""
    assert "serves nothing" in both.verify_slot("a")

    place.kserve.pods["b"][1].wrong = True

    assert "gives wrong golden answers" in both.verify_slot("b")
    assert "no pod" in golden((), "b", place.packages[place.uri(2)], "digits")


def test_what_no_pod_could_fetch_is_refused_before_anything_changes(place: World):
    """A folder of one machine, a deliberate fault, a slot under the kill switch."""
    both = site(place, place.slots())
    said = {"digest": "sha256:1", "version": "2"}
    with pytest.raises(TableError, match="PENSTOCK_PACKAGES"):
        both.set_slot("b", package="/somewhere", **said)
    with pytest.raises(TableError, match="one machine"):
        both.set_slot("b", package=place.uri(2), fault={"kind": "latency"}, **said)
    place.cluster.fake.kubectl(place.cluster.dialect.throw())
    with pytest.raises(TableError, match="kill switch"):
        both.set_slot("b", package=place.uri(2), **said)
    assert VERSION not in place.cluster.fake.store.read(place.slots().ref("b").path)[
        "metadata"
    ].get("annotations", {})


def test_the_rules_get_a_slot_of_their_own_where_the_policy_falls_back_on_them(place: World):
    """With the first package that is served; it is not looked for where nobody made it."""
    slots = place.slots()
    uri = place.uri(2)
    said = {"package": uri, "digest": place.packages[uri].digest, "version": "2"}
    with pytest.raises(Missing, match="digits-rules is not there"):
        site(place, slots).set_slot("b", **said)
    made = first_objects(place.where, rules=True)[-1]
    place.cluster.fake.create(made | {"spec": {"predictor": {"model": {}}}})

    site(place, slots).set_slot("b", **said)

    assert slots.seen("rules").version == "rules"


def test_the_first_objects_start_nothing_and_hold_what_is_ours(place: World):
    """Everybody on slot a, every slot stopped; each is what its schema allows."""
    made = first_objects(place.where, rules=True)

    assert [m["kind"] for m in made] == ["HTTPRoute", "EnvoyFilter", "HTTPRoute"] + [
        "InferenceService"
    ] * 3
    assert [m["metadata"]["annotations"] for m in made[3:]] == [{STOP: "true"}] * 3
    assert [published.wrong(m) for m in made] == [[]] * 6


def test_a_pod_that_ends_is_no_reason_to_call_a_slot_unready_at_once(place: World):
    """It is in the EndpointSlice a little longer than it answers; a silent one for long counts."""
    now = [0.0]
    slots = replace(place.slots(), monotonic=lambda: now[0])
    assign(place, slots)
    assert slots.seen("b").state == "ready"
    one, other = place.kserve.pods["b"]
    one.end()
    assert slots.seen("b").state == "ready"
    now[0] = SILENT_S + 1
    seen = slots.seen("b")
    assert (seen.state, "does not answer" in seen.error) == ("starting", True)
    assert place.slots().seen("b").state == "starting", "who never saw it ready gives no time"
    other.end()
    now[0] = 0.0
    assert slots.seen("b").state == "starting", "nobody is left"
    place.kserve.pods["b"] = []


def test_a_version_that_somebody_wrote_by_hand_is_none(place: World):
    """It stops no round: the slot is simply no longer what a release needs."""
    slots = place.slots()
    assign(place, slots)
    path = slots.ref("b").path
    place.cluster.fake.edit(path, {"metadata": {"annotations": {VERSION: "v2"}}})
    seen = slots.seen("b")
    assert (seen.state, seen.version, "'v2'" in seen.error) == ("starting", None, True)
    both = site(place, slots)
    assert Fleet(plane=both).serving() == {"a": None, "b": None}
    assert both.verify_slot("b") == "slot b serves nothing"
