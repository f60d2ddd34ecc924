"""Both markets are served by the one package that was registered, on real servers and Envoy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import httpx
import pytest

from penstock.bundle import Bundle
from penstock.rollout.branches import same_digest
from penstock.rollout.plane import Plane
from penstock.rollout.table import TrafficTable
from tests.packages import GOLDEN, body, free_port, make_package
from tests.rollout.markets import Story

MARKETS = ("us", "eu")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Bundle]:
    """Two versions' packages."""
    folder = tmp_path_factory.mktemp("packages")
    return {n: make_package(folder / str(n), seed=n) for n in (1, 2)}


@pytest.fixture(scope="module")
def plane(
    packages: Mapping[int, Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plane]:
    """Version 1 in slot a and version 2 in slot b, started by the digests that were registered."""
    made = Plane.up(tmp_path_factory.mktemp("home"), model="digits", port=free_port())
    try:
        for slot, version in (("a", 1), ("b", 2)):
            held = packages[version]
            made.set_slot(slot, package=held.path, digest=held.digest, version=str(version))
        for slot, version in (("a", 1), ("b", 2)):
            made.wait_ready(slot, version=str(version), timeout_s=60)
        yield made
    finally:
        made.down()


def put(plane: Plane, market: str, buckets: int) -> None:
    """Give a share of a market's users to version 2."""
    held = TrafficTable(
        sequence=plane.written(market).sequence + 1,
        salt=f"of {market}",
        champion="a",
        challenger="b",
        buckets=buckets,
        mirror=None,
        market=market,
    )
    plane.apply(held)
    plane.wait_applied(held, timeout_s=5)


def answered(plane: Plane, market: str) -> tuple[str, str, str]:
    """Return the version that answers a user of a market, its package's digest, and the answer."""
    told = {"x-user-id": "u1", "x-market": market}
    answer = httpx.post(
        f"{plane.url}/v2/models/digits/infer", content=body(GOLDEN[:1]), headers=told
    )
    answer.raise_for_status()
    slot = answer.headers["x-penstock-slot"]
    port = plane.status()["slots"][slot]["metrics_port"]
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    digest = re.search(r'digest="(sha256:[0-9a-f]+)"', metrics)
    assert digest is not None
    return answer.headers["x-penstock-version"], digest.group(1), str(answer.json()["outputs"])


def test_both_markets_are_answered_from_one_package(plane: Plane, packages: Mapping[int, Bundle]):
    """What the ledger says of the package, the servers say of themselves, and answer alike."""
    story = Story()
    story.register(2, digest=packages[2].digest)
    for market in MARKETS:
        story.open(2, market, digest=packages[2].digest)
        put(plane, market, 64)

    proof = same_digest(story.entries, 2)
    us, eu = (answered(plane, market) for market in MARKETS)

    assert proof.holds
    assert us == eu
    assert us[:2] == ("2", proof.registered)

    put(plane, "eu", 0)
    assert answered(plane, "us") == us
    assert answered(plane, "eu")[:2] == ("1", packages[1].digest)
