"""The levels that the policy states, on simulated releases through the real judge and decisions.

A small seeded part of ``python -m benchmarks.rollout``, whose figures are in
docs/measurements/rollout.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.rollout import alone, rules, studies
from benchmarks.rollout.people import People, Requests, Version
from benchmarks.rollout.releases import SMALL, canary, policy_plan


def whole(version: Version, n: int) -> dict:
    """Return how so many small simulated releases of a version ended."""
    told = {"version": version, "together": 0.05, "policy": SMALL, "world": studies.FEW}
    return studies.outcomes([studies.carried(seed, **told) for seed in studies.seeds(800, n)])


def test_a_harmless_version_is_promoted():
    """Harmless releases have no strike."""
    found = whole(Version(), 6)

    assert found["any strike"].count == 0
    assert found["promoted"].count == 6


@pytest.mark.parametrize(
    "version", [Version(clicks=1 - 0.06 / 0.2216), Version(errors=3.0)], ids=["clicks", "errors"]
)
def test_a_worse_version_is_not_promoted(version: Version):
    """A version worse by the margin or more is not promoted: 5 % may be, of 6 at most 2."""
    assert whole(version, 6)["promoted"].count <= 2


def test_the_same_seeds_give_the_same_releases():
    """A study is the same again, whatever ran before."""
    assert str(whole(Version(errors=3.0), 2)) == str(whole(Version(errors=3.0), 2))


@pytest.mark.parametrize(("times", "events"), [(2.0, 250), (3.0, 80)])
def test_more_errors_are_caught_within_so_many_failing_users(times: float, events: int):
    """The count test at 1 % needs no more failing users of both arms than is specified."""
    found = [
        canary(
            People(np.random.default_rng(seed), together=0.0),
            Version(errors=times), policy_plan(), hours=2,
        )
        for seed in studies.seeds(900, 15)
    ]  # fmt: skip
    counted = [
        _failing_until(requests, alone.failing(requests, share=6 / 64)) for requests in found
    ]

    assert np.median(counted) <= events


def _failing_until(requests: Requests, stop_s: float | None) -> float:
    if stop_s is None:
        return np.inf
    known = requests.until(stop_s + 1e-6)
    return len(np.unique(known.user_n[known.failed_n]))


def test_the_judge_is_quieter_than_the_rules_of_others():
    """On harmless canaries an absolute threshold always stops and the judge never does."""
    found = [
        studies.caught(seed, version=Version(), world=studies.FEW, policy=SMALL)
        for seed in studies.seeds(901, 4)
    ]

    assert [c.after[studies.OURS] for c in found] == [None] * 4
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
