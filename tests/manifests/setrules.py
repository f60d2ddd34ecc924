"""Rules of a whole set: what belongs together is there, and nobody may more than is named."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tests.manifests.built import Object, Pods, of_kind, pods, said

MADE_BY_PEOPLE: Mapping[tuple[str, str], set[str]] = {
    ("penstock", "penstock-ledger"): {"url"},
    ("penstock", "penstock-actor"): {"actor.pem"},
    ("penstock", "penstock-salt"): {"salt"},
    ("penstock", "penstock-mlflow"): {"username", "password", "token"},
    ("penstock", "penstock-store"): {"access-key", "secret-key"},
    ("models", "penstock-salt"): {"salt"},
    ("models", "penstock-store"): {"access-key", "secret-key"},
    ("models", "penstock-redis"): {"url"},
    ("models", "penstock-signing"): {"signed-by.pem"},
}
"""Secrets and their keys; docs/security.md says where each comes from."""

ELSEWHERE = {"edge-replicas"}
"""Services whose pods are not ours."""

THEIRS = {"workflows.argoproj.io/workflow"}
"""Labels of pods that Kubeflow makes."""

MAKING = {
    ("argoproj.io", "workflowtaskresults"),
    ("pipelines.kubeflow.org", "runs"),
    ("pipelines.kubeflow.org", "experiments"),
    ("pipelines.kubeflow.org", "pipelines"),
    ("pipelines.kubeflow.org", "pipelines/versions"),
}
"""What a role may create."""

NAMELESS = {("discovery.k8s.io", "endpointslices", "list"), ("", "pods", "get"),
            ("", "pods", "list"), ("", "pods", "watch")}  # fmt: skip
"""What a role may read of all; Kubeflow's own driver needs the pods."""


GPUS = "requests.nvidia.com/gpu"


def roles(found: list[Object]) -> Iterator[str]:
    """No wildcard, nothing for the whole cluster, names wherever there can be names."""
    for one in of_kind(found, "ClusterRole", "ClusterRoleBinding"):
        yield f"{said(one)} is for the whole cluster"
    for role in of_kind(found, "Role"):
        for rule in role["rules"]:
            yield from _rule(said(role), rule)


def _rule(at: str, rule: Mapping[str, Any]) -> Iterator[str]:
    everything = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    if "*" in "".join(everything):
        yield f"{at} has a wildcard"
    for group, kind in ((g, r) for g in rule["apiGroups"] for r in rule["resources"]):
        making = {"create"} if (group, kind) in MAKING else set[str]()
        reading = {v for v in ("get", "list", "watch") if (group, kind, v) in NAMELESS}
        asked = set(rule["verbs"])
        if more := asked - {"get", "list", "watch", "patch", *making}:
            yield f"{at} may {', '.join(sorted(more))} {kind}"
        if not rule.get("resourceNames") and not making and asked - reading:
            yield f"{at} names no {kind}"


def bindings(found: list[Object]) -> Iterator[str]:
    """Each role is bound, to accounts that are there, in its own namespace."""
    accounts = {_key(o) for o in of_kind(found, "ServiceAccount")}
    bound = set[tuple[str, str]]()
    for one in of_kind(found, "RoleBinding"):
        role = (one["metadata"]["namespace"], one["roleRef"]["name"])
        bound.add(role)
        if role not in {_key(o) for o in of_kind(found, "Role")}:
            yield f"{said(one)} binds a role that is not there"
        for subject in one["subjects"]:
            who = (subject.get("namespace", ""), subject["name"])
            if subject["kind"] != "ServiceAccount" or who not in accounts:
                yield f"{said(one)} binds {subject['kind']} {subject['name']}, which is not there"
    for role in of_kind(found, "Role"):
        if _key(role) not in bound:
            yield f"{said(role)} is nobody's"


def closed(found: list[Object]) -> Iterator[str]:
    """Where pods run nothing comes in and nothing goes out, but for what selects pods of ours."""
    policies = of_kind(found, "NetworkPolicy")
    shut = {
        p["metadata"]["namespace"]
        for p in policies
        if p["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    for namespace in sorted({held.namespace for held in pods(found)} - shut):
        yield f"namespace {namespace} is open"
    for policy in policies:
        selector = policy["spec"]["podSelector"]
        theirs = {e["key"] for e in selector.get("matchExpressions", [])} & THEIRS
        if not theirs and not list(_selected(selector, policy["metadata"]["namespace"], found)):
            yield f"{said(policy)} selects no pod"
        for peers in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]:
            if not peers.get("ports"):
                yield f"{said(policy)} opens every port"
        if any(not rule.get("from") for rule in policy["spec"].get("ingress", [])):
            yield f"{said(policy)} lets everybody in"


def budgets(found: list[Object]) -> Iterator[str]:
    """Everything that lasts may be moved, but not all of it at once."""
    held = Counter[str]()
    for one in of_kind(found, "PodDisruptionBudget"):
        chosen = list(_selected(one["spec"]["selector"], one["metadata"]["namespace"], found))
        held.update(chosen)
        if len(chosen) != 1:
            yield f"{said(one)} is of {chosen or 'nobody'}"
        if one["spec"].get("maxUnavailable") != 1:
            yield f"{said(one)} lets nobody, or everybody, be moved"
    for made in pods(found):
        if made.lasting and held[made.of] != 1:
            yield f"{made.of} has {held[made.of]} budgets"


def services(found: list[Object]) -> Iterator[str]:
    """A Service finds pods, and a port of theirs by its name."""
    for one in of_kind(found, "Service"):
        if one["metadata"]["name"] in ELSEWHERE:
            continue
        chosen = list(_matching({"matchLabels": one["spec"]["selector"]}, one, found))
        if not chosen:
            yield f"{said(one)} finds no pod"
        for port in one["spec"]["ports"]:
            if any(port["targetPort"] not in _ports(held) for held in chosen):
                yield f"{said(one)} asks a port that its pods have not"


def monitors(found: list[Object]) -> Iterator[str]:
    """Who is scraped is there, at a port of that name."""
    for one in of_kind(found, "ServiceMonitor"):
        labels = one["spec"]["selector"]["matchLabels"].items()
        chosen = [s for s in of_kind(found, "Service") if labels <= s["metadata"]["labels"].items()]
        ports = {p["name"] for s in chosen for p in s["spec"]["ports"]}
        if not {e["port"] for e in one["spec"]["endpoints"]} <= ports:
            yield f"{said(one)} scrapes nobody"
    for one in of_kind(found, "PodMonitor"):
        asked = {e["port"] for e in one["spec"]["podMetricsEndpoints"]}
        chosen = list(_matching(one["spec"]["selector"], one, found))
        if not chosen or any(not asked <= set(_ports(held)) for held in chosen):
            yield f"{said(one)} scrapes nobody"


def references(found: list[Object]) -> Iterator[str]:
    """Whatever is named is there, or a person makes it and docs/security.md says so."""
    keys = {("ConfigMap", *_key(o)): set(o.get("data", {})) for o in of_kind(found, "ConfigMap")}
    keys |= {("Secret", *at): held for at, held in MADE_BY_PEOPLE.items()}
    for held in pods(found):
        for kind, name, wanted in _named_by(held):
            at = (kind, held.namespace, name)
            if at not in keys:
                yield f"{held.of} needs {kind} {name}, which nobody makes"
            elif not wanted <= keys[at]:
                yield f"{held.of} needs {sorted(wanted - keys[at])} of {kind} {name}"
        account = (held.namespace, held.spec.get("serviceAccountName"))
        if account not in {_key(o) for o in of_kind(found, "ServiceAccount")}:
            yield f"{held.of} has account {account[1]}, which is not there"
        classes = {o["metadata"]["name"] for o in of_kind(found, "PriorityClass")}
        if held.spec.get("priorityClassName") not in classes:
            yield f"{held.of} has a priority that is not there"


def room(found: list[Object]) -> Iterator[str]:
    """All pods fit into their namespace's quota at once, and one more of each while it rolls."""
    for quota in of_kind(found, "ResourceQuota"):
        needs: dict[str, Decimal] = defaultdict(Decimal)
        for held in pods(found):
            if held.namespace == quota["metadata"]["namespace"]:
                for name, amount in _needs(held).items():
                    needs[name] += amount * held.replicas
        for name, most in quota["spec"]["hard"].items():
            if needs[name] > quantity(most):
                yield f"{said(quota)} has {most} of {name}, {needs[name]} are needed"
        if needs[GPUS] and GPUS not in quota["spec"]["hard"]:
            yield f"{said(quota)} says nothing of GPUs"


def quantity(text: str) -> Decimal:
    """Return an amount of Kubernetes' as a number.

    >>> quantity("500m"), quantity("2Gi")
    (Decimal('0.500'), Decimal('2147483648'))
    """
    units = {"m": Decimal("0.001"), "Mi": Decimal(2**20), "Gi": Decimal(2**30)}
    unit = next((u for u in units if text.endswith(u)), "")
    return Decimal(text.removesuffix(unit)) * units.get(unit, Decimal(1))


def _needs(held: Pods) -> dict[str, Decimal]:
    """Return what one pod takes of a quota: its containers, or what ran before them."""
    found: dict[str, Decimal] = {}
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory", "nvidia.com/gpu"):
            running, before = (
                [quantity(c["resources"][kind].get(resource, "0")) for c in held.spec.get(part, [])]
                for part in ("containers", "initContainers")
            )
            found[f"{kind}.{resource}"] = max([sum(running, Decimal(0)), *before])
    return found


def _named_by(held: Pods) -> Iterator[tuple[str, str, set[str]]]:
    """Yield each ConfigMap and Secret that pods name, with the keys they want."""
    for container in held.containers:
        for one in container.get("env", []):
            source = one.get("valueFrom", {})
            reference = source.get("configMapKeyRef", {"optional": True})
            if not reference.get("optional"):
                yield "ConfigMap", reference["name"], {reference["key"]}
            if reference := source.get("secretKeyRef"):
                yield "Secret", reference["name"], {reference["key"]}
        for one in container.get("envFrom", []):
            yield "ConfigMap", one["configMapRef"]["name"], set()
    for volume in held.spec.get("volumes", []):
        if reference := volume.get("configMap"):
            yield "ConfigMap", reference["name"], set()
        if reference := volume.get("secret"):
            yield "Secret", reference["secretName"], {i["key"] for i in reference["items"]}


def _key(one: Object) -> tuple[str, str]:
    return one["metadata"].get("namespace", ""), one["metadata"]["name"]


def _selected(selector: Object, namespace: str, found: list[Object]) -> Iterator[str]:
    at = {"metadata": {"namespace": namespace}}
    return (held.of for held in _matching(selector, at, found))


def _matching(selector: Object, at: Object, found: list[Object]) -> Iterator[Pods]:
    if selector.get("matchExpressions"):
        return  # of others' pods
    wanted = selector.get("matchLabels", {}).items()
    for held in pods(found):
        if held.namespace == at["metadata"]["namespace"] and wanted <= held.labels.items():
            yield held


def _ports(held: Pods) -> list[str]:
    return [p.get("name", "") for c in held.spec["containers"] for p in c.get("ports", [])]


RULES = (roles, bindings, closed, budgets, services, monitors, references, room)
