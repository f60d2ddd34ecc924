from tests.rollout.controlled.test_release import *
from penstock.rollout.state import INTENT
from tests.rollout.adapters import fakeserver as fs_
def coown(f, path):
    live = f.store.read(path)
    asked = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": live["metadata"]["name"], "namespace": live["metadata"]["namespace"]}, "spec": {"rules": live["spec"]["rules"]}}
    f.store.write(path, fs_.apply(live, asked, "argocd", force=False, now=f.store.now()))
def test_coowned(place, ledger):
    one = place.replica(opens=True)
    place.until(one, lambda: place.phase() == "SHADOW")
    f = place.cluster.fake
    coown(f, place.cluster.main)
    print([ (m["manager"], list(m["fieldsV1"].get("f:spec",{}))) for m in f.store.read(place.cluster.main)["metadata"]["managedFields"]])
    for _ in range(6):
        place.step(one)
        n = len([e for e in ledger.entries("digits") if e.kind == INTENT])
        print(place.phase(), n, one.rounds[0].problem[:300])
    assert 0
