"""What users are told: every replica of a gateway is asked, and none may say otherwise."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from penstock.rollout.adapters.assigner import MARKET
from penstock.rollout.adapters.place import Place, matches_market
from penstock.rollout.table import BUCKETS, TrafficTable, bucket_of

TIMEOUT_S = 5.0
TIMES = 3
"""Questions of each kind to each edge: a slot has several pods behind one name."""

Heard = dict[str, set[str]]
"""Versions that answered, by slot."""


def ask(table: TrafficTable, place: Place) -> str:
    """Ask through every edge as users of every arm; return what answers otherwise than the table.

    A slot that answers as two versions is wrong too: one replica was forgotten.
    """
    heard: Heard = {}
    for edge in place.edges:
        for bucket in _buckets(table):
            if said := _one(edge, bucket, table, place, heard):
                return said
    mixed = {slot: versions for slot, versions in heard.items() if len(versions) > 1}
    return "; ".join(
        f"slot {slot} answers as versions {', '.join(sorted(versions))}: some replica serves "
        "another one"
        for slot, versions in sorted(mixed.items())
    )


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


def answer(edge: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Ask an edge; return status and headers, names in lower case.

    Raises:
        OSError: It does not answer.
    """
    connection = _connection(edge, headers["host"])
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


def _connection(edge: str, host: str) -> http.client.HTTPConnection:
    """Return a connection to one replica, whose certificate is the host's that users ask for."""
    parts = urlsplit(edge)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    if parts.scheme == "https":
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 443, timeout=TIMEOUT_S
        )
        connection.connect()
        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
    return connection
