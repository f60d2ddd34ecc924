"""The levels that the policy states, on simulated releases through the real judge and decisions.

A small seeded part of ``python -m benchmarks.rollout``, whose figures are in
docs/measurements/rollout.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rollout import rules, studies
from benchmarks.rollout.people import People, Version
from benchmarks.rollout.releases import canary, policy_plan
from penstock.stats.intervals import at_least


def whole(name: str, n: int) -> dict:
    """Return how so many simulated releases of a kind ended."""
    return studies.whole(name, n, processes=1)


def test_a_harmless_version_is_promoted():
    """Of 30 harmless releases hardly any has a strike, and none is rolled back by two."""
    found = whole("harmless", 30)

    assert found["rolled back by strikes"].count == 0
    assert found["any strike"].count <= 2
    assert found["promoted"].count >= 28


@pytest.mark.parametrize("name", ["clicks worse by the margin (−13.5 %)", "errors ×2"])
def test_a_worse_version_is_not_promoted(name: str):
    """Of 30 releases worse by the margin or more, so few are promoted that 5 % is not refuted."""
    promoted = whole(name, 30)["promoted"]

    assert at_least(promoted.count, promoted.n, alpha=0.05) <= 0.05


def test_the_same_seeds_give_the_same_releases():
    """A study is the same again, whatever ran before."""
    assert str(whole("errors ×3", 2)) == str(whole("errors ×3", 2))


@pytest.mark.parametrize(("times", "events"), [(2.0, 250), (3.0, 80)])
def test_more_errors_are_caught_within_so_many_failing_users(times: float, events: int):
    """The count test at 1 % needs no more failing users of both arms than the specification says.

    The ratio is that of users: with failures that go together it is a little less than planted.
    """
    found = [
        studies.caught(
            seed, version=Version(errors=times), world=studies.WORLD, policy=studies.STRICT
        )
        for seed in studies.seeds(900, 15)
    ]
    counted = [c.events[studies.COUNT] for c in found]

    assert None not in counted
    assert np.median([n for n in counted if n is not None]) <= 1.2 * events


def test_the_judge_is_quieter_than_the_rules_of_others():
    """On harmless canaries an absolute threshold always stops and a judge never does."""
    found = [
        studies.caught(seed, version=Version(), world=studies.WORLD, policy=studies.STRICT)
        for seed in studies.seeds(901, 8)
    ]

    assert [c.after[studies.OURS] for c in found] == [None] * 8
    assert all(c.after["Flagger-like: below 99 %, 5 minutes"] is not None for c in found)


def test_rules_of_others_do_what_their_tools_say():
    """Counted by hand: the fifth bad minute, the fourth bad window, five in a row."""
    bad = np.array([1, 0, 1, 1, 0, 1, 1, 0, 0, 0] + [1] * 20, float)
    counted = rules.Minutes(
        requests_ma=np.full((30, 2), 10.0),
        failed_ma=np.stack([np.zeros(30), bad], axis=1),
        shown_ma=np.full((30, 2), 10.0),
        clicked_ma=np.stack([np.full(30, 5.0), 5 - 4 * bad], axis=1),
        slow_m=np.where(np.arange(30) >= 12, 2.5, 1.0),
    )

    assert rules.flagger(counted) == 7
    assert rules.argo(counted) == 20
    assert rules.relative(counted) == 7
    assert rules.twice_slow(counted) == rules.tenth_slow(counted) == 17
    assert rules.peeking(counted) is not None
    assert rules.peeking_clicks(counted) is not None
    assert rules.once(counted) == rules.once_clicks(counted) == 30


def test_simulated_users_are_as_declared():
    """One request in a hundred fails, many of the same users; the share is the table's."""
    people = People(np.random.default_rng(1))
    requests = canary(people, Version(), policy_plan(), hours=4)

    assert requests.failed_n.mean() == pytest.approx(0.01, rel=0.15)
    assert requests.challenger_n.mean() == pytest.approx(6 / 64, rel=0.15)
    assert np.nanmean(requests.clicked_n) == pytest.approx(0.22, abs=0.02)
    by_user = np.bincount(requests.user_n[requests.failed_n])
    assert by_user.max() >= 5
