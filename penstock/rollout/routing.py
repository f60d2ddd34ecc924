"""Where a request goes: the table as Envoy's routes, the slots as its clusters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock.rollout.edge import TOKENS, TYPES, address
from penstock.rollout.table import SLOTS, TrafficTable

ROUTES = "users"
"""Name of the route configuration."""

PROBE = "x-penstock-probe-slot"
PATIENCE = 0.3
"""Part of a request's time after which the champion is asked beside a silent challenger.

With the usual second a hanging challenger costs its users 0.3 s, until it is ejected.
"""

OPEN = ("/v2/health/live", "/v2/health/ready")
"""Paths that need no token: they say yes or no, and a load balancer asks them."""

_REFUSED = [400, 404, 413, 422, 429]
"""A challenger may refuse what the champion takes: another contract, another limit."""

_LUA = "envoy.filters.http.lua"
_SILENT, _EJECTED_S = 5, 5
_WAITING = 1024
_COPIES = 16

_AT_ONCE = {"update_merge_window": "0s"}
"""What becomes of a slot's health is heard at once; by default Envoy waits up to a second."""


def routes(table: TrafficTable, *, timeout_ms: float) -> dict[str, Any]:
    """Return the route file of a table: probes, health, challenger, champion, in this order.

    Args:
        timeout_ms: Time in which a server says it has answered.
    """
    rules = [_probe(slot, table, timeout_ms) for slot in SLOTS]
    rules += [_open(path, table, timeout_ms) for path in OPEN]
    if table.challenger is not None and table.buckets:
        rules.append(_challenger(table, table.challenger, timeout_ms))
    rules.append(_champion(table, timeout_ms))
    kind = f"{TYPES}config.route.v3.RouteConfiguration"
    made = _configuration(table, rules, timeout_ms)
    return {"version_info": str(table.sequence), "resources": [{"@type": kind, **made}]}


def _configuration(
    table: TrafficTable, rules: list[dict[str, Any]], timeout_ms: float
) -> dict[str, Any]:
    """Return a route configuration that carries the table it was made of."""
    text = json.dumps(table.to_dict(), sort_keys=True)
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
                    "filter_metadata": {"penstock": {"table": text, "timeout_ms": timeout_ms}}
                },
            }
        ],
    }


def held(configuration: Mapping[str, Any]) -> tuple[TrafficTable, float]:
    """Return the table that a route configuration carries, and the servers' time.

    Raises:
        KeyError, IndexError, ValueError: It carries none.
    """
    kept = configuration["virtual_hosts"][0]["metadata"]["filter_metadata"]["penstock"]
    return TrafficTable.from_dict(json.loads(kept["table"])), float(kept["timeout_ms"])


def _rule(arm: str, cluster: str, table: TrafficTable, timeout_ms: float) -> dict[str, Any]:
    def header(name: str, value: str) -> list[dict[str, Any]]:
        return [
            {
                "header": {"key": name, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]

    return {
        "match": {"prefix": "/"},
        "metadata": {"filter_metadata": {_LUA: {"salt": table.salt}}},
        "request_headers_to_add": header("x-rollout-arm", arm),
        # What is refused before it is sent on has no arm.
        "response_headers_to_add": header("x-penstock-arm", "%REQ(X-ROLLOUT-ARM)%"),
        "route": {
            "cluster": cluster,
            # Servers take a host that ends in -shadow for the mark of a copy; nobody may forge it.
            "host_rewrite_literal": "penstock",
            "timeout": _seconds(timeout_ms + 1000.0),
        },
    }


def _matching(rule: dict[str, Any], name: str, condition: dict[str, Any]) -> dict[str, Any]:
    rule["match"]["headers"] = [{"name": name, **condition}]
    return rule


def _probe(slot: str, table: TrafficTable, timeout_ms: float) -> dict[str, Any]:
    rule = _rule("probe", slot, table, timeout_ms)
    return _matching(rule, PROBE, {"string_match": {"exact": slot}})


def _open(path: str, table: TrafficTable, timeout_ms: float) -> dict[str, Any]:
    rule = _rule("champion", table.champion, table, timeout_ms)
    rule["match"] = {"path": path}
    asks_nothing = {"@type": f"{TYPES}extensions.filters.http.rbac.v3.RBACPerRoute"}
    rule["typed_per_filter_config"] = {TOKENS: asks_nothing}
    return rule


def _challenger(table: TrafficTable, slot: str, timeout_ms: float) -> dict[str, Any]:
    """Let the champion answer where the challenger does not, does so late, or fails.

    A model's answer changes nothing in the world, so asking twice is safe. Nothing is hidden from
    the release: the challenger's own log has every failure.
    """
    rule = _rule("challenger", f"{slot}-then-{table.champion}", table, timeout_ms)
    rule["route"] |= {
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,5xx,retriable-status-codes",
            "retriable_status_codes": _REFUSED,
            "num_retries": 1,
            "per_try_timeout": _seconds(timeout_ms * PATIENCE),
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
    below = {"range_match": {"start": 0, "end": table.buckets}}
    return _matching(rule, "x-rollout-bucket", below)


def _champion(table: TrafficTable, timeout_ms: float) -> dict[str, Any]:
    rule = _rule("champion", table.champion, table, timeout_ms)
    # Only what never reached the model: there is nobody else to ask.
    rule["route"]["retry_policy"] = {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": 1,
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.05s"},
    }
    if table.mirror is not None:
        mark = {"header": {"key": "x-rollout-shadow", "value": "1"}}
        rule["route"]["request_mirror_policies"] = [
            {"cluster": f"{table.mirror}-shadow", "request_headers_mutations": [{"append": mark}]}
        ]
    return rule


def clusters(
    slots: Mapping[str, int], model: str, *, timeout_ms: float, in_flight: int
) -> list[dict[str, Any]]:
    """Return each slot, its pool of copies, and each slot with the other behind it.

    Args:
        timeout_ms: Time in which a server says it has answered.
        in_flight: Requests that a server works on at once; it refuses the next, which Envoy
            therefore keeps back. Copies take their part of them.
    """
    copies = min(_COPIES // 2, max(1, in_flight // 4))
    users = max(1, in_flight - copies)
    found = [_slot(slot, port, model, users) for slot, port in slots.items()]
    found += [_shadow(slot, port, model, timeout_ms, copies) for slot, port in slots.items()]
    return [*found, _fallback("a", "b"), _fallback("b", "a")]


def _cluster(name: str, port: int, model: str, *, longest: str | None) -> dict[str, Any]:
    # Shorter than the server keeps a connection, so that it never closes one under a request.
    options: dict[str, Any] = {"idle_timeout": "30s"}
    if longest is not None:
        options["max_stream_duration"] = longest
    protocol = f"{TYPES}extensions.upstreams.http.v3.HttpProtocolOptions"
    host = {"endpoint": {"address": address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "common_lb_config": _AT_ONCE,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [host]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": protocol,
                "common_http_protocol_options": options,
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "health_checks": [
            {
                "timeout": "0.5s",
                "interval": "0.25s",
                "no_traffic_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": f"/v2/models/{model}/ready"},
            }
        ],
    }


def _slot(slot: str, port: int, model: str, connections: int) -> dict[str, Any]:
    """Return the pool of a slot's users.

    A champion that looks ill is asked nevertheless, since nobody else may answer its users; that
    is Envoy's panic routing, and a challenger has the champion behind it instead.
    """
    return {
        **_cluster(slot, port, model, longest=None),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": connections,
                    "max_pending_requests": _WAITING,
                    "max_requests": _WAITING,
                    "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 3},
                }
            ]
        },
        "outlier_detection": {
            # Silence ejects (it counts as a 504), and 502 to 504 do. A model's 500 does not: the
            # champion answers that user, and the release must see how often it happens. Silence is
            # not counted apart, as each new connection to a silent server would end the count.
            "consecutive_gateway_failure": _SILENT,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "interval": "0.5s",
            "base_ejection_time": f"{_EJECTED_S}s",
            "max_ejection_time": f"{_EJECTED_S}s",
            "max_ejection_percent": 100,
            # A server can say it is ready and still answer nobody.
            "successful_active_health_check_uneject_host": False,
        },
    }


def _shadow(
    slot: str, port: int, model: str, timeout_ms: float, connections: int
) -> dict[str, Any]:
    """Copies go through a small pool of their own: a slow shadow loses copies, nobody else."""
    limits = {
        "max_connections": connections,
        "max_pending_requests": _COPIES,
        "max_requests": _COPIES,
        "max_retries": 0,
    }
    return {
        **_cluster(f"{slot}-shadow", port, model, longest=_seconds(timeout_ms)),
        "common_lb_config": _AT_ONCE | {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [limits]},
    }


def _fallback(first: str, second: str) -> dict[str, Any]:
    """Return one slot with another behind it.

    Retries are counted here, and as many are let through as the second slot takes requests: its
    own breaker is the limit, since it must be able to answer everybody at any moment.
    """
    limits = {
        "max_connections": 2 * _WAITING,
        "max_pending_requests": 2 * _WAITING,
        "max_requests": 2 * _WAITING,
        "max_retries": _WAITING,
    }
    return {
        "name": f"{first}-then-{second}",
        "connect_timeout": "0.25s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": {"thresholds": [limits]},
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": f"{TYPES}extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [first, second],
            },
        },
    }


def _seconds(ms: float) -> str:
    return f"{ms / 1000.0:.3f}s"
