"""What a gateway makes of rendered objects: the published precedence, and nothing of ours.

HTTPRoute: the description of ``spec.rules.matches`` in the schema of gateway-api v1.6.1 (exact
path, longest prefix, method, most headers; then the oldest route, then its name; then the earlier
rule). VirtualService: istio.io/latest/docs/reference/config/networking/virtual-service, the first
match in order, a delegate in its root's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Where a request goes."""

    service: str
    arm: str
    market: str
    copies: tuple[tuple[str, float], ...]
    """Service and percent of each copy."""


@dataclass(frozen=True)
class Asked:
    """A request as a gateway sees it."""

    host: str
    path: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()


def by_routes(
    routes: Iterable[Object], asked: Asked, *, methods_rank: bool = True
) -> Answer | None:
    """Return where HTTPRoutes that are attached send a request; None is a 404.

    Args:
        methods_rank: As published; False is a gateway that counts a method as one more header.
    """
    found: list[tuple[Any, Object]] = []
    for route in routes:
        spec = route["spec"]
        if not spec.get("parentRefs") or asked.host not in spec["hostnames"]:
            continue
        for at, rule in enumerate(spec["rules"]):
            ranks = [_rank(m, asked, methods_rank) for m in rule["matches"]]
            found += [((*rank, _age(route), at), rule) for rank in ranks if rank is not None]
    if not found:
        return None
    return _routed(min(found, key=lambda pair: pair[0])[1])


def _age(route: Object) -> tuple[str, str]:
    metadata = route["metadata"]
    return metadata.get("creationTimestamp", ""), f"{metadata['namespace']}/{metadata['name']}"


def _rank(match: Object, asked: Asked, methods_rank: bool) -> tuple[int, int, int, int] | None:
    """Return how a match ranks, lowest first; None where it does not match."""
    path, headers = match["path"], dict(asked.headers)
    exact = path["type"] == "Exact"
    prefix = path["value"].rstrip("/")
    on_path = (
        asked.path == path["value"]
        if exact
        else asked.path == prefix or asked.path.startswith(f"{prefix}/")
    )
    wanted = match.get("headers", [])
    if not on_path or any(headers.get(h["name"]) != h["value"] for h in wanted):
        return None
    if match.get("method", asked.method) != asked.method:
        return None
    if methods_rank:
        return (not exact, -len(path["value"]), "method" not in match, -len(wanted))
    return (not exact, -len(path["value"]), 0, -len(wanted) - ("method" in match))


def _routed(rule: Object) -> Answer:
    (backend,) = rule["backendRefs"]
    filters = {f["type"]: f for f in rule["filters"]}
    said = {
        h["name"]: h["value"]
        for h in filters["RequestHeaderModifier"]["requestHeaderModifier"]["set"]
    }
    copies = [f["requestMirror"] for f in rule["filters"] if f["type"] == "RequestMirror"]
    return Answer(
        service=backend["name"],
        arm=said["x-rollout-arm"],
        market=said["x-rollout-market"],
        copies=tuple((c["backendRef"]["name"], float(c.get("percent", 100))) for c in copies),
    )


def by_virtual_services(objects: Mapping[str, Object], root: str, asked: Asked) -> Answer | None:
    """Return where a root VirtualService sends a request; None is a 404."""
    if asked.host not in objects[root]["spec"]["hosts"]:
        return None
    for rule in _handed(objects, root):
        matches = rule.get("match", [{}])
        if any(_fits(match, asked) for match in matches):
            return _turned(rule)
    return None


def _handed(objects: Mapping[str, Object], name: str) -> Iterable[Object]:
    for rule in objects[name]["spec"]["http"]:
        if "delegate" in rule:
            yield from _handed(objects, rule["delegate"]["name"])
        else:
            yield rule


def _fits(match: Object, asked: Asked) -> bool:
    headers = dict(asked.headers)
    return all(headers.get(n) == c["exact"] for n, c in match.get("headers", {}).items())


def _turned(rule: Object) -> Answer:
    (route,) = rule["route"]
    said = rule["headers"]["request"]["set"]
    mirror = rule.get("mirror")
    copies = ((_short(mirror["host"]), float(rule["mirrorPercentage"]["value"])),) if mirror else ()
    return Answer(
        service=_short(route["destination"]["host"]),
        arm=said["x-rollout-arm"],
        market=said["x-rollout-market"],
        copies=copies,
    )


def _short(host: str) -> str:
    return host.split(".", maxsplit=1)[0]
