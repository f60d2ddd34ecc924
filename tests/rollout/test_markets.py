"""Laws of markets and of the standby, on a real Envoy: each market its table, one route file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.rollout import written
from penstock.rollout.plane import Plane
from penstock.rollout.ports import Stale
from penstock.rollout.routing import routes
from penstock.rollout.supervisor import COMMAND_VARIABLE
from penstock.rollout.table import TrafficTable, bucket_of
from tests.packages import free_port, make_package, wait_for
from tests.rollout.test_plane import INFER, STANDIN, filled

NAMES = [f"u{n}" for n in range(40)]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One plane of stand-ins with both slots ready."""
    patch = pytest.MonkeyPatch()
    patch.setenv(COMMAND_VARIABLE, STANDIN)
    made = filled(tmp_path_factory.mktemp("markets"))
    yield made
    made.down()
    patch.undo()


def put(plane: Plane, market: str, **fields: Any) -> TrafficTable:
    """Put a market's table in force and return it."""
    same = {"salt": f"of {market}", "champion": "a", "challenger": None, "buckets": 0}
    made = TrafficTable(
        sequence=plane.written(market).sequence + 1,
        market=market,
        **{**same, "mirror": None, **fields},  # type: ignore[arg-type]
    )
    plane.apply(made)
    plane.wait_applied(made, timeout_s=5)
    return made


def asked(client: httpx.Client, user: str, market: str | None) -> httpx.Response:
    """Return the answer to a user of a market."""
    told = {"x-user-id": user} | ({} if market is None else {"x-market": market})
    return client.post(INFER, headers=told)


def copies(plane: Plane, slot: str) -> list[Mapping[str, str]]:
    """Return the headers of what a slot was asked."""
    path = plane.log_folder(slot) / "seen.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["headers"] for line in lines]


def test_each_market_has_its_own_table(plane: Plane):
    """A user of a market is sent by its table, everybody else by that of everybody."""
    tables = {
        "eu": put(plane, "eu", challenger="b", buckets=16),
        "us": put(plane, "us", challenger="b", buckets=64),
        "all": put(plane, "all"),
    }
    with httpx.Client(base_url=plane.url) as client:
        for market, held in tables.items():
            for user in NAMES:
                answer = asked(client, user, None if market == "all" else market)
                said = answer.json()
                bucket = bucket_of(held.salt, user)
                assert int(said["x-rollout-bucket"]) == bucket
                assert answer.headers["x-penstock-slot"] == held.slot_for(bucket)
                assert said["x-rollout-market"] == market
        for unknown in ("EU", "fr", "eu,us", ""):
            assert asked(client, "u1", unknown).json()["x-rollout-market"] == "all"
    assert {m: plane.observe(m) for m in tables} == tables
    assert [plane.verify(held) for held in tables.values()] == ["", "", ""]
    for market in ("eu", "us"):
        put(plane, market)


def test_a_market_that_a_caller_makes_up_for_the_server_is_cut_off(plane: Plane):
    """The market in the log is the edge's word, not the caller's."""
    forged = {"x-user-id": "u", "x-rollout-market": "us"}

    said = httpx.post(plane.url + INFER, headers=forged).json()

    assert said["x-rollout-market"] == "all"


def test_verify_names_what_is_wrong(plane: Plane):
    """Another table in force, or a slot that does not answer, is said."""
    held = put(plane, "all", challenger="b", buckets=32)
    assert plane.verify(held) == ""
    assert "is in force" in plane.verify(replace(held, sequence=held.sequence + 1))
    plane.stop_slot("b")
    wait_for(lambda: plane.verify(held) != "", 5)
    assert "slot b" in plane.verify(held)
    plane.set_slot("b", package=plane.home, digest="sha256:1", version="2")
    plane.wait_ready("b", version="2", timeout_s=20)
    put(plane, "all")


def test_a_standby_gets_a_hundredth_of_all_requests(plane: Plane):
    """Copies of about one in a hundred, of champion's and challenger's users, marked as such."""
    put(plane, "all", champion="a", challenger="b", buckets=64, trickle="a")
    before = len(copies(plane, "a"))
    with httpx.Client(base_url=plane.url) as client:
        for n in range(1500):
            assert asked(client, f"s{n}", None).headers["x-penstock-slot"] == "b"

    wait_for(lambda: len(copies(plane, "a")) > before, 5)
    found = copies(plane, "a")[before:]
    # Binomial of 1500 and 0.01: outside once in ten thousand times.
    assert 2 <= len(found) <= 34
    assert {c["x-rollout-arm"] for c in found} == {"standby"}
    assert {c["x-rollout-shadow"] for c in found} == {"1"}
    assert all(c["host"].split(":")[0].endswith("-shadow") for c in found)
    put(plane, "all")


def test_writers_of_different_markets_lose_nothing(plane: Plane):
    """Tables that are written at once, each of its own market, are all there afterwards."""

    def write(market: str) -> None:
        for _ in range(20):
            held = plane.written(market)
            plane.apply(replace(held, sequence=held.sequence + 1))

    names = ["all", "eu", "us"]
    before = {m: plane.written(m).sequence for m in names}
    workers = [threading.Thread(target=write, args=(m,)) for m in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert {m: plane.written(m).sequence - n for m, n in before.items()} == dict.fromkeys(names, 20)


def test_one_market_never_moves_because_another_did(plane: Plane):
    """A stale table of one market is refused, and those of the others stay as they are."""
    eu = put(plane, "eu", challenger="b", buckets=8)
    everybody = put(plane, "all")
    with pytest.raises(Stale, match="market eu"):
        plane.apply(replace(eu, buckets=64))

    assert plane.written("eu") == eu
    assert plane.written("all") == everybody
    put(plane, "eu")


MARKETS = st.sets(st.sampled_from(["br", "eu", "us", "jp"]))


@given(MARKETS, st.integers(0, 64))
def test_everybody_comes_last_and_every_table_is_found_again(markets: set[str], buckets: int):
    """The route file holds what was put in; the last route takes whoever is left."""
    made = {
        m: TrafficTable(
            sequence=n,
            salt=m,
            champion="a",
            challenger="b",
            buckets=buckets,
            mirror=None,
            market=m,
        )
        for n, m in enumerate([*markets, "all"])
    }
    (resource,) = routes(made.values(), timeout_ms=1000)["resources"]

    assert written.held(resource)[0] == made
    last = resource["virtual_hosts"][0]["routes"][-1]
    assert "headers" not in last["match"]
    assert last["route"]["cluster"] == "a"


def test_tables_without_one_of_everybody_are_refused():
    """Somebody must answer users without a market."""
    eu = TrafficTable(
        sequence=1, salt="", champion="a", challenger=None, buckets=0, mirror=None, market="eu"
    )

    with pytest.raises(ValueError, match="everybody"):
        routes([eu], timeout_ms=1000)


def test_a_slot_is_known_by_its_golden_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A real server that gives them is right; one whose package is another is named."""
    monkeypatch.delenv(COMMAND_VARIABLE, raising=False)
    package = make_package(tmp_path / "package")
    plane = Plane.up(tmp_path / "home", model="digits", port=free_port())
    try:
        plane.set_slot("a", package=package.path, digest=package.digest, version="1")
        plane.wait_ready("a", version="1", timeout_s=60)
        wait_for(lambda: plane.verify_slot("a") == "", 5)
        other = make_package(tmp_path / "other", seed=8)
        # As if the folder of the package had been exchanged under a running server.
        package.path.rename(tmp_path / "away")
        other.path.rename(package.path)
        assert "apart" in plane.verify_slot("a")
        assert plane.verify_slot("b") == "slot b serves nothing"
    finally:
        plane.down()
