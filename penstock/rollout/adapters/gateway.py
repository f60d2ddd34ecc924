"""Gateway API: the tables of all markets as one HTTPRoute, the kill switch as another.

A route may have 16 rules and 128 matches. A share of k of 64 buckets is k exact matches, all users
are one, so one market at any share takes 64 at most; several markets that are split at once must
stay below 128 together, and a table that does not is refused before anything is written. A way
back always has fewer matches than what it leaves.

Within a route the match with more headers counts, then the earlier rule: a market's challenger (two
headers) before its champion (one), and both before everybody's challenger (one, but later).

The kill route lies ready and is attached to nothing. A person attaches it with one kubectl patch;
nothing of ours does, and a server-side apply that never names ``parentRefs`` cannot detach it. Its
paths are longer than those of the tables, or name the method as well, and both count more than
any number of headers: no table can route around it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock.rollout.adapters import assigner, edges
from penstock.rollout.adapters.annotated import Tables, annotation, in_order
from penstock.rollout.adapters.cluster import Part
from penstock.rollout.adapters.place import (
    FORGED,
    SECRETS,
    SLACK_MS,
    Place,
    changes_salt,
    copies_of,
    fallback_of,
    holds,
    matches_market,
    milliseconds,
    rendered,
    said_by,
)
from penstock.rollout.adapters.server import Missing, Object, Ref, Server
from penstock.rollout.ports import TableError
from penstock.rollout.table import BUCKETS, TrafficTable

GROUP = "gateway.networking.k8s.io"
RULES, MATCHES = 16, 128
"""Most rules of an HTTPRoute and most matches of all of them, by its published schema."""

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
ANSWERED = ("/v1", "/v2")
"""Below them is everything that a model answers."""

SWITCH = "parentRefs"
"""Of the kill route: a person's field. With it the route counts."""

Rule = dict[str, Any]


class Gateway:
    """The :class:`penstock.rollout.adapters.cluster.Dialect` of Gateway API."""

    def __init__(self, place: Place, *, istio: bool = True) -> None:
        """Take the place.

        Args:
            istio: The gateway is Istio's, so that the assigner is an EnvoyFilter kept here. With
                another implementation whoever runs it sets ``x-rollout-bucket``.
        """
        self._place = place
        self.main = place.ref(GROUP, "v1", "HTTPRoute", place.name)
        self.kill = place.ref(GROUP, "v1", "HTTPRoute", f"{place.name}-kill")
        self.assigner = place.assigner()
        self.gateway = Ref(
            group=GROUP,
            version="v1",
            plural="gateways",
            kind="Gateway",
            name=place.gateway,
            namespace=place.gateway_namespace,
        )
        self.reads = (self.gateway,)
        kill = Part(ref=self.kill, render=self._killing, theirs=(SWITCH,), pinned=thrown)
        assigning = Part(ref=self.assigner, render=self._assigning)
        route = Part(ref=self.main, render=lambda tables: route_spec(tables, place))
        self.parts = (kill, assigning, route) if istio else (kill, route)

    def _killing(self, tables: Mapping[str, TrafficTable]) -> Object:
        return {"hostnames": [self._place.host], "rules": kill_rules(tables, self._place)}

    def _assigning(self, tables: Mapping[str, TrafficTable]) -> Object:
        gateway = {"group": GROUP, "kind": "Gateway", "name": self._place.gateway}
        source = assigner.script(tables, host=self._place.host)
        return {"targetRefs": [gateway], "configPatches": assigner.patches(source)}

    def manifests(self, tables: Tables) -> list[Object]:
        """Return what a person creates once, with the first tables."""
        return [rendered(p.ref, p.render(tables), annotation(tables)) for p in self.parts]

    def settled(self, objects: Mapping[Ref, Object]) -> str:
        """Return what the gateway has not said yes to; empty where it has to all."""
        gateway = objects[self.gateway]
        generation = int(gateway["metadata"].get("generation", 0))
        said = holds(gateway.get("status", {}).get("conditions", []), "Programmed", generation)
        if said:
            return f"{self.gateway}: {said}"
        return self._accepted(objects[self.main])

    def _accepted(self, route: Object) -> str:
        generation = int(route["metadata"].get("generation", 0))
        parents = route.get("status", {}).get("parents", [])
        mine = [p for p in parents if p.get("parentRef", {}).get("name") == self._place.gateway]
        if not mine:
            return f"{self.main}: no gateway has said anything of it yet"
        for parent in mine:
            for kind in ("Accepted", "ResolvedRefs"):
                if said := holds(parent.get("conditions", []), kind, generation):
                    return f"{self.main}: {said}"
        return ""

    def before(self, now: TrafficTable, then: TrafficTable, /) -> bool:
        """Return whether kill route and assigner are written before the route."""
        return changes_salt(now, then)

    def killed(self, server: Server) -> str:
        """Return who attached the kill route; empty while it is attached to nothing."""
        try:
            found = server.get(self.kill)
        except Missing:
            return ""
        if not thrown(found):
            return ""
        why = found["metadata"].get("annotations", {}).get("penstock.io/why", "no reason given")
        return f"{thrower(found)}: {why}"

    def ready(self, server: Server, slot: str) -> bool:
        """Return whether a slot's InferenceService is ready."""
        return self._place.serves(server, slot)

    def ask(self, table: TrafficTable) -> str:
        """Ask through every edge; return what answers otherwise than a table says."""
        return edges.ask(table, self._place)

    def throw(self) -> list[str]:
        """Return the command by which a person throws the kill switch; it needs nothing of ours."""
        patch = {
            "metadata": {"annotations": {"penstock.io/why": "WHY"}},
            "spec": {SWITCH: [parent(self._place)]},
        }
        return self._patch(patch)

    def clear(self) -> list[str]:
        """Return the command by which a person clears it."""
        return self._patch({"spec": {SWITCH: None}})

    def _patch(self, patch: Object) -> list[str]:
        command = ["kubectl", "-n", self._place.namespace, "patch", "httproute", self.kill.name]
        return [*command, "--type=merge", "--field-manager=penstock-kill", "-p", json.dumps(patch)]


def thrown(kill: Object) -> bool:
    """Return whether a kill route is attached."""
    return bool(kill.get("spec", {}).get(SWITCH))


def thrower(kill: Object) -> str:
    """Return the manager that holds the kill route's switch."""
    for entry in kill["metadata"].get("managedFields", []):
        if f"f:{SWITCH}" in entry.get("fieldsV1", {}).get("f:spec", {}):
            return f"{entry.get('manager', '')} at {entry.get('time', '')}"
    return "somebody"


def route_spec(tables: Mapping[str, TrafficTable], place: Place) -> Object:
    """Return the route of tables.

    Raises:
        TableError: They need more rules or matches than a route may have.
    """
    rules = [rule for table in in_order(tables) for rule in market_rules(table, place)]
    matches = sum(len(rule["matches"]) for rule in rules)
    if len(rules) > RULES or matches > MATCHES:
        raise TableError(
            f"{len(tables)} markets need {len(rules)} rules and {matches} matches, and an "
            f"HTTPRoute has {RULES} and {MATCHES}; let fewer markets be split at once, or use the "
            "Istio adapter, which has no such limit."
        )
    return {"hostnames": [place.host], SWITCH: [parent(place)], "rules": rules}


def parent(place: Place) -> Object:
    """Return the gateway as a route names it."""
    return {
        "group": GROUP,
        "kind": "Gateway",
        "name": place.gateway,
        "namespace": place.gateway_namespace,
    }


def market_rules(table: TrafficTable, place: Place) -> list[Rule]:
    """Return a market's rules: the challenger's users, and everybody else where there are any."""
    market = [_exactly("x-market", table.market)] if matches_market(table) else []
    rules: list[Rule] = []
    if table.challenger is not None and table.buckets:
        whole = table.buckets == BUCKETS
        # Who comes without a bucket is nobody's to expose: shares are listed, never excluded.
        buckets = [[]] if whole else [[_exactly("x-rollout-bucket", n)] for n in _below(table)]
        matches = [_match([*market, *bucket]) for bucket in buckets]
        rules.append(_rule(table, "challenger", table.challenger, matches, place))
        if whole:
            return rules
    rules.append(_rule(table, "champion", table.champion, [_match(market)], place))
    return rules


def _below(table: TrafficTable) -> list[str]:
    return [str(n) for n in range(table.buckets)]


def kill_rules(tables: Mapping[str, TrafficTable], place: Place) -> list[Rule]:
    """Return rules that count more than any rule of a table: one to each market's fallback."""
    rules: list[Rule] = []
    for table in in_order(tables):
        market = [_exactly("x-market", table.market)] if matches_market(table) else []
        matches = [_match(market, path=path) for path in ANSWERED]
        matches += [_match(market) | {"method": method} for method in METHODS]
        rules.append(_rule(table, "fallback", fallback_of(table), matches, place, copies=False))
    if sum(len(rule["matches"]) for rule in rules) > MATCHES:
        most = MATCHES // (len(ANSWERED) + len(METHODS))
        raise TableError(f"{len(rules)} markets; the kill route has room for {most}.")
    return rules


def _exactly(name: str, value: str) -> Object:
    return {"type": "Exact", "name": name, "value": value}


def _match(headers: list[Object], *, path: str = "/") -> Object:
    found: Object = {"path": {"type": "PathPrefix", "value": path}}
    return found | ({"headers": headers} if headers else {})


def _rule(
    table: TrafficTable,
    arm: str,
    slot: str,
    matches: list[Object],
    place: Place,
    *,
    copies: bool = True,
) -> Rule:
    filters: list[Object] = [
        {
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {
                "set": [{"name": n, "value": v} for n, v in said_by(table, arm).items()],
                "remove": [*SECRETS, *FORGED],
            },
        },
        {
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": "x-penstock-arm", "value": arm}]},
        },
    ]
    for other, percent in copies_of(table, slot) if copies else []:
        mirror = {"backendRef": _backend(place, other), "percent": percent}
        filters.append({"type": "RequestMirror", "requestMirror": mirror})
    return {
        "matches": matches,
        "filters": filters,
        "backendRefs": [_backend(place, slot) | {"weight": 1}],
        "timeouts": {"request": milliseconds(place.timeout_ms + SLACK_MS)},
    }


def _backend(place: Place, slot: str) -> Object:
    return {"group": "", "kind": "Service", "name": place.service(slot), "port": place.port}
