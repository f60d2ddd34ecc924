"""Pools: each slot as Envoy's clusters, for users, for copies, and with another slot behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.rollout.edge import TYPES, address
from penstock.rollout.table import SLOTS

SHADOW, STANDBY = "-shadow", "-standby"
"""Endings of the names of a slot's pools of copies: of all requests, and of a hundredth."""

_SILENT, _EJECTED_S = 5, 5
_WAITING = 1024
_COPIES = 16
_STANDING_BY = 2
"""Connections for what a standby is asked: a hundredth of all requests, some at once."""

_AT_ONCE = {"update_merge_window": "0s"}
"""What becomes of a slot's health is heard at once; by default Envoy waits up to a second."""


def clusters(
    slots: Mapping[str, int], model: str, *, timeout_ms: float, in_flight: int
) -> list[dict[str, Any]]:
    """Return each slot, its pools of copies, and each slot with the other behind it.

    Args:
        slots: Port of each, on loopback.
        timeout_ms: Time in which a server says it has answered.
        in_flight: Requests that a server works on at once; it refuses the next, which Envoy
            therefore keeps back. Copies take their part of them.
    """
    copies = min(_COPIES // 2, max(1, in_flight // 4))
    users = max(1, in_flight - copies - _STANDING_BY)
    found = [_slot(slot, port, model, users) for slot, port in slots.items()]
    for end, most in ((SHADOW, copies), (STANDBY, _STANDING_BY)):
        found += [_copies(f"{s}{end}", slots[s], model, timeout_ms, most) for s in SLOTS]
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


def _copies(
    name: str, port: int, model: str, timeout_ms: float, connections: int
) -> dict[str, Any]:
    """Copies go through a small pool of their own: a slow shadow loses copies, nobody else."""
    limits = {
        "max_connections": connections,
        "max_pending_requests": _COPIES,
        "max_requests": _COPIES,
        "max_retries": 0,
    }
    return {
        **_cluster(name, port, model, longest=seconds(timeout_ms)),
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


def seconds(ms: float) -> str:
    """Return Envoy's word for a time."""
    return f"{ms / 1000.0:.3f}s"
