"""Laws of branches: each market has its own release and champion, over one and the same package."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.ledger import Entry, Stage, champion
from penstock.release import EVERYWHERE, Rollout
from penstock.rollout import folding
from penstock.rollout.branches import BACK, champion_in, kept, same_digest, way
from penstock.rollout.plan import Phase, plan_of
from penstock.rollout.state import Act
from penstock.workload import load
from tests.rollout.markets import DIGEST, Story, a_policy

ALL_THE_WAY = (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)


def promoted(*versions: int) -> Story:
    """Return a story in which versions were promoted before there were releases."""
    story = Story()
    for version in versions:
        story.register(version)
        story.move(version, *ALL_THE_WAY)
    return story


def champions(story: Story) -> tuple[int | None, int | None]:
    """Return who answers in us and in eu."""
    us, eu = (champion_in(story.entries, m, story.policy) for m in ("us", "eu"))
    return us, eu


def test_a_market_changes_its_champion_when_its_own_release_has_finished():
    """Not when it is decided, and not when another market's has."""
    story = promoted(1)
    story.register(2)
    assert champions(story) == (1, 1)

    release = story.open(2, "us")
    story.climb(release)
    story.intend(release, Act.FINISH)
    story.move(2, *ALL_THE_WAY)
    assert champions(story) == (1, 1)

    story.confirm(release)
    assert champions(story) == (2, 1)

    story.finish(2, "eu")
    assert champions(story) == (2, 2)


@pytest.mark.parametrize("act", [Act.ROLL_BACK, Act.FAIL, Act.KILL])
def test_a_release_that_ends_otherwise_leaves_the_champion(act: Act):
    """Whatever it had reached."""
    story = promoted(1)
    story.register(2)
    release = story.open(2, "us")
    if act is not Act.FAIL:
        story.climb(release)
    story.do(release, act)

    assert champions(story) == (1, 1)


def test_a_market_goes_back_by_itself_and_an_archived_version_answers_nowhere():
    """Back is one market's; the archive is everybody's."""
    story = promoted(1)
    story.register(2)
    story.finish(2, "us")
    story.finish(2, "eu")

    story.add(BACK, 2, {"market": "us", "from": 2, "to": 1, "reason": "complaints"})
    assert champions(story) == (1, 2)

    story.move(2, Stage.ARCHIVED)
    assert champions(story) == (1, 1)
    # The newest is not always who it goes back to.
    story.register(4)
    story.register(5)
    for version in (4, 5):
        story.finish(version, "us")
    story.add(BACK, 5, {"market": "us", "from": 5, "to": 1, "reason": "complaints"})
    assert champions(story) == (1, 1)
    for version in (1, 4):
        story.move(version, Stage.ARCHIVED)
    assert champions(story) == (None, None)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12))
def test_one_market_has_the_champion_of_the_ledger(moves: list[tuple[int, bool]]):
    """A policy without markets means what it always meant, by whatever way versions got there."""
    story = Story(policy=a_policy(markets=()))
    stood: dict[int, Stage] = {}
    for version, forward in moves:
        if version not in stood and forward:
            release = story.open(version, EVERYWHERE)
            story.climb(release)
            story.intend(release, Act.FINISH)
            story.move(version, *ALL_THE_WAY)
            assert champion_in(story.entries, EVERYWHERE, story.policy) == version
            story.confirm(release)
            stood[version] = Stage.PRODUCTION
        elif stood.get(version) is Stage.PRODUCTION and not forward:
            story.move(version, Stage.ARCHIVED)
            stood[version] = Stage.ARCHIVED

        found = champion_in(story.entries, EVERYWHERE, story.policy)
        assert found == champion(story.entries)


def test_one_market_goes_back_and_archives_what_it_left():
    """From the entry on that says so, though the version still stands in PRODUCTION."""
    story = promoted(1, 2)
    policy = a_policy(markets=())
    assert kept(story.entries, 2, policy) == "version 2 answers the users of all"

    story.add(BACK, 2, {"market": EVERYWHERE, "from": 2, "to": 1, "reason": "complaints"})

    assert champion_in(story.entries, EVERYWHERE, policy) == 1
    assert kept(story.entries, 2, policy) == ""


def test_what_was_released_everywhere_is_in_every_market():
    """A policy that gets markets later begins with the champion it has."""
    story = Story(policy=a_policy(markets=()))
    story.register(1)
    release = story.open(1, EVERYWHERE)
    story.climb(release)
    story.do(release, Act.FINISH)
    story.move(1, *ALL_THE_WAY)
    story.policy = a_policy()

    assert champions(story) == (1, 1)
    assert champion_in(story.entries, EVERYWHERE, story.policy) == 1


def test_entries_of_before_there_were_releases_are_read():
    """Older controllers wrote intents that name no release; they finish nothing."""
    story = promoted(1)
    story.add("intent", 1, {"action": "finish", "why": "x", "table": {}})
    story.add("in force", 1, {"milliseconds": 1.0})

    assert champions(story) == (1, 1)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["us", "eu"]),
        st.sampled_from(["open", "enter", "await", "back", "finish", "roll back", "return"]),
    ),
    max_size=30,
)


def told(moves: list[tuple[str, str]]) -> list[tuple[str, Entry]]:
    """Return the entries of a history with the market that each belongs to, none for common ones.

    Moves that make no sense where a market stands are left out.
    """
    story = promoted(1)
    going: dict[str, str] = {}
    versions = {"us": 10, "eu": 20}
    marks = [("", e) for e in story.entries]
    for market, move in moves:
        _move(story, going, versions, market, move)
        marks += [(market, e) for e in story.entries[len(marks) :]]
    return marks


def _move(
    story: Story, going: dict[str, str], versions: dict[str, int], market: str, move: str
) -> None:
    release = going.get(market)
    if release is None:
        if move == "open":
            versions[market] += 1
            story.register(versions[market])
            going[market] = story.open(versions[market], market)
        elif move == "return":
            here = champion_in(story.entries, market, story.policy)
            if here != 1:
                body = {"market": market, "from": here, "to": 1, "reason": "r"}
                story.add(BACK, here, body)
        return
    state = story.state(release)
    step = -1 if state.step is None else state.step
    last = len(story.plan(market).steps) - 1
    if move == "enter" and step < last:
        story.do(release, Act.ENTER, step + 1)
    elif move == "await" and step < last and state.phase is not Phase.AWAIT:
        story.do(release, Act.AWAIT, step + 1)
    elif move == "back" and step > 0:
        story.do(release, Act.STEP_BACK, step - 1)
    elif move == "roll back" or (move == "finish" and step == last):
        story.do(release, Act(move))
        del going[market]


@settings(deadline=None)
@given(MOVES)
def test_no_entry_of_another_market_moves_a_branch(moves: list[tuple[str, str]]):
    """Fold and champion are the same with the other market's entries and without them."""
    marks = told(moves)
    entries, policy = [e for _, e in marks], a_policy()

    for market in ("us", "eu"):
        own = [e for m, e in marks if m in ("", market)]
        assert champion_in(entries, market, policy) == champion_in(own, market, policy)
        for release in folding.releases(own):
            assert folding.fold(entries, release) == folding.fold(own, release)
        assert folding.active(entries, market) == folding.active(own, market)


def test_a_version_is_kept_while_any_market_has_or_gets_it():
    """A rollback in one market archives it only where no other answers with it, or tries to."""
    story = promoted(1)
    story.register(2)
    us, eu = story.open(2, "us"), story.open(2, "eu")

    assert kept(story.entries, 2, story.policy, besides=us) == "version 2 is being released in eu"
    story.climb(us)
    story.do(us, Act.FINISH)
    assert kept(story.entries, 2, story.policy, besides=eu) == "version 2 answers the users of us"
    story.do(eu, Act.ROLL_BACK)
    assert kept(story.entries, 2, story.policy) == "version 2 answers the users of us"
    assert kept(story.entries, 1, story.policy) == "version 1 answers the users of eu"
    story.add(BACK, 2, {"market": "us", "from": 2, "to": 1, "reason": "r"})
    assert kept(story.entries, 2, story.policy) == ""


@settings(deadline=None)
@given(st.sampled_from(list(Stage)), st.sampled_from(list(Stage)))
def test_a_version_walks_its_lifecycle_once(stands: Stage, wanted: Stage):
    """Forward only, step by step, and not again for a second market; never out of the archive."""
    if Stage.ARCHIVED in (stands, wanted):
        with pytest.raises(ValueError, match=r"ARCHIVED|archived"):
            way(stands, wanted)
        return
    order = [Stage.NONE, Stage.STAGING, *ALL_THE_WAY]

    moves = way(stands, wanted)

    assert list(moves) == order[order.index(stands) + 1 : order.index(wanted) + 1]


def test_every_branch_names_the_package_that_was_registered():
    """The proof holds for both markets, and falls with one release of another digest."""
    story = promoted(1)
    story.register(2)
    assert not same_digest(story.entries, 2).holds, "no release shows nothing"

    story.open(2, "us")
    story.open(2, "eu")
    proof = same_digest(story.entries, 2)
    assert proof.holds
    assert str(proof) == f"version 2 is {DIGEST} in credit/2/us/1, credit/2/eu/1."

    story.open(2, "eu", digest="sha256:other")
    proof = same_digest(story.entries, 2)
    assert not proof.holds
    assert "credit/2/eu/2 has sha256:other" in str(proof)
    with pytest.raises(LookupError):
        same_digest(story.entries, 9)


def days(policy: Rollout, market: str) -> dict[str, float]:
    """Return how many days the policy plans at least, by phase, unscaled."""
    plan = plan_of(policy, market=market)
    found: dict[str, float] = {}
    for step in plan.steps:
        soak = step.soak / policy.time_scale / timedelta(days=1)
        found[step.phase] = found.get(step.phase, 0) + soak
    return found


@pytest.mark.parametrize(("workload", "market"), [("streamrec", EVERYWHERE), ("credit", "us")])
def test_the_plan_takes_twelve_days_and_the_bake_comes_after(workload: str, market: str):
    """Seven in shadow, three as canary, two for all other shares; users then are all on it."""
    planned = days(load(workload).rollout, market)
    bake = planned.pop(Phase.BAKE)

    assert planned == pytest.approx({Phase.SHADOW: 7, Phase.CANARY: 3, Phase.PROGRESSIVE: 2})
    assert sum(planned.values()) == pytest.approx(12)
    assert bake >= 1


def test_credit_takes_seventeen_to_nineteen_days_with_its_validation():
    """Twelve of the release after five of independent validation; two are left for signatures."""
    release = days(load("credit").rollout, "us")
    del release[Phase.BAKE]

    assert 17 <= 5 + round(sum(release.values()), 6) <= 19


def test_the_eu_asks_a_person_at_every_share_of_users_and_goes_slower():
    """5 % for a week, then 10, 25, 50 and 100, with every document there; the us asks nobody."""
    policy = load("credit").rollout
    us, eu = plan_of(policy, market="us"), plan_of(policy, market="eu")
    users = [s for s in eu.steps if s.phase in (Phase.CANARY, Phase.PROGRESSIVE)]

    assert [s.percent for s in users] == [5, 10, 25, 50, 100]
    assert all(s.approve for s in users)
    assert users[0].soak / policy.time_scale == timedelta(days=7)
    assert set(eu.documents) == {"dpia", "prohibited-features", "human-review"}
    assert not any(s.approve for s in us.steps)
    assert [s.percent for s in us.steps] == [0, 10, 25, 50, 100, 100]
    assert us.documents == ()
