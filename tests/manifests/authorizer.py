"""An API server that keeps objects and notes what it was asked for, as an authorizer sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

from penstock.rollout.adapters.server import APPLY
from tests.manifests.built import Object, of_kind

Asked = tuple[str, str, str, str, str]
"""Namespace, group, plural, name and verb; no name where all of a kind are asked for."""

PLURALS = {
    "HTTPRoute": "httproutes", "EnvoyFilter": "envoyfilters", "Gateway": "gateways",
    "InferenceService": "inferenceservices", "Lease": "leases",
    "VirtualService": "virtualservices", "DestinationRule": "destinationrules",
}  # fmt: skip


@dataclass
class Asking:
    """A transport to that server."""

    objects: dict[str, Object] = field(default_factory=dict[str, Object])
    asked: set[Asked] = field(default_factory=set[Asked])

    def keep(self, one: Object) -> None:
        """Keep an object, at its path."""
        metadata = one["metadata"]
        metadata.setdefault("resourceVersion", "1")
        collection = f"/apis/{one['apiVersion']}/namespaces/{metadata['namespace']}"
        self.objects[f"{collection}/{PLURALS[one['kind']]}/{metadata['name']}"] = one

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: Any = None,
        kind: str = "application/json",
        timeout_s: float = 10.0,
    ) -> tuple[int, bytes]:
        """Note what is asked; answer with what is kept."""
        self._note("get" if method == "GET" else method.lower(), path, query)
        if method == "GET" and path not in self.objects:
            return 200, json.dumps({"items": []}).encode()
        held = self.objects[path]
        if method == "PATCH" and kind == APPLY:
            _merge(held, body)
            held["metadata"]["resourceVersion"] += "1"
        return 200, json.dumps(held).encode()

    def lines(
        self,
        path: str,
        *,
        query: Mapping[str, str],
        timeout_s: float,
    ) -> Iterator[tuple[int, bytes]]:
        """Note a watch, which ends at once."""
        self._note("watch", path, query)
        yield from ()

    def _note(self, verb: str, path: str, query: Mapping[str, str]) -> None:
        _, _, group, _, _, namespace, plural, *name = path.split("/")
        one = name[0] if name else query.get("fieldSelector", "").removeprefix("metadata.name=")
        if verb == "get" and not name:
            verb = "list"
        self.asked.add((namespace, group, plural, unquote(one), verb))


def _merge(held: Object, body: Object) -> None:
    for name, value in body.items():
        below = held.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            _merge(cast("Object", below), cast("Object", value))
        elif name != "resourceVersion":
            held[name] = value


def granted(found: list[Object], account: str) -> set[Asked]:
    """Return everything that roles let an account do, one by one; no name where it is all."""
    names = {
        (o["metadata"]["namespace"], o["roleRef"]["name"])
        for o in of_kind(found, "RoleBinding")
        if any(s["name"] == account for s in o["subjects"])
    }
    return {
        (role["metadata"]["namespace"], group, plural, name, verb)
        for role in of_kind(found, "Role")
        if (role["metadata"]["namespace"], role["metadata"]["name"]) in names
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for plural in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }
