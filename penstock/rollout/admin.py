"""What a running Envoy says: its tables, its switch, whom it lets in, what it has sent."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path

from penstock.rollout.envoy import INSIDE, LISTENERS, EnvoyError
from penstock.rollout.routing import ANSWERING, KILL_KEY, held
from penstock.rollout.table import TrafficTable

_LISTENING = ("listener_manager.lds.version_text", "listener_manager.total_listeners_warming")

_ANSWERED = (
    "^(http.users.downstream_rq_(completed|5xx)"
    "|cluster.[ab].upstream_(cx_connect_fail|rq_timeout|cx_destroy_remote_with_active_rq))$"
)


def in_force(admin: str) -> dict[str, TrafficTable]:
    """Return the tables that Envoy itself says it uses, by market.

    Args:
        admin: ``host:port`` of its admin address.

    Raises:
        EnvoyError: It does not answer, or has no table yet.
    """
    try:
        document = json.loads(ask(admin, "GET", "/config_dump?resource=dynamic_route_configs"))
        return held(document["configs"][0]["route_config"])[0]
    except (KeyError, IndexError, ValueError) as e:
        raise EnvoyError(f"Envoy at {admin} does not show its tables: {e}") from e


def admitted(admin: str, folder: Path) -> bool:
    """Return whether Envoy uses the listener file as it is now.

    Raises:
        EnvoyError: It does not answer.
    """
    wanted = json.loads((folder / LISTENERS).read_text(encoding="utf-8"))["version_info"]
    # A listener that was changed in place keeps its old version in the dump; these counts do not.
    said = ask(admin, "GET", f"/stats?filter={'|'.join(_LISTENING)}").decode()
    lines = dict(line.split(": ", 1) for line in said.splitlines())
    return [lines.get(name) for name in _LISTENING] == [f'"{wanted}"', "0"]


def answered(admin: str) -> dict[str, int]:
    """Return how users fared since Envoy started, empty where it does not say.

    ``requests`` came from users, ``failed`` of them were answered 5xx by whomever, and a server
    was asked and ``unreached`` so many times: no connection, no answer in time, or cut off.
    """
    try:
        said = ask(admin, "GET", f"/stats?format=json&filter={_ANSWERED}")
        counts = {one["name"]: int(one["value"]) for one in json.loads(said)["stats"]}
    except (EnvoyError, KeyError, ValueError):
        return {}
    return {
        "requests": counts.get("http.users.downstream_rq_completed", 0),
        "failed": counts.get("http.users.downstream_rq_5xx", 0),
        "unreached": sum(n for name, n in counts.items() if name.startswith("cluster.")),
    }


def switched(admin: str) -> str | None:
    """Return the slot that the kill switch sends everybody to, as Envoy itself has it.

    Raises:
        EnvoyError: It does not answer.
    """
    try:
        held = json.loads(ask(admin, "GET", "/runtime"))["entries"]
        on = {name: one["final_value"] for name, one in held.items()}
    except (KeyError, ValueError) as e:
        raise EnvoyError(f"Envoy at {admin} does not show its kill switch: {e}") from e
    slots = [slot for slot in ANSWERING if on.get(f"{KILL_KEY}.{slot}", "0") != "0"]
    return slots[0] if slots else None


def sent(admin: str) -> dict[str, int]:
    """Return how many requests each slot was sent since Envoy started, copies and probes too.

    Raises:
        EnvoyError: It does not answer.
    """
    asked = "/stats?format=json&filter=^cluster.[a-z]+(-shadow|-standby)?.upstream_rq_total$"
    try:
        said = json.loads(ask(admin, "GET", asked))["stats"]
    except (KeyError, ValueError) as e:
        raise EnvoyError(f"Envoy at {admin} does not count what it sends: {e}") from e
    counts: dict[str, int] = {}
    for one in said:
        slot = one["name"].split(".")[1].partition("-")[0]
        counts[slot] = counts.get(slot, 0) + int(one["value"])
    return counts


def ask(admin: str, method: str, path: str) -> bytes:
    """Return what Envoy's admin interface answers.

    Raises:
        EnvoyError: It does not.
    """
    host, _, port = admin.rpartition(":")
    if not port.isdigit():
        raise EnvoyError(
            "Envoy has not said where its admin interface is; it may still be starting."
        )
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request(method, path)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException) as e:
        raise EnvoyError(f"Envoy at {admin} does not answer: {e}") from e
    finally:
        connection.close()


class Inside(http.client.HTTPConnection):
    """A connection through the socket file of the machine's owner."""

    def __init__(self, folder: Path) -> None:
        """Take Envoy's folder."""
        super().__init__("penstock", timeout=3)
        self._folder = folder

    def connect(self) -> None:
        """Connect by a short name: a socket's name has at most 107 characters."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{INSIDE}")
        finally:
            os.close(folder)
