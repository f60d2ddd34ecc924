"""Laws of the renderings: a gateway that follows the published rules sends users as tables say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.release import EVERYWHERE
from penstock.rollout.adapters.annotated import Tables, table_of
from penstock.rollout.adapters.gateway import METHODS, Gateway, kill_rules, route_spec
from penstock.rollout.adapters.istio import Istio
from penstock.rollout.adapters.knative import Knative, Revisions
from penstock.rollout.adapters.place import fallback_of
from penstock.rollout.ports import TableError
from penstock.rollout.table import BUCKETS, RULES, SLOTS, TrafficTable
from tests.rollout.adapters import published
from tests.rollout.adapters.interpreting import Answer, Asked, by_routes, by_virtual_services
from tests.rollout.adapters.stage import (
    HOST,
    LABELS,
    PLACE,
    first,
    table,
    tables_of_market,
    tables_of_markets,
)

GATEWAY, ISTIO = Gateway(PLACE), Istio(PLACE, gateway_labels=LABELS)
KINDS = ("gateway", "istio")

buckets = st.none() | st.integers(0, BUCKETS - 1)
markets = st.sampled_from([None, "eu", "us", "mars", "EU"])
paths = st.sampled_from(
    ["/v2/models/digits/infer", "/v1/models/digits:predict", "/v2", "/v2/health/live", "/metrics"]
)
methods = st.sampled_from(METHODS)


def asked_by(bucket: int | None, market: str | None, path: str, method: str) -> Asked:
    """Return a request as it leaves the assigner."""
    headers = {} if bucket is None else {"x-rollout-bucket": str(bucket)}
    headers |= {"x-market": market} if market else {}
    return Asked(HOST, path, method, tuple(headers.items()))


def sent(kind: str, tables: Tables, asked: Asked, *, killed: bool) -> Answer | None:
    """Return where rendered objects send a request."""
    if kind == "gateway":
        found = {m["metadata"]["name"]: m for m in GATEWAY.manifests(tables)}
        routes = [found["digits"], found["digits-kill"]]
        if killed:
            found["digits-kill"]["spec"]["parentRefs"] = [{"name": "edge"}]
        return by_routes(routes, asked)
    found = {
        m["metadata"]["name"]: m for m in ISTIO.manifests(tables) if m["kind"] == "VirtualService"
    }
    if killed:
        found["digits"]["spec"]["http"] = [{"delegate": {"name": "digits-kill"}}]
    return by_virtual_services(found, "digits", asked)


def wanted(tables: Tables, bucket: int | None, market: str | None, *, killed: bool) -> Answer:
    """Return what the tables say, in their own words."""
    by = tables[market] if market in tables else tables[EVERYWHERE]
    # Who has no bucket is exposed to nothing, until everybody is.
    slot = by.slot_for(BUCKETS - 1 if bucket is None else bucket)
    if killed:
        return Answer(PLACE.service(fallback_of(by)), "fallback", by.market, ())
    copies = []
    if by.mirror is not None and slot == by.champion:
        copies.append((PLACE.service(by.mirror), 100.0))
    if by.trickle is not None:
        copies.append((PLACE.service(by.trickle), 1.0))
    arm = "challenger" if slot == by.challenger and by.buckets else "champion"
    return Answer(PLACE.service(slot), arm, by.market, tuple(copies))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(tables_of_markets(), buckets, markets, paths, methods, st.booleans())
def test_what_is_rendered_is_what_the_tables_say(
    kind: str,
    tables: Tables,
    bucket: int | None,
    market: str | None,
    path: str,
    method: str,
    killed: bool,
):
    """Slot, arm, market and copies of any request, with and without the kill switch."""
    if kind == "gateway" and matches(tables) > 128:
        with pytest.raises(TableError, match="Istio adapter"):
            GATEWAY.manifests(tables)
        return
    asked = asked_by(bucket, market, path, method)

    found = sent(kind, tables, asked, killed=killed)

    assert found == wanted(tables, bucket, market, killed=killed)


def matches(tables: Tables) -> int:
    """Return how many matches tables need, counted by hand."""
    return sum(1 if t.buckets == BUCKETS else t.buckets + 1 for t in tables.values())


@settings(max_examples=60, deadline=None)
@given(tables_of_markets(), buckets, markets, st.sampled_from(["infer", "ready"]))
def test_the_kill_switch_needs_no_rank_of_methods(
    tables: Tables, bucket: int | None, market: str | None, verb: str
):
    """A gateway that counts a method as a header still sends every question of a model's there."""
    if matches(tables) > 128:
        return
    routes = GATEWAY.manifests(tables)
    routes[0]["spec"]["parentRefs"] = [{"name": "edge"}]
    asked = asked_by(bucket, market, f"/v2/models/digits/{verb}", "POST")

    found = by_routes([routes[0], routes[-1]], asked, methods_rank=False)

    assert found == wanted(tables, bucket, market, killed=True)


@settings(max_examples=60, deadline=None)
@given(tables_of_market(), st.integers(0, BUCKETS - 1), st.integers(0, BUCKETS))
def test_a_growing_share_moves_nobody_back(grown: TrafficTable, bucket: int, more: int):
    """Whoever the smaller share sends to the challenger, the rendering of a larger one does too."""
    small, large = sorted((grown.buckets, more))
    other = "b" if grown.champion == "a" else "a"
    base = replace(grown, challenger=other, trickle=None, mirror=None)
    asked = asked_by(bucket, None, "/v2/models/digits/infer", "POST")

    before, after = (
        sent("gateway", {EVERYWHERE: replace(base, buckets=n)}, asked, killed=False)
        for n in (small, large)
    )

    assert before is not None
    assert after is not None
    if before.arm == "challenger":
        assert after.arm == "challenger"


@pytest.mark.parametrize("count", range(BUCKETS + 1))
def test_one_market_fits_at_any_share(count: int):
    """At most 64 matches and two rules: any share of one market is within the limits."""
    challenger = "b" if count else None
    spec = route_spec({EVERYWHERE: table(challenger=challenger, buckets=count)}, PLACE)

    assert len(spec["rules"]) <= 2
    assert sum(len(rule["matches"]) for rule in spec["rules"]) <= 64


@settings(max_examples=60, deadline=None)
@given(tables_of_markets(), st.sampled_from(["eu", "us", EVERYWHERE]))
def test_a_way_back_always_fits_where_the_way_there_did(tables: Tables, market: str):
    """Whatever was rendered, the table that gives a market back to its champion is rendered too."""
    try:
        GATEWAY.manifests(tables)
    except TableError:
        return
    held = table_of(tables, market)
    back = replace(held, challenger=None, buckets=0, mirror=None, trickle=None)

    assert GATEWAY.manifests({**tables, market: back})


@pytest.mark.parametrize(
    "tables",
    [
        first(),
        first(challenger="b", mirror="b"),
        first(challenger="b", buckets=6, mirror="b"),
        first(challenger="b", buckets=63),
        first(challenger="b", buckets=64, trickle="a", fallback=RULES),
        {
            **first(challenger="b", buckets=16),
            "eu": table(market="eu", challenger="b", buckets=32, salt='a"\\\n'),
            "us": table(market="us", challenger="b", buckets=64, trickle="a"),
        },
    ],
    ids=["first", "shadow", "canary", "nearly all", "bake", "three markets"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_renderings_are_what_the_published_schemas_take(kind: str, tables: Tables):
    """No field that they do not know, none of another form, and nothing that a default changes."""
    published.need()
    for found in _manifests(kind, tables):
        assert published.wrong(found) == []
        assert published.with_defaults(found) == found, "a default would look like a foreign change"
        assert published.broken_rules(found) == []


def _manifests(kind: str, tables: Tables) -> list[dict[str, Any]]:
    return (GATEWAY if kind == "gateway" else ISTIO).manifests(tables)


def test_the_schemas_refuse_what_is_wrong():
    """A field nobody knows, a method that is none, and one match more than a route may have."""
    published.need()
    found = GATEWAY.manifests(first(challenger="b", buckets=63))[-1]
    rules = found["spec"]["rules"]

    unknown = {**found, "spec": {**found["spec"], "weight": 1}}
    assert "weight" in published.wrong(unknown)[0]

    rules[0]["matches"][0]["method"] = "SEND"
    assert "SEND" in published.wrong(found)[0]
    del rules[0]["matches"][0]["method"]

    found["spec"]["rules"] = [rules[0]] * 3
    assert published.wrong(found) == []
    assert "total number of matches" in published.broken_rules(found)[0]


def test_more_markets_than_the_kill_route_holds_are_refused():
    """Rather than leave one without a kill switch."""
    tables = {f"m{n}": table(market=f"m{n}") for n in range(12)} | first()

    with pytest.raises(TableError, match="room for 11"):
        kill_rules(tables, PLACE)


REVISIONS = Revisions(a="digits-00001", b="digits-00002")


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        (first(challenger="b", buckets=6), "same user would meet both"),
        (first(mirror="b"), "mirrors nothing"),
        (first(trickle="b"), "mirrors nothing"),
        ({**first(), "eu": table(market="eu")}, "markets"),
    ],
)
def test_knative_refuses_what_it_would_say_wrongly(tables: Tables, why: str):
    """With the reason and the adapter that can."""
    with pytest.raises(TableError, match=rf"{why}.*Istio adapter"):
        Knative(PLACE, REVISIONS).manifests(tables)


@pytest.mark.parametrize("count", [0, BUCKETS])
def test_knative_says_everybody_or_nobody(count: int):
    """All traffic to the revision of the slot that answers, in the form of the schema."""
    tables = first(challenger="b" if count else None, buckets=count)
    dialect = Knative(PLACE, REVISIONS)

    (found,) = dialect.manifests(tables)

    percents = {t["tag"]: t["percent"] for t in found["spec"]["traffic"]}
    answering = tables[EVERYWHERE].slot_for(0)
    assert percents == {slot: 100 if slot == answering else 0 for slot in SLOTS}
    assert published.wrong(found) == []
