"""Istio: the tables of all markets as one VirtualService, slots as DestinationRules.

Three VirtualServices. The root has the host and the gateway and hands everything to one of the two
others; it is a person's, made once, and nothing of ours may write to it. ``<name>-table`` is the
tables, ``<name>-kill`` sends everybody to the fallback. The kill switch is the one word in the root
that says which of them counts. (A second VirtualService for the same host would not do: whose
rules come first is then decided by age.)

The first match counts, so a market's rules come in the order of the table: challenger, champion.
Users and copies of one slot are two subsets of the same pods, each with a pool of its own: a slow
shadow loses copies, nobody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.rollout.adapters import assigner, edges
from penstock.rollout.adapters.annotated import Tables, annotation, in_order, tables_of
from penstock.rollout.adapters.cluster import Part
from penstock.rollout.adapters.place import (
    FORGED,
    SECRETS,
    SLACK_MS,
    Place,
    changes_salt,
    copies_of,
    fallback_of,
    matches_market,
    rendered,
    said_by,
)
from penstock.rollout.adapters.server import Missing, Object, Ref, Server
from penstock.rollout.table import BUCKETS, RULES, SLOTS, TrafficTable

GROUP = "networking.istio.io"
USERS, COPIES = "users", "copies"
"""Subsets of a slot's pods: all of them, twice, so that each has its own pool."""

SILENT, EJECTED_S, WAITING = 5, 5, 1024
COPIES_IN_FLIGHT = 16

Rule = dict[str, Any]


class Istio:
    """The :class:`penstock.rollout.adapters.cluster.Dialect` of Istio."""

    def __init__(self, place: Place, *, gateway_labels: Mapping[str, str]) -> None:
        """Take the place.

        Args:
            gateway_labels: Of the gateway's pods: where the assigner runs.
        """
        self._place, self._labels = place, dict(gateway_labels)
        self.root = self._virtual(place.name)
        self.main = self._virtual(f"{place.name}-table")
        self.kill = self._virtual(f"{place.name}-kill")
        self.assigner = place.assigner()
        self.reads = (self.root,)
        self.parts = (
            Part(ref=self.kill, render=lambda tables: {"http": kill_rules(tables, place)}),
            Part(ref=self.assigner, render=self._assigning),
            Part(ref=self.main, render=lambda tables: {"http": rules_of(tables, place)}),
        )

    def _virtual(self, name: str) -> Ref:
        return self._place.ref(GROUP, "v1", "VirtualService", name)

    def _assigning(self, tables: Mapping[str, TrafficTable]) -> Object:
        source = assigner.script(tables, host=self._place.host)
        return {
            "workloadSelector": {"labels": self._labels},
            "configPatches": assigner.patches(source),
        }

    def manifests(self, tables: Tables) -> list[Object]:
        """Return what a person creates once, with the first tables; the root comes last."""
        made = [rendered(p.ref, p.render(tables), annotation(tables)) for p in self.parts]
        made += [self._destination(slot) for slot in (*SLOTS, RULES)]
        root = {
            "hosts": [self._place.host],
            "gateways": [f"{self._place.gateway_namespace}/{self._place.gateway}"],
            "http": [{"delegate": self._delegate(self.main)}],
        }
        return [*made, rendered(self.root, root, {})]

    def _delegate(self, ref: Ref) -> Object:
        return {"name": ref.name, "namespace": ref.namespace}

    def _destination(self, slot: str) -> Object:
        name = f"{self._place.name}-{slot}"
        subsets = [
            {"name": USERS, "trafficPolicy": _pool(WAITING, WAITING) | _outliers()},
            {"name": COPIES, "trafficPolicy": _pool(COPIES_IN_FLIGHT // 2, COPIES_IN_FLIGHT)},
        ]
        spec = {"host": host_of(self._place, slot), "subsets": subsets}
        return rendered(self._place.ref(GROUP, "v1", "DestinationRule", name), spec, {})

    def settled(self, objects: Mapping[Ref, Object]) -> str:
        """Return why the tables do not count: by status where it is kept, and by asking.

        Istio keeps no status unless it is told to, so every edge is asked each time: no word is no
        yes. While the kill switch is thrown there is nobody to ask.
        """
        for ref in (self.main, self.kill, self.assigner):
            found = objects[ref]
            seen = int(found.get("status", {}).get("observedGeneration") or 0)
            wanted = int(found["metadata"].get("generation", 0))
            if seen and seen < wanted:
                return f"{ref} is seen in generation {seen}, not {wanted}"
        hands = delegates(objects[self.root])
        if hands not in ([self.main.name], [self.kill.name]):
            return f"{self.root} hands its host to {hands}, not to {self.main.name}"
        if hands == [self.kill.name]:
            return ""
        asked = (self.ask(table) for table in tables_of(objects[self.main]).values())
        return next((said for said in asked if said), "")

    def before(self, now: TrafficTable, then: TrafficTable, /) -> bool:
        """Return whether kill rules and assigner are written before the tables."""
        return changes_salt(now, then)

    def killed(self, server: Server) -> str:
        """Return who turned the root to the kill rules; empty while it is at the tables."""
        try:
            root = server.get(self.root)
        except Missing:
            return ""
        if self.kill.name not in delegates(root):
            return ""
        why = root["metadata"].get("annotations", {}).get("penstock.io/why", "no reason given")
        return f"{self.root} hands everybody to {self.kill.name}: {why}"

    def ready(self, server: Server, slot: str) -> bool:
        """Return whether a slot's InferenceService is ready."""
        return self._place.serves(server, slot)

    def ask(self, table: TrafficTable) -> str:
        """Ask through every edge; return what answers otherwise than a table says."""
        return edges.ask(table, self._place)

    def throw(self) -> list[str]:
        """Return the command by which a person throws the kill switch; it needs nothing of ours."""
        return self._turned(self.kill, why="WHY")

    def clear(self) -> list[str]:
        """Return the command by which a person clears it."""
        return self._turned(self.main, why=None)

    def _turned(self, ref: Ref, *, why: str | None) -> list[str]:
        patch = {
            "metadata": {"annotations": {"penstock.io/why": why}},
            "spec": {"http": [{"delegate": self._delegate(ref)}]},
        }
        command = ["kubectl", "-n", self._place.namespace, "patch", "virtualservice"]
        command += [self.root.name, "--type=merge", "--field-manager=penstock-kill"]
        return [*command, "-p", json.dumps(patch)]


def delegates(root: Object) -> list[str]:
    """Return whom a root hands its host to."""
    return [str(h.get("delegate", {}).get("name")) for h in root.get("spec", {}).get("http", [])]


def host_of(place: Place, slot: str) -> str:
    """Return a slot's Service in full: a short name would mean the rule's own namespace."""
    return f"{place.service(slot)}.{place.namespace}.svc.cluster.local"


def rules_of(tables: Mapping[str, TrafficTable], place: Place) -> list[Rule]:
    """Return the rules of all markets, that of everybody last."""
    return [rule for table in in_order(tables) for rule in market_rules(table, place)]


def market_rules(table: TrafficTable, place: Place) -> list[Rule]:
    """Return a market's rules: the challenger's users, then everybody else."""
    rules: list[Rule] = []
    if table.challenger is not None and table.buckets:
        whole = table.buckets == BUCKETS
        # Who comes without a bucket is nobody's to expose: shares are listed, never excluded.
        below = [_exactly("x-rollout-bucket", n) for n in range(table.buckets)]
        buckets: list[Object] = [{}] if whole else below
        rules.append(_rule(table, "challenger", table.challenger, buckets, place))
        if whole:
            return rules
    rules.append(_rule(table, "champion", table.champion, [{}], place))
    return rules


def kill_rules(tables: Mapping[str, TrafficTable], place: Place) -> list[Rule]:
    """Return one rule for each market, to its fallback; nothing is copied."""
    return [
        _rule(table, "fallback", fallback_of(table), [{}], place, copies=False)
        for table in in_order(tables)
    ]


def _exactly(name: str, value: object) -> Object:
    return {name: {"exact": str(value)}}


def _rule(
    table: TrafficTable,
    arm: str,
    slot: str,
    buckets: Sequence[Object],
    place: Place,
    *,
    copies: bool = True,
) -> Rule:
    market = _exactly("x-market", table.market) if matches_market(table) else {}
    conditions = [{**market, **bucket} for bucket in buckets]
    rule: Rule = {"match": [{"headers": found} for found in conditions]} if conditions[0] else {}
    rule |= {
        "route": [{"destination": {"host": host_of(place, slot), "subset": USERS}}],
        # Servers take a host that ends in -shadow for the mark of a copy; nobody may forge it.
        "rewrite": {"authority": place.host},
        "headers": {
            "request": {"set": dict(said_by(table, arm)), "remove": [*SECRETS, *FORGED]},
            "response": {"set": {"x-penstock-arm": arm}},
        },
        "timeout": f"{(place.timeout_ms + SLACK_MS) / 1000:g}s",
        # Only what never reached the model: said here, since Istio's own default tries more often.
        "retries": {
            "attempts": 1,
            "retryOn": "connect-failure,refused-stream,reset-before-request",
        },
    }
    for other, percent in copies_of(table, slot) if copies else []:
        rule["mirror"] = {"host": host_of(place, other), "subset": COPIES}
        rule["mirrorPercentage"] = {"value": percent}
    return rule


def _pool(connections: int, requests: int) -> Object:
    http = {
        "http1MaxPendingRequests": requests,
        "http2MaxRequests": requests,
        # Shorter than the server keeps a connection, so that it never closes one under a request.
        "idleTimeout": "30s",
    }
    tcp = {"maxConnections": connections, "connectTimeout": "0.25s"}
    return {"connectionPool": {"tcp": tcp, "http": http}}


def _outliers() -> Object:
    """Eject who is silent or answers 502 to 504; a model's 500 must be seen by the release."""
    return {
        "outlierDetection": {
            "consecutiveGatewayErrors": SILENT,
            "consecutive5xxErrors": 0,
            "interval": "0.5s",
            "baseEjectionTime": f"{EJECTED_S}s",
            "maxEjectionPercent": 100,
        }
    }
