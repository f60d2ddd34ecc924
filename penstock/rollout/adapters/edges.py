"""What users are told: every replica of a gateway is asked, and none may say otherwise."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from penstock.rollout.adapters.assigner import MARKET
from penstock.rollout.adapters.place import Place, matches_market
from penstock.rollout.table import BUCKETS, TrafficTable, bucket_of

TIMEOUT_S = 5.0
TIMES = 3
"""Questions of each kind to each edge: a slot has several pods behind one name."""

NAMED = "dns:"
"""Before the URL of an edge whose name means several addresses, all of which are asked."""

Heard = dict[str, set[str]]
"""Versions that answered, by slot."""


def ask(table: TrafficTable, place: Place) -> str:
    """Ask through every edge as users of every arm; return what answers otherwise than the table.

    A slot that answers as two versions is wrong too: one replica was forgotten.
    """
    heard: Heard = {}
    try:
        edges = [url for edge in place.edges for url in replicas_of(edge)]
    except OSError as e:
        return f"an edge of {place.host} is not found: {e}"
    for edge in edges:
        for bucket in _buckets(table):
            if said := _one(edge, bucket, table, place, heard):
                return said
    mixed = {slot: versions for slot, versions in heard.items() if len(versions) > 1}
    return "; ".join(
        f"slot {slot} answers as versions {', '.join(sorted(versions))}: some replica serves "
        "another one"
        for slot, versions in sorted(mixed.items())
    )


def replicas_of(edge: str) -> list[str]:
    """Return the URL of each replica: a plain one is its own, ``dns:URL`` all that its name means.

    A gateway's pods come and go; the name of a headless Service in front of them always means all.

    Raises:
        OSError: The name means nothing.
    """
    if not edge.startswith(NAMED):
        return [edge]
    parts = urlsplit(edge.removeprefix(NAMED))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    hosts = sorted({str(address[0]) for *_, address in found})
    return [f"{parts.scheme}://{f'[{h}]' if ':' in h else h}:{port}" for h in hosts]


def _one(edge: str, bucket: int, table: TrafficTable, place: Place, heard: Heard) -> str:
    """Ask one edge as a user of a bucket; note the versions."""
    wanted = table.slot_for(bucket)
    headers = {"host": place.host, "x-user-id": user_in(table.salt, bucket)}
    if matches_market(table):
        headers[MARKET] = table.market
    for _ in range(TIMES):
        try:
            status, said = answer(edge, f"/v2/models/{place.model}/ready", headers)
        except OSError as e:
            return f"edge {edge} does not answer: {e}"
        slot, version = said.get("x-penstock-slot", ""), said.get("x-penstock-version", "")
        if status != 200 or slot != wanted or not version:
            return (
                f"edge {edge} answers users of bucket {bucket} with {status} from slot "
                f"{slot or 'unknown'}, version {version or 'unknown'}; the table says {wanted}"
            )
        heard.setdefault(slot, set()).add(version)
    return ""


def _buckets(table: TrafficTable) -> Iterable[int]:
    """Return buckets at both sides of every border of a table."""
    return sorted({0, max(0, table.buckets - 1), min(BUCKETS - 1, table.buckets), BUCKETS - 1})


def user_in(salt: str, bucket: int) -> str:
    """Return the name of a user who falls into a bucket; no person has it."""
    n = 0
    while bucket_of(salt, f"penstock-probe-{n}") != bucket:
        n += 1
    return f"penstock-probe-{n}"


def answer(
    edge: str, path: str, headers: Mapping[str, str], *, timeout_s: float = TIMEOUT_S
) -> tuple[int, dict[str, str]]:
    """Ask an edge; return status and headers, names in lower case.

    Raises:
        OSError: It does not answer.
    """
    connection = _connection(edge, headers["host"], timeout_s)
    try:
        connection.request("GET", path, headers=dict(headers))
        found = connection.getresponse()
        found.read()
    except http.client.HTTPException as e:
        raise ConnectionError(f"no HTTP: {e}") from e
    else:
        return found.status, {name.lower(): value for name, value in found.getheaders()}
    finally:
        connection.close()


def _connection(edge: str, host: str, timeout_s: float) -> http.client.HTTPConnection:
    """Return a connection to one replica, whose certificate is the host's that users ask for."""
    parts = urlsplit(edge)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    if parts.scheme == "https":
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 443, timeout=timeout_s
        )
        connection.connect()
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
    return connection
