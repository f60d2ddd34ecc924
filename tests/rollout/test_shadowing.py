"""Laws of comparing copies with their originals."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.release import Measure, Rollout, Shadow, Trigger
from penstock.rollout import agreeing, shadowing
from penstock.rollout.evidence import NO_COPIES, Copies, Evidence, scatter
from penstock.rollout.judge import judge
from penstock.rollout.judgement import Judgement
from penstock.rollout.plan import Phase, plan_of
from penstock.stats.ranks import Interval
from penstock.verdict import Outcome
from penstock.workload import load
from tests.rollout.simulated import T0, copies_of, step_of

ASKED = Shadow(min_spearman=0.8, min_kendall=0.6, min_overlap=0.6, max_divergence=0.5)


def shadowed(copies: Copies, asked: Shadow = ASKED, *, slices: tuple[str, ...] = ()) -> Judgement:
    """Return what a shadow step with these copies comes to."""
    policy = Rollout(
        canary_percents=(10, 100),
        soak=timedelta(seconds=1),
        deadline=timedelta(seconds=10),
        primary=Measure(name="clicks", source="label", margin=0.1, deviation=0.4),
        shadow=asked,
    )
    plan = plan_of(policy)
    evidence = replace(step_of(plan.steps[0]), copies=copies, slices=slices)
    return judge(plan, evidence, plan.steps[0], now=datetime.fromtimestamp(T0 + 20, UTC))


def outcomes(found: Judgement) -> dict[str, Outcome]:
    """Return each check's outcome by its name."""
    return {check.name: check.outcome for check in found.verdict.checks}


def rng(seed: int = 3) -> np.random.Generator:
    """Return a source of chance."""
    return np.random.default_rng(seed)


def test_copies_that_are_answered_alike_pass():
    """Decisions, ranks and the first rows of each ranking agree well within their limits."""
    found = shadowed(copies_of(rng(), 3000, rows=6))

    assert found.outcome is Outcome.PASS, found.verdict
    assert set(shadowing.ASKED) <= set(outcomes(found))


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"otherwise": 0.3}, agreeing.OTHERWISE),
        ({"noise": 2.0}, agreeing.SPEARMAN),
        ({"noise": 2.0}, agreeing.KENDALL),
        ({"noise": 2.0}, agreeing.OVERLAP),
        ({"noise": 40.0}, shadowing.DIVERGENCE),
    ],
)
def test_each_difference_fails_its_own_check(over: dict[str, Any], named: str):
    """Other decisions, another order, other rows first, other scores: each is seen as itself."""
    asked = replace(ASKED, max_divergence=0.3)
    found = outcomes(shadowed(copies_of(rng(), 3000, rows=6, **over), asked))

    assert found[named] is Outcome.FAIL
    assert (found[agreeing.OTHERWISE] is Outcome.FAIL) == ("otherwise" in over)


def test_what_the_policy_does_not_ask_is_told_and_not_decided_on():
    """Without limits a shadow with other scores passes; people see the numbers nevertheless."""
    found = shadowed(copies_of(rng(), 3000, noise=40.0), Shadow())
    (row,) = found.segments

    assert found.outcome is Outcome.PASS
    assert row["spearman"]["estimate"] < 0.2
    assert row["psi"] > 0.25


def test_copies_that_are_not_there_keep_it_from_passing():
    """Those that are missing may be the ones that went wrong."""
    assert shadowed(copies_of(rng(), 3000, lost=200)).outcome is Outcome.INCONCLUSIVE
    covered = shadowed(copies_of(rng(), 3000, rows=6, lost=200))
    assert covered.segments[0]["coverage"] == pytest.approx(3000 / 3200)
    found = shadowed(copies_of(rng(), 3000, rows=6, lost=500))

    assert outcomes(found)[shadowing.COVERAGE] is Outcome.INCONCLUSIVE


def test_no_copies_are_an_error_and_few_are_inconclusive():
    """Nothing compared is never a pass."""
    assert outcomes(shadowed(NO_COPIES))[agreeing.OTHERWISE] is Outcome.ERROR
    few = outcomes(shadowed(copies_of(rng(), 80)))
    assert few[agreeing.OTHERWISE] is Outcome.INCONCLUSIVE


def test_a_slice_that_is_decided_otherwise_fails_though_the_whole_does_not():
    """Where it has copies enough; below that it is part of the whole alone."""
    copies = copies_of(rng(), 6000, rows=6, users=6000)
    first_n = np.arange(6000) % 15 == 0
    bits = np.where(first_n, 1, 2).astype(np.uint64)
    bad = replace(
        copies,
        alike_n=copies.alike_n & ~(first_n & (rng().random(6000) < 0.6)),
        slices_n=bits,
        sent_slices_m=bits,
    )
    found = shadowed(bad, slices=("small", "rest"))
    strict = shadowed(bad, replace(ASKED, min_support=500), slices=("small", "rest"))

    assert outcomes(found)[agreeing.OTHERWISE] is Outcome.PASS
    assert outcomes(found)[shadowing.IN_SLICES] is Outcome.FAIL
    assert [row["name"] for row in found.segments] == ["all", "small", "rest"]
    assert strict.outcome is Outcome.PASS
    assert strict.segments[1]["decided_otherwise"] is None


def test_between_two_looks_nothing_changes():
    """Intervals hold at one look; so later copies say nothing until users have doubled."""
    copies = copies_of(rng(), 4000, rows=2)
    ends = [int(np.unique(copies.user_n[:n]).size) for n in range(0, 4000, 50)]
    looks = [agreeing.looked(first(copies, n), least=100) for n in range(0, 4000, 50)]
    seen = {(look[0], look[1].n) for look in looks if look is not None}

    assert len(seen) == len({n for _, n in seen}) == 5
    assert all((look is None) == (users < 100) for look, users in zip(looks, ends, strict=True))


def first(copies: Copies, n: int) -> Copies:
    """Return the first copies."""
    rows = copies.pair_r < n
    return replace(
        copies,
        **{
            name: getattr(copies, name)[:n]
            for name in ("user_n", "alike_n", "one_n", "other_n", "slices_n", "settled_n")
        },
        **{name: getattr(copies, name)[rows] for name in ("pair_r", "one_r", "other_r")},
    )


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.001, 0.05), st.integers(20, 5000))
def test_bounds_of_a_surer_level_hold_those_of_a_less_sure_one(x: float, level: float, users: int):
    """And a share that no user showed is not known to be none."""
    found = Interval(estimate=x, low=max(0.0, x - 0.02), high=min(1.0, x + 0.02))
    wide = agreeing.bounds(found, level / 10, users, share=True)
    narrow = agreeing.bounds(found, level, users, share=True)

    assert wide[0] <= narrow[0] <= x <= narrow[1] <= wide[1]
    nobody = Interval(estimate=0.0, low=0.0, high=0.0)
    assert agreeing.bounds(nobody, level, users, share=True)[1] > 0


def test_users_and_not_requests_make_an_interval_narrow():
    """The same users asked ten times as often hardly tell more when each is decided alike."""
    few, many = (
        agreeing.Pairs(
            user_n=np.repeat(np.arange(400), times),
            alike_n=np.repeat(rng().random(400) >= 0.1, times),
            one_n=np.zeros(400 * times),
            other_n=np.zeros(400 * times),
            pair_r=np.empty(0, np.int64),
            one_r=np.empty(0),
            other_r=np.empty(0),
        )
        for times in (1, 10)
    )
    one, other = (agreeing.agreement(p, 3).found[agreeing.OTHERWISE] for p in (few, many))

    assert other.estimate == pytest.approx(one.estimate)
    assert other.high - other.low > 0.8 * (one.high - one.low)


def test_a_scatter_plot_has_points_from_all_along_and_not_more_than_fit():
    """People look at it; a million points would be in the page otherwise."""
    copies = copies_of(rng(), 5000)
    found = scatter(copies)

    assert len(found) == 300
    assert found[0] == [round(float(copies.one_n[0]), 4), round(float(copies.other_n[0]), 4)]
    assert scatter(NO_COPIES) == []
    evidence = Evidence(challenger=step_of(plan_of(load("digits").rollout).steps[0]).challenger)
    assert "scatter" not in evidence.summary()
    assert replace(evidence, copies=copies).summary()["scatter"] == found


@pytest.mark.parametrize("name", ["digits", "streamrec", "credit"])
def test_a_shadow_alone_lets_no_version_answer_all_users(name: str):
    """After it comes a canary with fewer users than all, whatever the market and the trigger."""
    declared = load(name)
    for market in declared.rollout.market_names():
        for trigger in Trigger:
            steps = plan_of(declared.rollout, market=market, trigger=trigger).steps
            phases = [step.phase for step in steps]
            canary = phases.index(Phase.CANARY)

            assert phases[:canary] == [Phase.SHADOW]
            assert 0 < steps[canary].percent < 100
