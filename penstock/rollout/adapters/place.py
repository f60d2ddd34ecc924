"""Where in a cluster a workload is served: names that everything else is rendered from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.server import Object, Ref, Server
from penstock.rollout.ports import TableError
from penstock.rollout.table import TrafficTable

SECRETS = ("authorization", "proxy-authorization", "cookie")
"""Servers need no secret to answer, and what they lack they cannot log."""

FORGED = ("x-rollout-shadow", "x-rollout-fallback", "x-rollout-stale")
"""Headers that a server believes and that only the inside may set."""

TRICKLE_PERCENT = 1
SLACK_MS = 1000
"""What a gateway waits longer than a server says it takes."""

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")
_HOST = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A workload's two slots, its host, and the gateway that users come through."""

    name: str
    """Beginning of the names of everything: InferenceServices ``<name>-a`` and ``<name>-b``."""

    namespace: str
    model: str
    """As the servers call it."""

    host: str
    """Under which users ask; exact, so that nobody can pass for a copy."""

    gateway: str
    gateway_namespace: str
    edges: tuple[str, ...]
    """Base URL of every replica of the gateway, each of which is asked: one that was forgotten
    serves another version until somebody notices. ``dns:URL`` is every address of a name."""

    timeout_ms: float = 1000.0
    """Time in which a server says it has answered."""

    port: int = 80
    suffix: str = "-predictor"
    """What KServe puts behind an InferenceService's name, in Standard mode, for its Service;
    ``-transformer`` where features are looked up."""

    def __post_init__(self) -> None:
        for what, value, form in (
            ("name", self.name, _NAME),
            ("namespace", self.namespace, _NAME),
            ("host", self.host, _HOST),
        ):
            if not form.fullmatch(value):
                raise ValueError(f"Place.{what} is {value!r}; give a plain lower-case name.")
        if not self.edges:
            raise ValueError("Place.edges is empty; name every replica of the gateway by its URL.")

    def service(self, slot: str) -> str:
        """Return the Service of a slot."""
        return f"{self.name}-{slot}{self.suffix}"

    def ref(self, group: str, version: str, kind: str, name: str, plural: str = "") -> Ref:
        """Return an object of this namespace."""
        return Ref(
            group=group,
            version=version,
            kind=kind,
            name=name,
            namespace=self.namespace,
            plural=plural or f"{kind.lower()}s",
        )

    def assigner(self) -> Ref:
        """Return the filter of the assigner: Istio finds a gateway in its own namespace alone."""
        name = f"{self.name}-assigner"
        ref = self.ref("networking.istio.io", "v1alpha3", "EnvoyFilter", name)
        return replace(ref, namespace=self.gateway_namespace)

    def serves(self, server: Server, slot: str) -> bool:
        """Return whether a slot's InferenceService is ready, in the version that was asked for.

        A server is ready once it has verified its package and given the golden answers.
        """
        name = f"{self.name}-{slot}"
        try:
            found = server.get(self.ref("serving.kserve.io", "v1beta1", "InferenceService", name))
        except TableError:
            return False
        status = found.get("status", {})
        if int(status.get("observedGeneration", 0)) < int(found["metadata"].get("generation", 0)):
            return False
        return holds(status.get("conditions", []), "Ready") == ""


def holds(conditions: list[Object], kind: str, generation: int = 0) -> str:
    """Return why a condition does not hold; empty where it is true, of this generation.

    Nothing said is not a yes.
    """
    found = next((c for c in conditions if c.get("type") == kind), None)
    if found is None:
        return f"{kind} is not said yet"
    if found.get("status") != "True":
        return f"{kind} is {found.get('status')}: {found.get('reason')}: {found.get('message')}"
    if int(found.get("observedGeneration", generation)) < generation:
        return f"{kind} is said of generation {found.get('observedGeneration')}, not {generation}"
    return ""


def milliseconds(ms: float) -> str:
    """Return a duration as Gateway API takes it: at most five digits of one unit."""
    whole = math.ceil(ms)
    return f"{whole}ms" if whole < 100_000 else f"{math.ceil(whole / 1000)}s"


def fallback_of(table: TrafficTable) -> str:
    """Return the slot that answers a market when the kill switch is thrown."""
    return table.fallback or table.champion


def copies_of(table: TrafficTable, slot: str) -> list[tuple[str, int]]:
    """Return who gets copies of what a slot answers, with their percent of it."""
    found: list[tuple[str, int]] = []
    if table.mirror is not None and slot == table.champion:
        found.append((table.mirror, 100))
    if table.trickle is not None:
        found.append((table.trickle, TRICKLE_PERCENT))
    return found


def said_by(table: TrafficTable, arm: str) -> Mapping[str, str]:
    """Return the request headers that tell a server whose user it answers."""
    return {"x-rollout-arm": arm, "x-rollout-market": table.market}


def changes_salt(now: TrafficTable, then: TrafficTable) -> bool:
    """Return whether the assigner is written before the routes.

    Bucket and route change at two moments. Between them no user may be split by new buckets over
    old routes, so it is done while nobody, or everybody, is on the challenger.

    Raises:
        TableError: Users are split before and after: neither order is safe.
    """

    def splits(table: TrafficTable) -> bool:
        return 0 < table.buckets < 64

    if now.salt != then.salt and splits(now) and splits(then):
        raise TableError(
            f"table {then.sequence} has another salt while users are split; give all of "
            f"{then.market!r} to one slot first."
        )
    return not splits(now)


def matches_market(table: TrafficTable) -> bool:
    """Return whether a market is named by a header; everybody's is what is left."""
    return table.market != EVERYWHERE


def rendered(ref: Ref, spec: Any, annotations: Mapping[str, str]) -> Object:
    """Return a manifest to create an object with."""
    metadata = {"name": ref.name, "namespace": ref.namespace, "annotations": dict(annotations)}
    return {"apiVersion": ref.api, "kind": ref.kind, "metadata": metadata, "spec": spec}
