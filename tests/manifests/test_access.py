"""The controller may do what its code does, and nothing else: both are compared one by one."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.release import EVERYWHERE
from penstock.rollout.adapters import replicas
from penstock.rollout.adapters.assigned import Slots
from penstock.rollout.adapters.cluster import ClusterPlane
from penstock.rollout.adapters.election import Election, lease_ref
from penstock.rollout.adapters.first import FIRST, first_objects
from penstock.rollout.adapters.granted import CONTROLLER, roles
from penstock.rollout.adapters.places import Where, read
from penstock.rollout.adapters.server import Server
from penstock.rollout.adapters.watch import changes
from penstock.rollout.ports import TableError
from penstock.rollout.table import RULES, SLOTS
from penstock.workload import load
from tests.manifests.authorizer import Asked, Asking, granted
from tests.manifests.built import MANIFESTS, needs_kubectl, objects

GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "edge", "namespace": "gateways"},
}
LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "penstock-controller", "namespace": "penstock"},
}


def place(workload: str, tmp_path: Path, **said: str) -> Where:
    """Return a workload's place, as it is committed or with other words."""
    text = (MANIFESTS / "workloads" / workload / f"{workload}.toml").read_text(encoding="utf-8")
    # A name is nothing that this test looks up; nobody listens here.
    text = text.replace("dns:http://edge-replicas.gateways.svc:80", "http://127.0.0.1:1")
    lines = [text, *(f"{key} = {value}" for key, value in said.items())]
    assert not set(said) & set(tomllib.loads(text)["workloads"][workload])
    (tmp_path / "place.toml").write_text("\n".join(lines), encoding="utf-8")
    return read(tmp_path / "place.toml")[workload]


def carried(where: Where, *, rules: bool) -> Asking:
    """Let the controller's parts do all they ever do of the API server, and return what they asked.

    That tables are not accepted by a gateway that is not there, and pods not ready, is no matter:
    they ask all the same.
    """
    asking = Asking()
    for one in copy.deepcopy([GATEWAY, LEASE, *first_objects(where, rules=rules)]):
        asking.keep(one)
    server, dialect = Server(asking), where.made()
    plane = ClusterPlane(server, dialect)
    shadow = replace(FIRST, sequence=1, salt="s", challenger="b", mirror="b")
    canary = replace(shadow, sequence=2, buckets=6, mirror=None)
    finished = replace(FIRST, sequence=3, salt="s", champion="b")
    for table in (shadow, canary, finished):
        plane.apply(table)
    with pytest.raises(TableError):
        plane.observe(EVERYWHERE)
    plane.killed()
    plane.foreign()
    _slots(server, where, rules=rules)
    assert len([*changes(server, dialect.main, stop=_second())]) == 1
    election = Election(server, lease_ref("penstock"), "me")
    assert election.turn(), election.problem
    election.give_back()
    return asking


def _slots(server: Server, where: Where, *, rules: bool) -> None:
    slots = Slots(server=server, place=where.place, replicas=where.replicas)
    for slot in [*SLOTS, RULES] if rules else SLOTS:
        slots.assign(slot, uri="s3://penstock/packages/1", digest="sha256:1", version="1")
        slots.seen(slot)
        slots.stop(slot)
        replicas.addresses(server, where.place, slot)


def _second() -> Any:
    """Return what says stop the second time that it is asked."""
    said = iter([False, True])
    return lambda: next(said, True)


@needs_kubectl
def test_the_controller_may_do_exactly_what_it_does(tmp_path: Path):
    """Of all workloads of the larger overlay.

    What it asks and may not is an outage; what it may and never asks is somebody else's way in.
    """
    used: set[Asked] = set()
    for name in ("digits", "streamrec", "credit"):
        used |= carried(place(name, tmp_path), rules=name == "credit").asked

    # Of a route's two objects one is watched, and a rule holds both by kind.
    held = granted(objects("gpu"), CONTROLLER)
    spare = {one for one in held if one[3].endswith("-kill") and one[4] == "watch"}
    assert used == held - spare


@pytest.mark.parametrize(
    "said",
    [
        {"assigner": '"none"'},
        {"dialect": '"istio"', "gateway_labels": '{istio = "ingressgateway"}'},
    ],
    ids=["another assigner", "istio"],
)
def test_each_dialect_has_its_own_role(tmp_path: Path, said: dict[str, str]):
    """Without our assigner no filter is written, with Istio no Gateway is read."""
    where = place("digits", tmp_path, **said)
    held = roles(where, rules=False)

    used = carried(where, rules=False).asked

    mine = {one for one in used if one[2] not in ("leases", "endpointslices")}
    spare = {one for one in granted(held, CONTROLLER) if one[4] == "watch"}
    assert mine - spare == granted(held, CONTROLLER) - spare
    assert mine <= granted(held, CONTROLLER)


@needs_kubectl
@pytest.mark.parametrize("lost", ["penstock-release-digits", "penstock-endpoints", CONTROLLER])
def test_a_role_that_lacks_something_is_seen(tmp_path: Path, lost: str):
    """The comparison says so for each of the three roles."""
    found = [o for o in objects("gpu") if o["metadata"]["name"] != lost or o["kind"] != "Role"]

    assert not carried(place("digits", tmp_path), rules=False).asked <= granted(found, CONTROLLER)


@needs_kubectl
@pytest.mark.parametrize("account", ["penstock-serving", "penstock-watch"])
def test_who_serves_and_who_watches_ask_no_api_server(account: str):
    """What the watch may, Kubeflow Pipelines asks of itself; its pod has no token for the rest."""
    groups = {one[1] for one in granted(objects("gpu"), account)}

    assert groups <= {"pipelines.kubeflow.org"}


@needs_kubectl
def test_a_step_may_only_what_kubeflow_does_beside_it():
    """No secret but the store's that Kubeflow made, nothing of releases or models."""
    held = granted(objects("gpu"), "penstock-pipeline")

    assert {one[0] for one in held} == {"penstock"}
    assert {one[2:4] for one in held if one[1] == ""} == {
        ("pods", ""), ("configmaps", "kfp-launcher"), ("secrets", "mlpipeline-minio-artifact"),
    }  # fmt: skip
    assert {one[1] for one in held} == {"", "argoproj.io"}


def test_rules_are_a_slot_only_where_the_policy_falls_back_on_them(tmp_path: Path):
    """Credit's role reaches three slots, that of digits two."""
    for name, slots in (("credit", 3), ("digits", 2)):
        rules = load(name).rollout.kill_to == "rules"
        held = granted(roles(place(name, tmp_path), rules=rules), CONTROLLER)
        assert len({one[3] for one in held if one[2] == "inferenceservices"}) == slots
