"""Knative Serving: everybody to one revision or to the other; what is in between is refused.

Knative splits requests by chance, each anew. A share of users would be a share of requests: the
same user would meet both versions, and no test of users would hold. It also has no mirror. So
a shadow, a share, a trickle and a market are refused here, with the adapter that can: the release
of such a workload goes through an HTTPRoute or a VirtualService in front of two InferenceServices
in Standard mode. What is left, a switch of everybody and back, is said faithfully.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from penstock.release import EVERYWHERE
from penstock.rollout.adapters import edges
from penstock.rollout.adapters.annotated import Tables, annotation
from penstock.rollout.adapters.cluster import Part
from penstock.rollout.adapters.place import Place, fallback_of, holds, rendered
from penstock.rollout.adapters.server import Missing, Object, Ref, Server
from penstock.rollout.ports import TableError
from penstock.rollout.table import BUCKETS, SLOTS, TrafficTable

INSTEAD = "use the gateway or the Istio adapter, with two InferenceServices in Standard mode"
PINNED = "penstock.io/killed"
"""Annotation of a person: the traffic stays as that person has set it."""


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """The revision behind each slot."""

    a: str
    b: str

    def of(self, slot: str) -> str:
        """Return a slot's revision.

        Raises:
            TableError: There is none: Knative routes to revisions of one Service only.
        """
        if slot not in SLOTS:
            raise TableError(f"slot {slot!r} is no revision of a Knative Service; {INSTEAD}.")
        return self.a if slot == "a" else self.b


class Knative:
    """The :class:`penstock.rollout.adapters.cluster.Dialect` of Knative Serving."""

    def __init__(self, place: Place, revisions: Revisions) -> None:
        """Take the place, whose name is the Service's, and the revisions of the slots."""
        self._place, self._revisions = place, revisions
        self.main = place.ref("serving.knative.dev", "v1", "Service", place.name)
        self.reads: tuple[Ref, ...] = ()
        self.parts = (
            Part(
                ref=self.main,
                render=self._routed,
                # What the revisions are made of is whoever's who makes them.
                theirs=("template",),
                pinned=lambda found: bool(pinned(found)),
            ),
        )

    def _routed(self, tables: Mapping[str, TrafficTable]) -> Object:
        """Return the Service's traffic; a share of users, a copy or a market is refused."""
        refuse(tables)
        return {"traffic": self._traffic(tables[EVERYWHERE].slot_for(0))}

    def _traffic(self, slot: str) -> list[Object]:
        """Both revisions are named, the other one without traffic: a tag keeps it reachable."""
        return [
            {
                "revisionName": self._revisions.of(name),
                "latestRevision": False,
                "percent": 100 if name == slot else 0,
                "tag": name,
            }
            for name in SLOTS
        ]

    def manifests(self, tables: Tables) -> list[Object]:
        """Return what is applied to a Service that is there."""
        return [rendered(p.ref, p.render(tables), annotation(tables)) for p in self.parts]

    def settled(self, objects: Mapping[Ref, Object]) -> str:
        """Return what Knative has not said yes to; empty where its route is what was asked."""
        found = objects[self.main]
        status = found.get("status", {})
        generation = int(found["metadata"].get("generation", 0))
        if int(status.get("observedGeneration") or 0) < generation:
            return f"{self.main} is not seen in generation {generation} yet"
        if said := holds(status.get("conditions", []), "RoutesReady"):
            return f"{self.main}: {said}"
        asked = {t["revisionName"]: t.get("percent", 0) for t in found["spec"]["traffic"]}
        routed = {t.get("revisionName"): t.get("percent") or 0 for t in status.get("traffic", [])}
        return "" if asked == routed else f"{self.main} routes {routed}, not {asked}"

    def before(self, _now: TrafficTable, _then: TrafficTable, /) -> bool:
        """There is nothing beside the Service."""
        return True

    def killed(self, server: Server) -> str:
        """Return the reason that a person pinned the traffic with; empty while it is not."""
        try:
            return pinned(server.get(self.main))
        except Missing:
            return ""

    def ready(self, server: Server, slot: str) -> bool:
        """Return whether a slot's revision is ready."""
        name = self._revisions.of(slot)
        ref = self._place.ref("serving.knative.dev", "v1", "Revision", name)
        try:
            found = server.get(ref)
        except TableError:
            return False
        return holds(found.get("status", {}).get("conditions", []), "Ready") == ""

    def ask(self, table: TrafficTable) -> str:
        """Ask through every edge; return what answers otherwise than the table."""
        return edges.ask(table, self._place)

    def throw(self, tables: Tables) -> list[str]:
        """Return the command by which a person sends everybody to the fallback and keeps it so."""
        traffic = self._traffic(fallback_of(tables[EVERYWHERE]))
        return self._patch({"annotations": {PINNED: "WHY"}}, {"traffic": traffic})

    def clear(self) -> list[str]:
        """Return the command by which a person lets go of it."""
        return self._patch({"annotations": {PINNED: None}}, {})

    def _patch(self, metadata: Object, spec: Object) -> list[str]:
        command = ["kubectl", "-n", self._place.namespace, "patch", "ksvc", self.main.name]
        command += ["--type=merge", "--field-manager=penstock-kill"]
        return [*command, "-p", json.dumps({"metadata": metadata, "spec": spec})]


def pinned(found: Object) -> str:
    """Return the reason that traffic is pinned with; empty where it is not."""
    annotations = cast("dict[str, str]", found["metadata"].get("annotations") or {})
    return annotations.get(PINNED) or ""


def refuse(tables: Mapping[str, TrafficTable]) -> None:
    """Refuse what Knative cannot say faithfully.

    Raises:
        TableError: The text says what, why, and what can.
    """
    if set(tables) != {EVERYWHERE}:
        raise TableError(
            f"Knative cannot tell markets apart ({', '.join(sorted(tables))}); {INSTEAD}."
        )
    table = tables[EVERYWHERE]
    if 0 < table.buckets < BUCKETS:
        raise TableError(
            f"{table.buckets} of {BUCKETS} buckets: Knative splits requests by chance, so the same "
            f"user would meet both versions; {INSTEAD}."
        )
    for slot in (table.mirror, table.trickle):
        if slot is not None:
            raise TableError(f"a copy to slot {slot}: Knative mirrors nothing; {INSTEAD}.")
