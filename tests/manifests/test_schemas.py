"""Every object is what the published schemas take, with their rules; none is left unchecked."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.manifests import crds
from tests.manifests.built import (
    MANIFESTS,
    Object,
    documents,
    named,
    needs_kubectl,
    objects,
    of_kind,
    overlays,
    said,
)

OURS = ("serving.kserve.io", "gateway.networking.k8s.io", "networking.istio.io")
OPERATORS = ("monitoring.coreos.com",)
"""Groups whose schemas are not at hand: their shape is said here instead."""

KUBERNETES = ("1.37.0", "1.35.0")
FIRST = sorted(MANIFESTS.glob("workloads/*/first.yaml"))


def group(one: Object) -> str:
    """Return an object's group; empty for Kubernetes' oldest."""
    return one["apiVersion"].rpartition("/")[0]


@needs_kubectl
@pytest.mark.parametrize("version", KUBERNETES)
@overlays
def test_kubernetes_own_objects_are_what_it_takes(overlay: str, version: str):
    """Strictly: a field that it does not know is a mistake."""
    held = [o for o in objects(overlay) if group(o) not in (*OURS, *OPERATORS)]

    for one in held:
        kubernetes_validate.validate(one, version, strict=True)
    assert len(held) > 40


@needs_kubectl
def test_an_unknown_field_is_found():
    one = named(objects("laptop"), "Deployment", "penstock-controller")
    one["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, KUBERNETES[0], strict=True)


@needs_kubectl
@overlays
def test_custom_resources_are_what_their_schemas_take(overlay: str):
    """KServe's, strictly, with every rule in CEL."""
    held = [o for o in objects(overlay) if group(o) in OURS]

    assert [why for one in held for why in crds.wrong(one)] == []
    assert {o["kind"] for o in held} == {
        "InferenceService", "ServingRuntime", "ClusterStorageContainer",
    }  # fmt: skip


@pytest.mark.parametrize("file", FIRST, ids=[f.parent.name for f in FIRST])
def test_what_is_applied_once_is_too(file: Path):
    held = documents(file.read_text(encoding="utf-8"))

    assert [why for one in held for why in crds.wrong(one)] == []


@needs_kubectl
def test_a_misspelt_field_of_a_slot_is_found():
    one = named(objects("laptop"), "InferenceService", "digits-a")
    one["spec"]["predictor"]["storageContainer"] = one["spec"]["predictor"]["storageContainerName"]

    (why,) = crds.wrong(one)

    assert "'storageContainer' was unexpected" in why


def test_a_route_of_too_many_matches_is_found():
    """A rule in CEL that no schema says."""
    one = named(documents(FIRST[0].read_text(encoding="utf-8")), "HTTPRoute", FIRST[0].parent.name)
    one["spec"]["rules"][0]["filters"] *= 2

    assert any("CEL" in why for why in crds.wrong(one))


ALERT = {"alert", "expr", "for", "labels", "annotations"}


@needs_kubectl
def test_the_operators_objects_have_the_shape_that_it_documents():
    """Its schemas are not at hand; these are the few fields that we use, and no other."""
    found = [o for o in objects("gpu") if group(o) in OPERATORS]
    shapes: dict[str, set[str]] = {
        "PrometheusRule": {"groups"},
        "ServiceMonitor": {"selector", "endpoints"},
        "PodMonitor": {"selector", "podMetricsEndpoints"},
    }

    assert {one["kind"]: set(one["spec"]) for one in found} == shapes
    groups = [g for one in of_kind(found, "PrometheusRule") for g in one["spec"]["groups"]]
    for held in groups:
        assert set(held) == {"name", "rules"}
        assert all(ALERT - {"for"} <= set(one) <= ALERT for one in held["rules"])
    endpoints: list[Any] = [
        e
        for one in of_kind(found, "ServiceMonitor", "PodMonitor")
        for e in [*one["spec"].get("endpoints", []), *one["spec"].get("podMetricsEndpoints", [])]
    ]
    allowed = {"port", "path", "interval", "scrapeTimeout", "relabelings"}
    assert all(set(e) <= allowed for e in endpoints)


@needs_kubectl
def test_slots_are_scraped_as_the_job_that_alerts_name():
    """An alert asks for job "penstock"; without the relabelling nothing would be it."""
    (monitor,) = of_kind(objects("gpu"), "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    rules = named(objects("gpu"), "PrometheusRule", "penstock")

    assert {"targetLabel": "job", "replacement": "penstock"} in endpoint["relabelings"]
    assert 'up{job="penstock"}' in yaml.safe_dump(rules)


@needs_kubectl
@overlays
def test_no_object_is_too_large_to_be_applied(overlay: str):
    """A client-side apply keeps an object in an annotation of 256 KiB; ours are far from it."""
    for one in objects(overlay):
        held = io.StringIO()
        yaml.safe_dump(one, held)
        assert len(held.getvalue()) < 100_000, said(one)
