"""Laws of judging a release step."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.release import Measure
from penstock.rollout import answering, judge, measures
from penstock.rollout.checks import Levels, against, at_most, at_most_more
from penstock.rollout.evidence import NOBODY, Evidence, Met
from penstock.rollout.judge import PROCESS, WHOLE
from penstock.rollout.judgement import Effect, Judgement
from penstock.rollout.plan import Plan, Step, plan_of
from penstock.verdict import Outcome
from penstock.workload import Rollout, load
from tests.rollout.simulated import GOOD, T0, Version, answers, step_of, until

POLICY = Rollout(
    canary_percents=(10, 50, 100),
    soak=timedelta(seconds=1),
    deadline=timedelta(seconds=100),
    primary=Measure(name="right answers", source="right", margin=0.08, deviation=0.3),
    slow_for=timedelta(seconds=1),
)
PLAN = plan_of(POLICY)
SHADOW, CANARY, HALF, ALL, BAKE = PLAN.steps
LEVELS = Levels(alpha=0.01, beta=0.05, least=50)


def judged(
    evidence: Evidence, step: Step = CANARY, plan: Plan = PLAN, *, after: float = 60.0
) -> Judgement:
    """Return what evidence comes to, so many seconds after the step began."""
    return judge.judge(plan, evidence, step, now=datetime.fromtimestamp(T0 + after, UTC))


def outcomes(found: Judgement) -> dict[str, Outcome]:
    """Return each check's outcome by its name."""
    return {check.name: check.outcome for check in found.verdict.checks}


def with_policy(**over: Any) -> Plan:
    """Return the plan of another policy."""
    return plan_of(replace(POLICY, **over))


def test_a_healthy_challenger_passes_every_check():
    """Enough good answers pass; there is no worse, and every check says of whom it speaks."""
    found = judged(step_of(CANARY, seconds=30))

    assert found.outcome is Outcome.PASS, found.verdict
    assert (found.effect, found.critical, found.no_value) == (Effect.PARITY, "", False)
    assert {row["name"] for row in found.rows} == set(outcomes(found))


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (Version(errors=0.15), answering.FAILING),
        (Version(errors=0.15), answering.RATIO),
        (Version(refused=0.3), answering.REFUSED),
        (Version(slow=0.3), answering.SLOW),
        (Version(slow=0.045), answering.P99),
        (Version(right=0.6), "right answers"),
    ],
)
def test_each_fault_fails_its_own_check(broken: Version, named: str):
    """Errors, refusals, latency and wrong answers each fail, and no other check does for them."""
    found = judged(step_of(CANARY, seconds=30, version=broken))
    failed = [name for name, outcome in outcomes(found).items() if outcome is Outcome.FAIL]

    assert found.outcome is Outcome.FAIL
    assert any(name.startswith(named) for name in failed), found.verdict
    assert ("right answers" in failed) == (named == "right answers")


def test_what_the_champion_does_too_is_not_held_against_the_challenger():
    """Wrong requests reach both, and so does an outage: neither is the version's fault."""
    ill = Version(errors=0.15, refused=0.1)
    found = outcomes(judged(step_of(HALF, seconds=40, version=ill, usual=ill), HALF))

    assert found[answering.REFUSED] is Outcome.PASS
    assert found[answering.FAILING] is Outcome.INCONCLUSIVE
    assert Outcome.FAIL not in found.values()


def test_a_challenger_with_every_user_is_held_against_the_champion_before():
    """At 100 % the champion has no users, and what it was is still known."""
    assert judged(step_of(ALL, seconds=30), ALL).outcome is Outcome.PASS
    worse = step_of(ALL, seconds=30, version=Version(right=0.7))
    assert judged(worse, ALL).effect is Effect.WORSE


def test_users_looked_at_for_longer_have_not_failed_more():
    """Who is met for longer has failed at least once more often; shares of requests do not grow."""
    usual = Version(errors=0.02)
    found = step_of(ALL, seconds=80, users=400, version=usual, usual=usual)
    shorter = replace(found, champion=found.champion.within(8.0))
    failing = [len(arm.failing) for arm in (shorter.challenger, shorter.champion)]

    assert failing[0] > 2 * failing[1]
    assert Outcome.FAIL not in outcomes(judged(shorter, ALL)).values()


def test_a_first_version_has_absolute_limits_alone():
    """There is no champion to hold it against, and nothing asks for one."""
    plan = plan_of(POLICY, first=True)
    (step,) = plan.steps
    alone = replace(step_of(ALL, seconds=20), champion=NOBODY)
    found = judged(alone, step, plan)

    assert found.outcome is Outcome.PASS, found.verdict
    assert answering.RATIO not in outcomes(found)
    for broken in (Version(errors=0.3), Version(refused=0.3), Version(slow=0.3)):
        failing = replace(step_of(ALL, seconds=20, version=broken), champion=NOBODY)
        assert judged(failing, step, plan).outcome is Outcome.FAIL


@pytest.mark.parametrize("step", [SHADOW, CANARY, ALL])
def test_nothing_measured_is_an_error(step: Step):
    """A step without a single request is no pass."""
    assert judged(Evidence(challenger=NOBODY), step).outcome is Outcome.ERROR


def test_a_dead_process_is_critical():
    """A challenger that is down fails whatever its answers were, and whatever is wrong besides."""
    down = replace(step_of(CANARY), alive=False)

    for evidence in (down, replace(down, conflict="clocks"), replace(down, challenger=NOBODY)):
        found = judged(evidence)
        assert found.outcome is Outcome.FAIL
        assert PROCESS in found.critical


def test_failures_above_the_critical_share_do_not_wait():
    """A third of all users failing goes back at once, from the first fail; a tenth takes a strike.

    Nor is it critical where the champion fails as many.
    """
    ill = Version(errors=0.4)
    evidence = step_of(CANARY, version=ill)
    looks = [judged(until(evidence, T0 + at), after=at) for at in np.arange(0.1, 4, 0.1)]
    some = judged(step_of(CANARY, version=Version(errors=0.12)))

    assert looks[-1].critical
    assert all(bool(look.critical) == (look.outcome is Outcome.FAIL) for look in looks)
    assert (some.outcome, some.critical) == (Outcome.FAIL, "")
    assert judged(step_of(CANARY, version=ill, usual=ill)).critical == ""


@pytest.mark.parametrize("over", [{"conflict": "records from the future"}, {"lost_share": 0.02}])
def test_evidence_that_contradicts_itself_is_an_error_and_no_strike(over: dict[str, Any]):
    """What is left of records that were lost neither passes nor fails a version."""
    bad = replace(step_of(CANARY, version=Version(right=0.4)), **over)
    found = judged(bad)

    assert outcomes(found) == {PROCESS: Outcome.PASS, WHOLE: Outcome.ERROR}


@pytest.mark.parametrize("silent", ["challenger", "champion"])
def test_a_log_that_falls_silent_is_an_error(silent: str):
    """Old records neither pass nor fail; a champion that has no users left may be silent."""
    evidence = step_of(CANARY, seconds=60)
    arm = getattr(evidence, silent)
    plan = with_policy(evidence_timeout=timedelta(seconds=20))
    old = replace(evidence, **{silent: arm.where(arm.at_n < T0 + 30)})

    assert judged(evidence, plan=plan).outcome is Outcome.PASS
    assert outcomes(judged(old, plan=plan)) == {PROCESS: Outcome.PASS, WHOLE: Outcome.ERROR}
    assert judged(step_of(ALL, seconds=60), ALL, plan).outcome is Outcome.PASS


def test_better_goes_on_and_with_a_failing_guardrail_is_a_trade_off():
    """An improvement buys no errors."""
    better = Version(right=0.97)
    usual = Version(right=0.8)
    fine = judged(step_of(CANARY, seconds=30, version=better, usual=usual))
    dear = judged(step_of(CANARY, seconds=30, version=replace(better, errors=0.2), usual=usual))

    assert (fine.outcome, fine.effect) == (Outcome.PASS, Effect.BETTER)
    assert (dear.outcome, dear.effect) == (Outcome.FAIL, Effect.BETTER)
    assert dear.reason.startswith("trade-off")


def test_parity_is_no_value_where_the_policy_takes_none():
    """It ends without a strike, once it is sure that there is no whole margin to be gained."""
    plan = with_policy(accept_parity=False)
    some = judged(step_of(HALF, seconds=6, usual=Version(right=0.86)), HALF, plan)
    many = judged(step_of(HALF, seconds=60), HALF, plan)

    assert (some.outcome, some.effect) == (Outcome.INCONCLUSIVE, Effect.PARITY)
    assert not some.no_value
    assert many.no_value
    assert many.outcome is Outcome.INCONCLUSIVE
    assert many.reason.startswith("no value")
    assert judged(step_of(HALF, seconds=60), HALF).outcome is Outcome.PASS
    failing = step_of(HALF, seconds=60, version=Version(errors=0.2))
    assert not judged(failing, HALF, plan).no_value


def test_too_few_users_say_nothing():
    """However good, fewer users than the power formula asks for are inconclusive."""
    found = judged(step_of(CANARY, seconds=3))
    (row,) = [row for row in found.rows if row["role"] == "primary"]

    assert (found.outcome, found.effect) == (Outcome.INCONCLUSIVE, Effect.UNCLEAR)
    assert row["users"]["challenger"] < row["needed"]
    few = at_most("x", Met(events=0, users=49), Met(events=0, users=0), 0.5, LEVELS)
    assert few.outcome is Outcome.INCONCLUSIVE


def test_bounds_that_are_narrow_by_chance_do_not_replace_the_users_declared():
    """The first users may be more alike than the policy takes users to be."""
    measure = Measure(name="right answers", source="right", margin=0.5, deviation=3.0)
    found = judged(step_of(CANARY, seconds=12), plan=with_policy(primary=measure))
    (row,) = [row for row in found.rows if row["role"] == "primary"]

    assert row["low"] > -0.5
    assert row["needed"] > row["users"]["challenger"] > POLICY.min_users
    assert (found.outcome, found.effect) == (Outcome.INCONCLUSIVE, Effect.UNCLEAR)


def test_fewer_challengers_are_needed_beside_many_champions():
    """What the variance of the difference asks for; equal arms need the formula's number."""
    measure = POLICY.primary
    shares = [0.5, 0.25, 0.1]
    found = [measures.needed(measure, LEVELS, share=share) for share in shares]

    assert found == sorted(found, reverse=True)
    # 2 (1.645 + 1.645)² · 0.3² / 0.08², by hand
    assert found[0] == 305


def test_users_divided_otherwise_than_set_are_a_strike():
    """Then whatever else is measured compares different people."""
    fair = step_of(CANARY, seconds=40)
    fewer = replace(fair, challenger=fair.challenger.where(fair.challenger.user_n % 2 == 0))

    assert outcomes(judged(fair))[judge.SPLIT] is Outcome.PASS
    assert outcomes(judged(fewer))[judge.SPLIT] is Outcome.FAIL


def test_users_that_only_one_log_may_hold_yet_do_not_count_as_unevenly_divided():
    """The newest second of one slot's log may be written before the other's."""
    fair = step_of(CANARY, seconds=10)
    behind = replace(fair, champion=fair.champion.where(fair.champion.at_n < T0 + 9))
    row = {r["name"]: r for r in judged(behind, after=10.0).rows}[judge.SPLIT]
    early = judged(until(behind, T0 + 9), after=10.0)

    assert row["users"] == {r["name"]: r for r in early.rows}[judge.SPLIT]["users"]


def test_silence_counts_when_its_time_is_over_and_not_before():
    """The first outcomes are those of clicks: alone, they would make any two versions alike."""
    silent = np.asarray([1.0, np.nan, np.nan, 1.0])
    got = answers(np.random.default_rng(0), T0 + np.arange(4.0), np.arange(4), GOOD)
    came = T0 + np.asarray([0.5, np.nan, np.nan, 12.0])
    got = replace(got, values_n={"label": silent}, came_at_n={"label": came})

    def known(now: float, means: float | None) -> list[float]:
        terms = measures.Terms(now=T0 + now, begun=T0, attribution_s=5.0, silent_means=means)
        return measures.counted(got, "label", terms)[0].tolist()

    assert known(3.0, 0.0) == []
    assert known(6.5, 0.0) == [1.0, 0.0]
    assert known(20.0, 0.0) == [1.0, 0.0, 0.0, 0.0]  # the last came too late
    assert known(20.0, None) == [1.0]


def test_outcomes_that_may_still_come_are_waited_for():
    """Labels after thirty days are no error on the first one, and are one on the fortieth."""
    plan = with_policy(attribution=timedelta(seconds=20))
    evidence = step_of(CANARY, seconds=10)
    mute = {"right": np.full(len(evidence.challenger), np.nan)}
    evidence = replace(evidence, challenger=replace(evidence.challenger, values_n=mute))

    for after, outcome in ((12.0, Outcome.INCONCLUSIVE), (25.0, Outcome.ERROR)):
        assert outcomes(judged(evidence, plan=plan, after=after))["right answers"] is outcome


def test_what_is_new_is_not_counted_while_it_is():
    """During the burn-in answers are judged for failures and not for what users make of them."""
    liked = step_of(CANARY, seconds=30, version=Version(right=0.99), usual=Version(right=0.7))
    plain = step_of(CANARY, seconds=30, usual=Version(right=0.7), version=Version(right=0.7))
    evidence = replace(plain, challenger=liked.challenger)
    first_n = evidence.challenger.at_n < T0 + 15
    mixed = np.where(first_n, liked.challenger.values_n["right"], 0.7)
    challenger = replace(evidence.challenger, values_n={"right": mixed})
    plan = with_policy(burn_in=timedelta(seconds=15))
    found = judged(replace(evidence, challenger=challenger), plan=plan)
    (row,) = [row for row in found.rows if row["role"] == "primary"]

    assert row["estimate"] == pytest.approx(0.0, abs=0.02)
    assert row["users"]["challenger"] < evidence.challenger.users


def test_what_users_were_like_before_makes_them_quieter():
    """With a pre-period the interval is narrower, around the same difference."""
    evidence = step_of(HALF, seconds=60, users=800, spread=0.4, version=Version(right=0.5))
    rng = np.random.default_rng(9)
    before = answers(
        rng, T0 - 50 + np.arange(8000) / 160, rng.integers(800, size=8000), GOOD, spread=0.4
    )
    rows = [
        next(r for r in judged(e, HALF).rows if r["role"] == "primary")
        for e in (evidence, replace(evidence, earlier=before))
    ]
    width = [row["high"] - row["low"] for row in rows]

    assert width[1] < 0.8 * width[0]
    assert abs(rows[0]["estimate"] - rows[1]["estimate"]) < width[0] / 4


def test_one_user_of_heavy_tails_moves_a_mean_by_no_more_than_the_cap():
    """The cap is the policy's and cuts both arms alike."""
    evidence = step_of(HALF, seconds=20)
    spent = np.ones(len(evidence.challenger))
    spent[0] = 1e9
    usual = {"revenue": np.ones(len(evidence.champion))}
    evidence = replace(
        evidence,
        challenger=replace(evidence.challenger, values_n={"revenue": spent}),
        champion=replace(evidence.champion, values_n=usual),
    )
    measure = Measure(name="revenue", source="revenue", margin=1.0, deviation=2.0, cap=10.0)
    found = judged(evidence, HALF, with_policy(primary=measure))
    (row,) = [row for row in found.rows if row["role"] == "primary"]

    assert 0 < row["estimate"] <= 9.0 / evidence.challenger.users + 1e-9


@pytest.mark.parametrize("critical", [True, False])
def test_a_guardrail_that_falls_is_a_strike_though_the_primary_does_not(critical: bool):
    """Numbers that must not get worse have margins of their own; that of safety waits for none."""
    bounced = Measure(
        name="returns", source="label", margin=0.08, deviation=0.3, rises=False, critical=critical
    )
    plan = with_policy(guardrails=(bounced,))
    rising = step_of(CANARY, seconds=30)
    steady = {
        "right": np.full(len(rising.challenger), 0.9),
        "label": rising.challenger.values_n["label"] * 0 + 1.0,
    }
    quiet = {**rising.champion.values_n, "label": np.full(len(rising.champion), 0.5)}
    rising = replace(
        rising,
        challenger=replace(rising.challenger, values_n=steady),
        champion=replace(rising.champion, values_n=quiet),
    )
    found = judged(rising, plan=plan)

    assert outcomes(found)["returns"] is Outcome.FAIL
    assert found.critical.startswith("returns: +") is critical
    assert outcomes(found)["right answers"] is Outcome.PASS


def sliced(evidence: Evidence, bad: Version, *, slices: int = 3) -> Evidence:
    """Return evidence whose users are in slices by their number, the first of them served badly."""
    names = tuple(f"s{k}" for k in range(slices))
    arms = {}
    for name in ("challenger", "champion"):
        arm = getattr(evidence, name)
        bits = np.uint64(1) << (arm.user_n % slices).astype(np.uint64)
        arms[name] = replace(arm, slices_n=bits)
    one = arms["challenger"]
    ill = answers(np.random.default_rng(4), one.at_n, one.user_n, bad)
    first = one.slices_n == 1
    changed = {
        key: np.where(first, getattr(ill, key), getattr(one, key))
        for key in ("failed_n", "refused_n", "latency_ms_n")
    }
    right = np.where(first, ill.values_n["right"], one.values_n["right"])
    arms["challenger"] = replace(one, **changed, values_n={"right": right})
    return replace(evidence, **arms, slices=names)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (Version(slow=0.3), "slow users in slices"),
        (Version(errors=0.14), "failing users in slices"),
        (Version(right=0.72), "primary measure in slices"),
    ],
)
def test_harm_to_one_slice_is_found_there(bad: Version, kind: str):
    """A tenth of the users may suffer without moving the whole; their own slice shows it."""
    step = replace(HALF, percent=50)
    fair = sliced(step_of(step, seconds=40), GOOD, slices=10)
    found = judged(sliced(step_of(step, seconds=40), bad, slices=10), step)
    failed = {name for name, outcome in outcomes(found).items() if outcome is Outcome.FAIL}

    assert judged(fair, step).outcome is Outcome.PASS, judged(fair, step).verdict
    assert kind in failed
    assert "s0:" in next(c.reason for c in found.verdict.checks if c.name == kind)
    assert [part["outcome"] for part in found.segments] == ["fail"] + ["pass"] * 9


def test_a_slice_with_too_few_users_is_not_judged_and_said_so():
    """It neither fails nor passes, and without any slice there is no such check."""
    few = sliced(step_of(CANARY, seconds=10), Version(errors=1.0), slices=40)
    found = judged(few)

    assert {part["outcome"] for part in found.segments} == {"too few users"}
    assert not any("in slices" in name for name in outcomes(found))


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_p99_is_too_high_only_when_it_is_in_every_window(high: list[bool]):
    """One blip is no strike, however short the policy's time was scaled."""
    latency = np.concatenate([np.full(100, 200.0 if bad else 3.0) for bad in high])
    rng = np.random.default_rng(0)
    one = answers(rng, T0 + np.arange(500) / 100, np.arange(500), GOOD)
    other = answers(rng, T0 + np.arange(500) / 100, np.arange(500), GOOD)
    found = answering.stretched(PLAN, replace(one, latency_ms_n=latency), other)

    assert (found.outcome is Outcome.FAIL) == all(high)
    assert (found.outcome is Outcome.PASS) == (not high[-1])


COUNTS = st.integers(0, 300)


@settings(deadline=None)
@given(COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from(["at most", "more", "against"]))
def test_more_failing_users_never_look_better(a: int, n: int, b: int, m: int, which: str):
    """One more of the challenger's users failing cannot turn a fail into less, or make a pass."""
    a, b = min(a, max(0, n - 1)), min(b, m)
    order = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.ERROR, Outcome.FAIL]

    def place(events: int) -> int:
        met, usual = Met(events=events, users=n), Met(events=b, users=m)
        if which == "at most":
            found = at_most("x", met, usual, 0.05, LEVELS)
        elif which == "more":
            found = at_most_more("x", met, usual, 0.05, LEVELS)
        else:
            found = against("x", (events, b), (n, m), design=0.3, limit=2.0, levels=LEVELS)
        return order.index(found.outcome)

    assert place(min(a + 1, n)) >= place(a)


@settings(deadline=None)
@given(COUNTS, st.integers(1, 300), COUNTS, st.integers(1, 300))
def test_held_against_another_share_nothing_is_clearer_than_against_its_estimate(
    a: int, n: int, b: int, m: int
):
    """That the usual share is not known either can only take away from a pass or a fail."""
    a, b = min(a, n), min(b, m)
    limit = min(0.05 + b / m, 0.999)
    nobody = Met(events=0, users=0)
    alone = at_most("x", Met(events=a, users=n), nobody, limit, LEVELS).outcome
    usual = Met(events=b, users=m)
    found = at_most_more("x", Met(events=a, users=n), usual, limit - b / m, LEVELS).outcome

    assert found in (alone, Outcome.INCONCLUSIVE)


def test_alpha_is_shared_among_all_that_can_fail():
    """However many checks and slices a step has, together they have it; half is the errors'."""
    for step in PLAN.steps:
        evidence = sliced(step_of(step, seconds=20), GOOD)
        rows = [row for row in judged(evidence, step).rows if row["alpha"] is not None]
        often = [len(evidence.slices) if "in slices" in row["name"] else 1 for row in rows]
        shares = [row["alpha"] * n for row, n in zip(rows, often, strict=True)]
        assert sum(shares) <= POLICY.alpha * 1.000001
        (errors,) = [row["alpha"] for row in rows if row["name"] == answering.RATIO]
        assert errors == POLICY.alpha / 2


def test_where_nobody_is_left_to_compare_with_what_is_not_worse_for_sure_passes():
    """At all users the champion's evidence grows no more; a bound that stays open ends nothing."""
    last = PLAN.steps[-1]
    narrow = Measure(name="right answers", source="right", margin=0.03, deviation=0.1)
    plan = replace(PLAN, policy=replace(POLICY, primary=narrow))
    evidence = step_of(last, seed=4, seconds=20)
    short = replace(evidence, champion=evidence.champion.within(0.6))
    early = replace(short, challenger=short.challenger.within(0.5))
    bad = step_of(last, seed=4, seconds=20, version=Version(right=0.3))

    spent, waits = judged(short, last, plan), judged(early, last, plan)

    assert spent.outcome is Outcome.PASS
    assert "nobody is left to compare with" in spent.rows[0]["reason"]
    assert waits.outcome is Outcome.INCONCLUSIVE
    assert judged(replace(bad, champion=short.champion), last, plan).outcome is Outcome.FAIL


def test_a_harmless_version_looked_at_all_the_time_is_rarely_given_a_strike():
    """With one request in a hundred failing, and users who come back, on every look of a step."""
    usual = Version(errors=0.01)
    struck = 0
    for seed in range(40):
        step = step_of(CANARY, seed=seed, seconds=20, users=900, version=usual, usual=usual)
        looks = np.arange(T0 + 1, T0 + 20, 1.0)
        struck += any(
            judged(until(step, at), after=at - T0).outcome is Outcome.FAIL for at in looks
        )

    assert struck == 0


RIGHT = {"digits": 0.95, "credit": 0.78, "streamrec": 0.23}


def plans(name: str) -> Plan:
    """Return a workload's plan in its first market."""
    policy = load(name).rollout
    return plan_of(policy, market=policy.market_names()[0])


def seconds_until(plan: Plan, version: Version, outcome: Outcome, seed: int) -> float:
    """Return after how many seconds of a demonstration's canary it is told so."""
    usual = Version(right=RIGHT[plan.policy.primary.name])
    step = plan.steps[1]
    evidence = step_of(step, seed=seed, seconds=30, version=version, usual=usual)
    for after in np.arange(0.5, 30.5, 0.5):
        if judged(until(evidence, T0 + after), step, plan, after=after).outcome is outcome:
            return float(after)
    return 99.0


@pytest.mark.parametrize("name", RIGHT)
def test_a_demonstration_passes_what_is_harmless_and_finds_harm_in_seconds(name: str):
    """With 250 requests a second of 6000 users, and the policies as they are declared."""
    plan, right = plans(name), RIGHT[name]
    RIGHT[plan.policy.primary.name] = right
    harmless = [seconds_until(plan, Version(right=right), Outcome.PASS, seed) for seed in (1, 2, 3)]

    assert sorted(harmless)[1] <= 16.0
    for harm, within in (
        (Version(right=right, errors=0.3), 3.0),
        (Version(right=right, slow=1.0), 3.0),
        (Version(right=right * 0.4), 15.0 if name == "streamrec" else 7.0),
    ):
        assert seconds_until(plan, harm, Outcome.FAIL, seed=1) <= within
