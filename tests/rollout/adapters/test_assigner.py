"""Laws of the assigner in a cluster: a real Envoy runs what is rendered, and hashes as we do."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.assigner import patches, script
from penstock.rollout.envoy import binary
from penstock.rollout.table import bucket_of
from tests.rollout.adapters.stage import HOST, table

TYPES = "type.googleapis.com/envoy.extensions.filters"
SALTS = {EVERYWHERE: "digits/3", "eu": 'a"b\\c\n-é\x00', "us": ""}
TABLES = {market: table(market=market, salt=salt) for market, salt in SALTS.items()}


def configuration() -> dict[str, Any]:
    """Return an Envoy with the rendered filter, which tells what the filter has set."""
    (patch,) = patches(script(TABLES, host=HOST))
    told = [
        {"header": {"key": key, "value": f"%REQ({name})%"}}
        for key, name in (("bucket", "X-ROLLOUT-BUCKET"), ("token", "AUTHORIZATION"))
    ]
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "users",
        "route_config": {
            "response_headers_to_add": told,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        },
        "http_filters": [
            patch["patch"]["value"],
            {"name": "router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}},
        ],
    }
    nowhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "users", "address": nowhere, "filter_chains": [chain]}
    return {"admin": {"address": nowhere}, "static_resources": {"listeners": [listener]}}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a running Envoy."""
    folder = tmp_path_factory.mktemp("assigner")
    (folder / "envoy.json").write_text(json.dumps(configuration()))
    command = [binary(), "-c", "envoy.json", "--admin-address-path", "admin", "-l", "error"]
    command += ["--use-dynamic-base-id", "--concurrency", "1"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield _port(folder, process)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _port(folder: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert process.poll() is None, (folder / "log").read_text()
        if (folder / "admin").exists() and (folder / "admin").read_text():
            host, _, number = (folder / "admin").read_text().rpartition(":")
            admin = http.client.HTTPConnection(host, int(number), timeout=5)
            admin.request("GET", "/listeners?format=json")
            said = json.loads(admin.getresponse().read())
            admin.close()
            if said.get("listener_statuses"):
                status = said["listener_statuses"][0]
                return status["local_address"]["socket_address"]["port_value"]
        time.sleep(0.02)
    raise AssertionError((folder / "log").read_text())


def ask(port: int, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Return status and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/", headers=headers)
    found = connection.getresponse()
    found.read()
    connection.close()
    return found.status, {n.lower(): v for n, v in found.getheaders()}


@pytest.mark.parametrize("market", [None, "eu", "us", "mars"])
def test_a_gateway_hashes_users_as_the_table_does(port: int, market: str | None):
    """By the salt of the user's market, whatever bytes it holds; a forged bucket is overwritten."""
    salt = SALTS.get(market or EVERYWHERE, SALTS[EVERYWHERE])
    for n in range(30):
        headers = {"host": HOST, "x-user-id": f"user-{n}", "x-rollout-bucket": "0"}
        _, said = ask(port, headers | ({"x-market": market} if market else {}))

        assert said["bucket"] == str(bucket_of(salt, f"user-{n}"))


def test_other_hosts_of_the_gateway_are_left_alone(port: int):
    """Neither their users nor their tokens are touched; ours with a port, or in capitals, are."""
    _, other = ask(port, {"host": "shop.example.com", "authorization": "Bearer abc"})
    _, ours = ask(port, {"host": f"{HOST.upper()}:8080", "authorization": "Bearer abc"})

    assert other.get("bucket", "-") == "-"
    assert other["token"] == "Bearer abc"
    assert ours["bucket"].isdigit()
    assert ours["token"].removeprefix("Bearer ") != "abc"


def test_a_request_of_two_users_is_refused(port: int):
    """One user here and another in a server's log would be two."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest("GET", "/", skip_host=True)
    for name, value in (("host", HOST), ("x-user-id", "one"), ("x-user-id", "two")):
        connection.putheader(name, value)
    connection.endheaders()

    assert connection.getresponse().status == 421
    connection.close()
