"""Replicas: every pod of a slot, asked at its own address; one that was forgotten is found.

A Service shows one pod at a time, by chance. What stands behind it is in its EndpointSlices, and
each of them is asked: who says that a slot serves a version says it of all of its pods.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from penstock.bundle import Bundle
from penstock.rollout import asking
from penstock.rollout.adapters.edges import answer
from penstock.rollout.adapters.place import Place
from penstock.rollout.adapters.server import Object, Server

SERVICE = "kubernetes.io/service-name"
"""Label of an EndpointSlice: whose it is."""

PREDICTOR = "-predictor"
TIMEOUT_S = 3.0
AT_ONCE = 8
PROBE = {"x-rollout-arm": "probe", "content-type": "application/json"}
"""Requests of ours are in the prediction log as those of a probe, and no evidence."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """What one pod says of itself."""

    url: str
    slot: str = ""
    version: str = ""
    problem: str = ""
    """Why it says nothing; empty where it does."""


def addresses(server: Server, place: Place, slot: str) -> list[str]:
    """Return the URL of every pod that a slot's Service sends requests to.

    Raises:
        TableError: The API server does not say.
    """
    return _pods(server, place, place.service(slot))


def behind(server: Server, place: Place, slot: str) -> list[str]:
    """Return the URL of every predictor behind a slot's transformers; none where there are none.

    A transformer says who answered it, and asks one predictor at a time.

    Raises:
        TableError: The API server does not say.
    """
    if place.suffix == PREDICTOR:
        return []
    return _pods(server, place, f"{place.name}-{slot}{PREDICTOR}")


def _pods(server: Server, place: Place, service: str) -> list[str]:
    ref = place.ref("discovery.k8s.io", "v1", "EndpointSlice", service)
    slices = server.labelled(ref, labels={SERVICE: service})
    return sorted({url for found in slices for url in _urls(found)})


def _urls(found: Object) -> Iterator[str]:
    port = _port(cast("list[Object]", found.get("ports") or []))
    for endpoint in cast("list[Object]", found.get("endpoints") or []):
        conditions: Mapping[str, Any] = endpoint.get("conditions") or {}
        # Nothing said is ready, as the API describes it.
        if conditions.get("ready", True) is not False and port:
            for address in endpoint["addresses"]:
                host = f"[{address}]" if ":" in address else address
                yield f"http://{host}:{port}"


def _port(ports: Sequence[Object]) -> int | None:
    """Return the port that answers HTTP: the one named so, or the only one there is."""
    plain = [p for p in ports if str(p.get("name") or "").startswith(("http", "v1", "v2"))]
    found = next(iter([*plain, *ports]), None)
    return None if found is None else found.get("port")


def said_by(urls: Sequence[str], model: str) -> list[Replica]:
    """Return what each pod says of itself."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_said, model=model), urls))


def _said(url: str, model: str) -> Replica:
    headers = {"host": urlsplit(url).netloc, **PROBE}
    try:
        status, said = answer(url, f"/v2/models/{model}/ready", headers, timeout_s=TIMEOUT_S)
    except OSError as e:
        return Replica(url=url, problem=f"{url} does not answer: {e}")
    problem = "" if status == 200 else f"{url} answers {status}"
    slot, version = said.get("x-penstock-slot", ""), said.get("x-penstock-version", "")
    return Replica(url=url, slot=slot, version=version, problem=problem)


def other_than(replicas: Sequence[Replica], slot: str, version: str) -> str:
    """Return what of a slot's pods is otherwise than it should be; empty where all are right."""
    if not replicas:
        return f"slot {slot} has no pod that is ready"
    for one in replicas:
        if one.problem:
            return one.problem
        if (one.slot, one.version) != (slot, version):
            return (
                f"{one.url} answers as slot {one.slot or 'unknown'}, version "
                f"{one.version or 'unknown'}; slot {slot} serves version {version}"
            )
    return ""


def golden(urls: Sequence[str], slot: str, bundle: Bundle, model: str) -> str:
    """Return what is wrong with the golden answers of any pod; empty where all are right."""
    if not urls:
        return f"slot {slot} has no pod that is ready"

    def said(url: str) -> str:
        return asking.golden_of(_ask(url), slot, bundle, model)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return next(filter(None, pool.map(said, urls)), "")


def _ask(url: str) -> Callable[[str, bytes], asking.Answered]:
    def ask(path: str, body: bytes) -> asking.Answered:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, body, PROBE)
            found = connection.getresponse()
            held = found.read()
        except (OSError, http.client.HTTPException) as e:
            raise asking.NoAnswer(f"{url} does not answer: {e}") from e
        finally:
            connection.close()
        return found.status, held, {k.lower(): v for k, v in found.getheaders()}

    return ask
