"""Granted: what the release controller may do to the objects of one workload, and to nothing else.

No ``create``, ``delete`` or ``update``, and names wherever the API server can hold a name against a
request: what is not there, the controller does not make.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.rollout.adapters.places import Where
from penstock.rollout.adapters.server import Object
from penstock.rollout.table import RULES, SLOTS

CONTROLLER = "penstock-controller"
HOME = "penstock"
"""Account of the controller, and the namespace in which it runs."""

RBAC = "rbac.authorization.k8s.io"

READ, WRITTEN, FOLLOWED = ("get",), ("get", "patch"), ("get", "patch", "watch")
"""What is done to an object that is looked at, to one that is kept, and to the one whose changes by
others are told at once. A watch names its one object, and the API server holds it to that."""

Kind = tuple[str, str, str, tuple[str, ...]]
"""Namespace, group and plural of objects, and what may be done to them."""


def roles(where: Where, *, rules: bool) -> list[Object]:
    """Return a role in each namespace where a workload has objects, with their bindings.

    Args:
        rules: Whether the workload has a slot that answers by rules.
    """
    named: dict[Kind, list[str]] = {}
    for kind, name in _objects(where, rules=rules):
        named.setdefault(kind, []).append(name)
    found: dict[str, list[Object]] = {}
    for (namespace, group, plural, verbs), names in named.items():
        found.setdefault(namespace, []).append(_rule(group, plural, names, verbs))
    return [made for namespace, held in found.items() for made in _bound(where, namespace, held)]


def _objects(where: Where, *, rules: bool) -> Iterator[tuple[Kind, str]]:
    """Yield each object that is read or written, by kind and name."""
    dialect, place = where.made(), where.place
    for part in dialect.parts:
        # Kept together by kind, though only the main one is followed.
        verbs = FOLLOWED if part.ref.plural == dialect.main.plural else WRITTEN
        yield (part.ref.namespace, part.ref.group, part.ref.plural, verbs), part.ref.name
    # The Gateway; with Istio the root, which decides between tables and kill switch.
    for ref in dialect.reads:
        yield (ref.namespace, ref.group, ref.plural, READ), ref.name
    for slot in [*SLOTS, RULES] if rules else SLOTS:
        slots = (place.namespace, "serving.kserve.io", "inferenceservices", WRITTEN)
        yield slots, f"{place.name}-{slot}"


def _rule(group: str, plural: str, names: Sequence[str], verbs: Sequence[str]) -> Object:
    return {
        "apiGroups": [group],
        "resources": [plural],
        "resourceNames": sorted(names),
        "verbs": list(verbs),
    }


def _bound(where: Where, namespace: str, rules: list[Object]) -> list[Object]:
    name = where.place.name
    metadata = {
        "name": f"penstock-release-{name}",
        "namespace": namespace,
        "labels": {"app.kubernetes.io/part-of": "penstock", "penstock.io/workload": name},
    }
    account = {"kind": "ServiceAccount", "name": CONTROLLER, "namespace": HOME}
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": metadata["name"]},
            "subjects": [account],
        },
    ]
