"""The assigner inside a cluster's gateways: the same Lua as on one machine, with its salts.

On one machine Envoy's routes carry the salt. No route of a cluster can, so it is a line of the
script here, by market: a salt changes only between releases, while nobody is exposed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.release import EVERYWHERE
from penstock.rollout.table import TrafficTable

MARKET = "x-market"
"""Header that says whose user it is; without it, or with another, everybody's table counts."""

_SCRIPT = Path(__file__).parents[1] / "assigner.lua"

_AROUND = """
-- In a cluster: salts by market, and other hosts of this gateway are left alone.
local SALTS = {salts}
local HOST = {host}
local assign = envoy_on_request
function envoy_on_request(handle)
  local headers = handle:headers()
  local asked = string.match(headers:get(":authority") or "", "^[^:]*")
  if string.lower(asked) ~= HOST then
    return
  end
  local salt = SALTS[headers:get("{market}") or "{everywhere}"] or SALTS["{everywhere}"]
  local metadata = {{ get = function(_, name) return name == "salt" and salt or nil end }}
  local seen = {{ metadata = function() return metadata end }}
  setmetatable(seen, {{ __index = function(_, name)
    return function(_, ...) return handle[name](handle, ...) end
  end }})
  assign(seen)
end
"""


def script(tables: Mapping[str, TrafficTable], *, host: str) -> str:
    """Return the Lua that sets ``x-rollout-bucket`` for one host."""
    salts = ", ".join(f"[{_text(m)}] = {_text(t.salt)}" for m, t in sorted(tables.items()))
    around = _AROUND.format(
        salts=f"{{ {salts} }}", host=_text(host), market=MARKET, everywhere=EVERYWHERE
    )
    return _SCRIPT.read_text(encoding="utf-8") + around


def _text(value: str) -> str:
    """Return a string as Lua reads it: bytes that are not plain are numbered."""
    plain = re.sub(
        r"[^A-Za-z0-9_.\- ]",
        lambda found: "".join(f"\\{byte:03d}" for byte in found.group().encode()),
        value,
    )
    return json.dumps(plain).replace("\\\\", "\\")


def filter_of(source: str) -> dict[str, Any]:
    """Return Envoy's filter that runs a script."""
    return {
        "name": "penstock.assigner",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": source},
        },
    }


def patches(source: str) -> list[dict[str, Any]]:
    """Return an EnvoyFilter's patches that put a script before the router of every listener."""
    manager = "envoy.filters.network.http_connection_manager"
    router = {"name": manager, "subFilter": {"name": "envoy.filters.http.router"}}
    return [
        {
            "applyTo": "HTTP_FILTER",
            "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": router}}},
            "patch": {"operation": "INSERT_BEFORE", "value": filter_of(source)},
        }
    ]
