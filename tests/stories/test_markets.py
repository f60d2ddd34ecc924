"""The story of two markets: one goes by itself, one waits for people, both serve the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock.release import Market
from penstock.rollout import approvals, documents
from penstock.rollout.branches import champion_in, same_digest
from penstock.rollout.past import PAGED
from penstock.rollout.plan import Phase, plan_of
from penstock.rollout.state import IN_FORCE
from tests.people import person
from tests.stories.house import APPROVER, COMPLIANCE, POLICY, House, Story, answered

pytestmark = pytest.mark.timeout(600)

PAPER = "impact-assessment"
MARKETS = replace(
    POLICY,
    canary_percents=(50, 100),
    markets=(
        Market(name="us", canary_percents=(50, 100)),
        Market(name="eu", canary_percents=(50, 100), approve=True, documents=(PAPER,)),
    ),
)


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A home whose version 1 answers both markets."""
    made = House(path=tmp_path_factory.mktemp("markets"), policy=MARKETS, markets="us=0.5,eu=0.5")
    try:
        made.begin()
        yield made
    finally:
        made.end()


def test_one_market_goes_by_itself_and_the_other_asks_people(house: House, tmp_path: Path):
    """Neither moves because the other did; who was not asked is on the version before."""
    with house.conducted() as conductor, house.users():
        version = house.register()
        us, eu = (
            house.story(house.release(conductor, version=version, market=market))
            for market in ("us", "eu")
        )
        house.carry(conductor)
        assert us.state.phase is Phase.DONE, us
        assert (eu.state.phase, eu.state.step) == (Phase.SHADOW, 0), eu
        house.users_come(100)
        by_market = {m: answered(s for s in house.saw() if s["market"] == m) for m in ("us", "eu")}
        assert set(by_market["eu"]) == {"1"}
        assert set(by_market["us"]) == {"1", str(version)}
        assert conductor.controller(eu.release).waits_for == "documents"
        paged = [e.body["command"] for e in eu.entries if e.kind == PAGED]
        assert paged == [f"penstock release attach {eu.release} {PAPER} FILE"]

        paper = tmp_path / "paper.txt"
        paper.write_text("nobody is treated worse")
        before = us.entries
        documents.attach(
            house.path, house.ledger, "streamrec", version, PAPER, paper,
            actor=person(COMPLIANCE), now=datetime.now(UTC),
        )  # fmt: skip
        approved = 0
        while eu.state.phase is not Phase.DONE and approved < 5:
            house.carry(conductor)
            if eu.state.phase is Phase.AWAIT:
                approve(house, eu)
                approved += 1

        assert eu.state.phase is Phase.DONE, eu
        assert approved == 2, eu
        assert us.entries == before
    entries = house.entries()
    assert {champion_in(entries, market, MARKETS) for market in ("us", "eu")} == {version}
    proof = same_digest(entries, version)
    assert proof.holds
    assert {release for release, _ in proof.released} == {us.release, eu.release}
    assert last_of(us).sequence < eu.entries[-1].sequence
    assert set(answered(house.saw())) == {"1", str(version)}


def approve(house: House, story: Story) -> None:
    """Let somebody independent approve what waits."""
    plan = plan_of(MARKETS, market=story.state.market)
    approvals.grant(
        house.ledger, story.state, plan, reason="as it should be", actor=person(APPROVER),
        now=datetime.now(UTC),
    )  # fmt: skip


def last_of(story: Story):
    """Return the entry by which a release ended."""
    return [e for e in story.entries if e.kind == IN_FORCE][-1]
