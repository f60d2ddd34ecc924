"""Where a request goes: the tables of all markets as Envoy's routes, in one file.

The order is the meaning: the owner's probes, the health questions, then market by market the kill
switch, the challenger's users and everybody else. The market of everybody comes last, and takes
whoever names no market, or one that has no table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from penstock.release import EVERYWHERE
from penstock.rollout.edge import TOKENS, TYPES
from penstock.rollout.pools import SHADOW, STANDBY, seconds
from penstock.rollout.table import RULES, SLOTS, TrafficTable

ROUTES = "users"
"""Name of the route configuration."""

PROBE = "x-penstock-probe-slot"
MARKET = "x-market"
"""Header by which a caller says whose users these are, in lower case."""

PATIENCE = 0.3
"""Part of a request's time after which the champion is asked beside a silent challenger.

With the usual second a hanging challenger costs its users 0.3 s, until it is ejected.
"""

OPEN = ("/v2/health/live", "/v2/health/ready")
"""Paths that need no token: they say yes or no, and a load balancer asks them."""

ANSWERING = (*SLOTS, RULES)
"""Slots that can be asked: two of versions, and the one of the rules."""

KILL_KEY = "penstock.kill"
"""Beginning of the runtime keys by which everybody is sent to one slot, whatever a table says."""

_REFUSED = [400, 404, 413, 422, 429]
"""A challenger may refuse what the champion takes: another contract, another limit."""

_LUA = "envoy.filters.http.lua"
_TRICKLE = 1
"""Of a hundred requests, those that a standby gets a copy of."""

Rule = dict[str, Any]


def routes(tables: Iterable[TrafficTable], *, timeout_ms: float) -> dict[str, Any]:
    """Return the route file of tables, one of each market.

    Args:
        timeout_ms: Time in which a server says it has answered.

    Raises:
        ValueError: There is none of everybody, or two of one market.
    """
    held = _in_order(tables)
    everybody = held[-1]
    rules = [_probe(slot, timeout_ms) for slot in ANSWERING]
    for path in OPEN:
        rules += [_killed(_open(path, slot, timeout_ms), slot) for slot in ANSWERING]
        rules.append(_open(path, everybody.champion, timeout_ms))
    for table in held:
        rules += _of_market(table, timeout_ms)
    kind = f"{TYPES}config.route.v3.RouteConfiguration"
    version = ",".join(f"{table.market}:{table.sequence}" for table in held)
    made = _configuration(held, rules, timeout_ms)
    return {"version_info": version, "resources": [{"@type": kind, **made}]}


def _in_order(tables: Iterable[TrafficTable]) -> list[TrafficTable]:
    held = sorted(tables, key=lambda table: (table.market == EVERYWHERE, table.market))
    names = [table.market for table in held]
    if len(set(names)) < len(names) or EVERYWHERE not in names:
        raise ValueError(
            f"tables of the markets {', '.join(names)}; there must be one of each, and one of "
            f"{EVERYWHERE!r} for everybody else."
        )
    return held


def _configuration(
    tables: Iterable[TrafficTable], rules: list[Rule], timeout_ms: float
) -> dict[str, Any]:
    """Return a route configuration that carries the tables it was made of."""
    text = json.dumps({t.market: t.to_dict() for t in tables}, sort_keys=True)
    return {
        "name": ROUTES,
        "validate_clusters": True,
        "virtual_hosts": [
            {
                "name": ROUTES,
                "domains": ["*"],
                "routes": rules,
                # Servers need no secret to answer, and what they lack they cannot log.
                "request_headers_to_remove": ["authorization", "proxy-authorization", "cookie"],
                "metadata": {
                    "filter_metadata": {"penstock": {"tables": text, "timeout_ms": timeout_ms}}
                },
            }
        ],
    }


def held(configuration: Mapping[str, Any]) -> tuple[dict[str, TrafficTable], float]:
    """Return the tables that a route configuration carries, by market, and the servers' time.

    Raises:
        KeyError, IndexError, ValueError: It carries none.
    """
    kept = configuration["virtual_hosts"][0]["metadata"]["filter_metadata"]["penstock"]
    tables = {m: TrafficTable.from_dict(t) for m, t in json.loads(kept["tables"]).items()}
    return tables, float(kept["timeout_ms"])


def _of_market(table: TrafficTable, timeout_ms: float) -> list[Rule]:
    rules = [_killed(_rule("fallback", slot, timeout_ms), slot) for slot in ANSWERING]
    if table.challenger is not None and table.buckets:
        rules.append(_challenger(table, table.challenger, timeout_ms))
    rules.append(_champion(table, timeout_ms))
    for rule in rules:
        rule["metadata"] = {"filter_metadata": {_LUA: {"salt": table.salt}}}
        rule["request_headers_to_add"] += _header("x-rollout-market", table.market)
        if table.market != EVERYWHERE:
            _matching(rule, MARKET, {"string_match": {"exact": table.market}})
    return rules


def _rule(arm: str, cluster: str, timeout_ms: float) -> Rule:
    return {
        "match": {"prefix": "/"},
        "request_headers_to_add": _header("x-rollout-arm", arm),
        # What is refused before it is sent on has no arm.
        "response_headers_to_add": _header("x-penstock-arm", "%REQ(X-ROLLOUT-ARM)%"),
        "route": {
            "cluster": cluster,
            # Servers take a host that ends in -shadow for the mark of a copy; nobody may forge it.
            "host_rewrite_literal": "penstock",
            "timeout": seconds(timeout_ms + 1000.0),
        },
    }


def _header(name: str, value: str) -> list[Rule]:
    return [
        {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    ]


def _matching(rule: Rule, name: str, condition: dict[str, Any]) -> Rule:
    rule["match"].setdefault("headers", []).append({"name": name, **condition})
    return rule


def _probe(slot: str, timeout_ms: float) -> Rule:
    return _matching(_rule("probe", slot, timeout_ms), PROBE, {"string_match": {"exact": slot}})


def _killed(rule: Rule, slot: str) -> Rule:
    """Let a rule count while the kill switch sends everybody to a slot, and never otherwise.

    Envoy reads the switch from files of its own, so that no table and no controller decides it.
    """
    never = {"numerator": 0, "denominator": "HUNDRED"}
    rule["match"]["runtime_fraction"] = {
        "default_value": never,
        "runtime_key": f"{KILL_KEY}.{slot}",
    }
    rule["route"].setdefault("retry_policy", _UNREACHED)
    return rule


def _open(path: str, slot: str, timeout_ms: float) -> Rule:
    rule = _rule("champion", slot, timeout_ms)
    rule["match"] = {"path": path}
    asks_nothing = {"@type": f"{TYPES}extensions.filters.http.rbac.v3.RBACPerRoute"}
    rule["typed_per_filter_config"] = {TOKENS: asks_nothing}
    return rule


def _challenger(table: TrafficTable, slot: str, timeout_ms: float) -> Rule:
    """Let the champion answer where the challenger does not, does so late, or fails.

    A model's answer changes nothing in the world, so asking twice is safe. Nothing is hidden from
    the release: the challenger's own log has every failure.
    """
    rule = _rule("challenger", f"{slot}-then-{table.champion}", timeout_ms)
    rule["route"] |= {
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,5xx,retriable-status-codes",
            "retriable_status_codes": _REFUSED,
            "num_retries": 1,
            "per_try_timeout": seconds(timeout_ms * PATIENCE),
            "retry_back_off": {"base_interval": "0.002s", "max_interval": "0.01s"},
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {
                    "@type": f"{TYPES}extensions.retry.priority.previous_priorities.v3."
                    "PreviousPrioritiesConfig",
                    "update_frequency": 1,
                },
            },
        },
        # The first try is not cut off: whoever answers first is heard, and the champion has all
        # the time that is left.
        "hedge_policy": {"hedge_on_per_try_timeout": True},
    }
    _copied(rule, table, mirrored=False)
    below = {"range_match": {"start": 0, "end": table.buckets}}
    return _matching(rule, "x-rollout-bucket", below)


_UNREACHED = {
    # Only what never reached the model: there is nobody else to ask.
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 1,
    "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.05s"},
}


def _champion(table: TrafficTable, timeout_ms: float) -> Rule:
    rule = _rule("champion", table.champion, timeout_ms)
    rule["route"]["retry_policy"] = _UNREACHED
    return _copied(rule, table, mirrored=True)


def _copied(rule: Rule, table: TrafficTable, *, mirrored: bool) -> Rule:
    """Send copies: to the slot in shadow of what the champion answers, to the standby of all."""
    copies: list[Rule] = []
    if mirrored and table.mirror is not None:
        copies.append(_copy(f"{table.mirror}{SHADOW}", _header("x-rollout-shadow", "1")))
    if table.trickle is not None:
        mark = _header("x-rollout-shadow", "1") + _header("x-rollout-arm", "standby")
        some = {"numerator": _TRICKLE, "denominator": "HUNDRED"}
        copy = _copy(f"{table.trickle}{STANDBY}", mark)
        copies.append(copy | {"runtime_fraction": {"default_value": some}})
    if copies:
        rule["route"]["request_mirror_policies"] = copies
    return rule


def _copy(cluster: str, marks: list[Rule]) -> Rule:
    return {"cluster": cluster, "request_headers_mutations": [{"append": mark} for mark in marks]}
