"""Both overlays break no rule of ours, and every rule finds what it is there to find."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import crds, podrules, setrules
from tests.manifests.built import (
    MANIFESTS,
    Object,
    documents,
    named,
    needs_kubectl,
    objects,
    of_kind,
    overlays,
    render,
)

pytestmark = needs_kubectl
RULES = {rule.__name__: rule for rule in (*podrules.RULES, *setrules.RULES)}

Found = list[Object]


@pytest.mark.parametrize("rule", RULES)
@overlays
def test_no_rule_is_broken(overlay: str, rule: str):
    assert list(RULES[rule](objects(overlay))) == []


COMPONENTS = [p.name for p in sorted((MANIFESTS / "components").iterdir()) if p.name != "values"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_may_be_added_breaks_none_either(tmp_path: Path, component: str):
    """Each beside what an overlay has, where it has it not yet."""
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    file = tmp_path / "manifests" / "overlays" / "laptop" / "kustomization.yaml"
    plain, line = file.read_text(encoding="utf-8"), f"  - ../../components/{component}\n"
    last = "  - ../../components/values\n"  # what patches a workload comes after it
    assert line not in plain
    file.write_text(plain.replace(last, line + last), encoding="utf-8")

    found = documents(render(file.parent))

    assert found != objects("laptop")
    assert {name: list(rule(found)) for name, rule in RULES.items() if list(rule(found))} == {}
    held = [one for one in found if one["kind"] in crds.FILES]
    assert [why for one in held for why in crds.wrong(one)] == []


def controller(found: Found) -> Any:
    """Return the controller's pod."""
    return named(found, "Deployment", "penstock-controller")["spec"]["template"]["spec"]


def serves(found: Found) -> Any:
    """Return the container of every slot."""
    return named(found, "ServingRuntime", "penstock-serve")["spec"]["containers"][0]


def triton(found: Found) -> Any:
    """Return the container of a runtime that nothing here names."""
    return named(found, "ServingRuntime", "penstock-triton")["spec"]["containers"][0]


def slot(found: Found) -> Any:
    """Return the predictor of one slot."""
    return named(found, "InferenceService", "digits-a")["spec"]["predictor"]


def brings(found: Found) -> Any:
    """Return the container that brings packages."""
    return named(found, "ClusterStorageContainer", "penstock")["spec"]["container"]


def role(found: Found, name: str = "penstock-pipeline") -> Any:
    """Return the first rule of a role."""
    return named(found, "Role", name)["rules"][0]


def without(found: Found, kind: str, name: str) -> None:
    """Take an object away, in every namespace."""
    found[:] = [o for o in found if (o["kind"], o["metadata"]["name"]) != (kind, name)]


def env(name: str, value: str) -> Callable[[Found], None]:
    """Return the planting of a variable."""
    return lambda found: serves(found)["env"].append({"name": name, "value": value})


PLANTED: dict[str, list[Callable[[Found], Any]]] = {
    "privilege": [
        lambda f: serves(f)["securityContext"].update(privileged=True),
        lambda f: brings(f)["securityContext"].pop("allowPrivilegeEscalation"),
        lambda f: controller(f)["containers"][0]["securityContext"]["capabilities"].update(
            add=["NET_ADMIN"]
        ),
        lambda f: serves(f)["securityContext"].update(capabilities={}),
        lambda f: triton(f)["securityContext"].update(privileged=True),
    ],
    "user": [
        lambda f: controller(f)["securityContext"].pop("runAsNonRoot"),
        lambda f: serves(f)["securityContext"].update(runAsUser=1000),
        lambda f: brings(f)["securityContext"].pop("readOnlyRootFilesystem"),
        lambda f: controller(f)["securityContext"].pop("seccompProfile"),
    ],
    "limits": [
        lambda f: controller(f)["containers"][0].pop("resources"),
        lambda f: brings(f)["resources"]["limits"].pop("cpu"),
        lambda f: controller(f)["containers"][0]["resources"]["limits"].update(memory="3Gi"),
    ],
    "probes": [
        lambda f: slot(f)["model"].pop("startupProbe"),
        lambda f: serves(f).pop("livenessProbe"),
        lambda f: serves(f)["livenessProbe"]["httpGet"].update(path="/v2/models/digits/ready"),
        lambda f: controller(f)["containers"][0]["livenessProbe"]["httpGet"].update(path="/readyz"),
    ],
    "images": [
        lambda f: serves(f).update(image="registry.example.com/penstock-python-serve:latest"),
        lambda f: serves(f).update(image="registry.example.com/penstock-python-serve"),
        lambda f: brings(f).update(image="penstock-python-serve@sha256:12"),
    ],
    "host": [
        lambda f: controller(f).update(hostNetwork=True),
        lambda f: controller(f)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        lambda f: serves(f)["ports"].append({"containerPort": 1, "hostPort": 1}),
    ],
    "literals": [
        env("MLFLOW_TRACKING_PASSWORD", "hunter2"),
        env("AWS_SECRET_ACCESS_KEY", "hunter2"),
        env("DATABASE", "postgresql://ann:hunter2@db/ledger"),
        lambda f: serves(f)["args"].append("--online=redis://:hunter2@redis:6379"),
    ],
    "accounts": [
        lambda f: controller(f).pop("serviceAccountName"),
        lambda f: slot(f).update(automountServiceAccountToken=True),
        lambda f: slot(f).pop("automountServiceAccountToken"),
    ],
    "ends": [
        lambda f: serves(f).pop("lifecycle"),
        lambda f: slot(f).update(terminationGracePeriodSeconds=20),
    ],
    "folders": [
        lambda f: controller(f)["volumes"].pop(0),
        lambda f: controller(f)["containers"][0]["volumeMounts"].pop(0),
        lambda f: controller(f)["volumes"][0]["emptyDir"].clear(),
    ],
    "labelled": [
        lambda f: named(f, "InferenceService", "digits-a")["metadata"]["labels"].clear(),
        lambda f: controller(f).pop("topologySpreadConstraints"),
        lambda f: slot(f)["topologySpreadConstraints"][0]["labelSelector"].update(
            matchLabels={"app": "another"}
        ),
        lambda f: slot(f).pop("priorityClassName"),
    ],
    "roles": [
        lambda f: role(f).update(verbs=["*"]),
        lambda f: role(f).update(resources=["*"]),
        lambda f: role(f, "penstock-controller").pop("resourceNames"),
        lambda f: role(f, "penstock-controller")["verbs"].append("delete"),
        lambda f: role(f).update(apiGroups=[""], resources=["secrets"], verbs=["get"]),
        lambda f: f.append({"kind": "ClusterRole", "metadata": {"name": "x"}}),
    ],
    "bindings": [
        lambda f: without(f, "ServiceAccount", "penstock-watch"),
        lambda f: without(f, "Role", "penstock-watch"),
        lambda f: without(f, "RoleBinding", "penstock-watch"),
        lambda f: named(f, "RoleBinding", "penstock-watch")["subjects"].append(
            {"kind": "Group", "name": "system:authenticated"}
        ),
    ],
    "closed": [
        lambda f: without(f, "NetworkPolicy", "default-deny"),
        lambda f: named(f, "NetworkPolicy", "default-deny", "models")["spec"].update(egress=[{}]),
        lambda f: named(f, "NetworkPolicy", "watch")["spec"]["podSelector"].update(
            matchLabels={"app": "another"}
        ),
        lambda f: named(f, "NetworkPolicy", "slots")["spec"]["ingress"][0].pop("ports"),
        lambda f: named(f, "NetworkPolicy", "slots")["spec"]["ingress"][0].pop("from"),
    ],
    "budgets": [
        lambda f: without(f, "PodDisruptionBudget", "digits-a"),
        lambda f: named(f, "PodDisruptionBudget", "digits-a")["spec"].update(maxUnavailable=0),
        lambda f: named(f, "PodDisruptionBudget", "digits-a")["spec"]["selector"].update(
            matchLabels={"app": "isvc.digits-b-predictor"}
        ),
    ],
    "services": [
        lambda f: named(f, "Service", "penstock-controller")["spec"].update(selector={"a": "b"}),
        lambda f: controller(f)["containers"][0].pop("ports"),
    ],
    "monitors": [
        lambda f: named(f, "PodMonitor", "penstock-slots")["spec"]["selector"].update(
            matchLabels={"app": "another"}
        ),
        lambda f: serves(f)["ports"].pop(),
        lambda f: named(f, "Service", "penstock-controller")["spec"]["ports"][0].update(name="x"),
    ],
    "references": [
        lambda f: without(f, "ConfigMap", "penstock"),
        lambda f: named(f, "ConfigMap", "penstock", "models")["data"].pop("predictions"),
        lambda f: controller(f)["volumes"][3]["secret"].update(secretName="another"),
        lambda f: controller(f)["volumes"][3]["secret"].update(items=[{"key": "x", "path": "x"}]),
        lambda f: without(f, "ServiceAccount", "penstock-serving"),
        lambda f: without(f, "PriorityClass", "penstock-serving"),
    ],
    "room": [
        lambda f: slot(f)["model"]["resources"]["requests"].update(cpu="40"),
        lambda f: named(f, "ResourceQuota", "penstock", "models")["spec"]["hard"].pop(
            "requests.nvidia.com/gpu"
        ),
        lambda f: named(f, "Deployment", "penstock-controller")["spec"].update(replicas=90),
    ],
}  # fmt: skip
"""What each rule must find, planted in the larger overlay."""


@pytest.mark.parametrize(
    ("rule", "number"), [(rule, n) for rule, held in PLANTED.items() for n in range(len(held))]
)
def test_a_planted_violation_is_found(rule: str, number: int):
    found = objects("gpu")
    PLANTED[rule][number](found)

    assert list(RULES[rule](found)) != []


def test_every_rule_has_its_violations():
    assert set(PLANTED) == set(RULES)
    assert of_kind(objects("gpu"), "InferenceService"), "there is something to look at"
