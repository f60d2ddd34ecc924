"""Whole stories, on real parts: a version's way to its users or back, and who answered them.

The stories share one home, in which one release follows the other as in a real one. Nothing here
looks at the clock: the ledger tells what was done in which order and why, users tell who answered.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.ledger import Stage, stage_of, serving_order
from penstock.rollout.plan import Phase
from tests.stories.house import POLICY, House, Story, answered

pytestmark = pytest.mark.timeout(600)

FORWARD = ["shadow", "canary 15 %", "progressive 50 %", "progressive 100 %", "bake"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One home, whose version 1 answers everybody."""
    made = House(path=tmp_path_factory.mktemp("stories"))
    try:
        made.begin()
        yield made
    finally:
        made.end()


def entered(story: Story) -> list[str | None]:
    """Return the steps that were entered, in order."""
    return [step for act, step in story.way if act == "enter"]


def test_a_good_version_is_promoted(house: House):
    """Every step in order, no user without an answer; the version before stands by, warm."""
    with house.conducted() as conductor, house.users():
        story = house.story(house.release(conductor))
        house.carry(conductor, lambda state: False)
        old, new = story.entries[0].body["champion"], story.entries[0].body["challenger"]

        assert story.state.phase is Phase.DONE, story
        assert entered(story) == FORWARD
        assert story.way[-1][0] == "finish"
        assert story.moves == ["STAGING", "SHADOW", "CANARY", "PRODUCTION"]
        table = house.plane.observe()
        assert (table.champion, table.trickle) == (new["slot"], old["slot"])
        assert house.plane.ready(old["slot"])
        assert house.plane.verify_slot(old["slot"]) == ""
    assert set(answered(house.saw())) == {str(old["version"]), str(new["version"])}, story
    assert serving_order(house.entries())[:2] == [new["version"], old["version"]]
