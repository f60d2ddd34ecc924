"""When a training is begun, one line each, and the laws behind the lines."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from penstock.release import Rollout, Trigger
from penstock.retrain.decide import Act, Decision, decide, horizon_days
from penstock.retrain.history import URGENT, History
from penstock.retrain.signals import Signals
from penstock.verdict import Outcome
from penstock.watching import Economics, Watch
from tests.retrain.looks import ERROR, FAIL, PASS, UNSURE, document, drifted, fell, signals

NOW = datetime(2026, 3, 3, 9, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
WEEKLY = Watch(every=7 * DAY)
LONG_AGO = History(trained=NOW - 3 * DAY, registered=NOW - 3 * DAY)


def decided(found: Signals, history: History = LONG_AGO, policy: Watch = WEEKLY) -> Decision:
    return decide(policy, history, found, NOW)


def trained(ago: timedelta, *, urgent: bool = False, registered: timedelta = 3 * DAY) -> History:
    at = NOW - ago
    return History(trained=at, urgent=at if urgent else None, registered=NOW - registered)


@pytest.mark.parametrize(
    ("found", "history", "act", "trigger", "priority"),
    [
        (signals(), LONG_AGO, "wait", None, None),
        (signals(), trained(7 * DAY, registered=7 * DAY), "train", "scheduled", 4),
        (signals(), trained(7 * DAY - HOUR, registered=7 * DAY - HOUR), "wait", None, None),
        (drifted(), LONG_AGO, "train", "drift", 3),
        (drifted(performance=PASS, drop=0.0), LONG_AGO, "train", "drift", 3),
        (signals(scores=FAIL), LONG_AGO, "train", "drift", 3),
        (fell(), LONG_AGO, "train", "performance", 2),
        (fell(drift=FAIL, psi=0.3), LONG_AGO, "train", "performance", 2),
        # Severe is strictly above: a tenth of 0.9, a PSI of 0.5.
        (fell(0.0900001), LONG_AGO, "train", "performance", 1),
        (fell(0.09), LONG_AGO, "train", "performance", 2),
        (drifted(0.51), LONG_AGO, "train", "drift", 1),
        (drifted(0.5), LONG_AGO, "train", "drift", 3),
        # One a day: Monday's drift suppresses Tuesday's schedule, and everything but priority 1.
        (signals(), trained(23 * HOUR, registered=9 * DAY), "wait", "scheduled", 4),
        (drifted(), trained(23 * HOUR), "wait", "drift", 3),
        (fell(), trained(23 * HOUR), "wait", "performance", 2),
        (drifted(), trained(24 * HOUR), "train", "drift", 3),
        (drifted(0.6), trained(1 * HOUR), "train", "drift", 1),
        (fell(0.2), trained(1 * HOUR), "train", "performance", 1),
        # The urgent one that was just begun is of the same data.
        (fell(0.2), trained(5 * HOUR, urgent=True), "wait", "performance", 1),
        (fell(0.2), trained(6 * HOUR, urgent=True), "train", "performance", 1),
        # Broken data train nothing, however urgent it looks.
        (signals(quality=FAIL), LONG_AGO, "diagnose", None, None),
        (drifted(0.9, quality=FAIL), LONG_AGO, "diagnose", "drift", 1),
        (fell(0.5, quality=FAIL), LONG_AGO, "diagnose", "performance", 1),
        # What is not known asks for nothing; the schedule does not need it.
        (Signals(), LONG_AGO, "diagnose", None, None),
        (signals(errors=("log: gone",)), trained(9 * DAY, registered=9 * DAY), "diagnose",
         "scheduled", 4),
        (signals(drift=ERROR), LONG_AGO, "diagnose", None, None),
        (fell(errors=("drift: gone",)), LONG_AGO, "diagnose", "performance", 2),
        (signals(evidence=UNSURE, drift=UNSURE), LONG_AGO, "wait", None, None),
        (drifted(0.9, evidence=UNSURE), LONG_AGO, "wait", None, None),
        (signals(evidence=UNSURE), trained(8 * DAY, registered=8 * DAY), "train", "scheduled", 4),
        (signals(performance=UNSURE), LONG_AGO, "wait", None, None),
        # A slice alone wants its data, not the same training again.
        (signals(fallen=("heavy use",)), LONG_AGO, "diagnose", None, None),
        (fell(fallen=("heavy use",)), LONG_AGO, "train", "performance", 2),
        # Nobody trained it yet: there is nothing to count from.
        (signals(), History(), "wait", None, None),
        (drifted(), History(), "train", "drift", 3),
    ],
)  # fmt: skip
def test_what_is_decided(
    found: Signals, history: History, act: str, trigger: str | None, priority: int | None
):
    said = decided(found, history).to_dict()

    assert (said["act"], said["trigger"], said["priority"]) == (act, trigger, priority)
    assert said["suppressed"] == (trigger is not None and act != "train")


def test_a_drift_training_asks_a_person_before_its_canary_and_a_scheduled_one_does_not():
    """R3: the trigger that is handed on is the one that the release policy asks of."""
    asks = Rollout.approve_triggers
    due = trained(8 * DAY, registered=8 * DAY)
    drift, scheduled = decided(drifted()).wish, decided(signals(), due).wish

    assert drift is not None
    assert scheduled is not None
    assert drift.trigger in asks
    assert scheduled.trigger not in asks


@pytest.mark.parametrize(
    ("found", "history", "words"),
    [
        (drifted(), LONG_AGO, "what is right now is not known"),
        (drifted(performance=PASS), LONG_AGO, "the metric holds"),
        (drifted(0.6), LONG_AGO, "severe: PSI 0.60, above 0.5"),
        (fell(0.45), LONG_AGO, "severe: 50% of what it was"),
        (drifted(quality=FAIL), LONG_AGO, "the data are broken, mend them first"),
        (Signals(), LONG_AGO, "nothing is known of the champion"),
        (signals(evidence=UNSURE), LONG_AGO, "too little is known"),
        (signals(), LONG_AGO, "the next training is due in 4 days"),
        (fell(), trained(2 * HOUR), "asked for by performance: reason of performance"),
        (signals(fallen=("heavy use",)), LONG_AGO, "fell on heavy use"),
    ],
)
def test_the_reason_says_what_decided(found: Signals, history: History, words: str):
    assert words in decided(found, history).reason


COSTS = Economics(
    compute=3_000, validation=1_000, deployment=500, risk=500,
    queries_a_day=1e6, value=0.5, accuracy=0.95, decay=0.02,
)  # fmt: skip


def weighing(**over: Any) -> Watch:
    return replace(WEEKLY, economics=COSTS, **over)


@pytest.mark.parametrize(
    ("found", "act"),
    [
        # Four days of a million queries at 0.5: a drop of 0.0025 earns what 5,000 cost.
        (fell(0.0026), "train"),
        (fell(0.0024), "wait"),
        (drifted(performance=PASS, drop=0.0), "wait"),
        (drifted(performance=PASS, drop=-0.1), "wait"),
        (drifted(performance=PASS, drop=0.0026), "train"),
        # Of drift alone nobody knows what it costs.
        (drifted(), "train"),
        (drifted(performance=UNSURE, drop=0.0), "train"),
    ],
)
def test_a_measured_loss_is_trained_away_where_that_pays(found: Signals, act: str):
    said = decided(found, LONG_AGO, weighing())

    assert str(said.act) == act
    assert said.suppressed == (act == "wait")


def test_the_schedule_is_not_weighed_again():
    due = trained(8 * DAY, registered=8 * DAY)

    assert decided(signals(), due, weighing()).act is Act.TRAIN


@pytest.mark.parametrize("found", [fell(), fell(0.2), drifted(performance=PASS, drop=0.01)])
def test_a_fall_is_not_weighed_once_a_training_is_due(found: Signals):
    """It would earn nothing until the next one, which is this one."""
    due = trained(8 * DAY, registered=8 * DAY)

    assert decided(found, due, weighing()).act is Act.TRAIN


def test_without_a_schedule_a_training_earns_for_as_long_as_is_best_between_two():
    assert horizon_days(weighing(every=None), LONG_AGO, COSTS, NOW) == pytest.approx(
        1.02598, abs=5e-6
    )


outcomes = st.sampled_from([*Outcome, None])
anything = st.builds(
    Signals,
    errors=st.sampled_from([(), ("log: gone",)]),
    evidence=outcomes,
    quality=outcomes,
    drift=outcomes,
    scores=outcomes,
    performance=outcomes,
    psi=st.none() | st.floats(0, 2),
    drop=st.none() | st.floats(-1, 1),
    registered=st.none() | st.floats(0.5, 1),
    fallen=st.sampled_from([(), ("heavy use",)]),
)
policies = st.sampled_from([Watch(), WEEKLY, weighing(), Watch(min_interval=3 * DAY)])
agos = st.none() | st.integers(0, 1_000).map(lambda hours: NOW - hours * HOUR)
histories = st.builds(History, trained=agos, urgent=agos, registered=agos)


@given(anything, policies, histories)
def test_nothing_is_trained_on_evidence_that_failed(
    found: Signals, policy: Watch, history: History
):
    """An error, or answers that broke, ask for a person; silence asks for nothing."""
    said = decide(policy, history, found, NOW)
    known = (found.evidence, found.quality, found.drift, found.scores, found.performance)

    if found.errors or ERROR in known or found.evidence is None or found.quality is FAIL:
        assert said.act is Act.DIAGNOSE
    if FAIL not in known and said.act is Act.TRAIN:
        assert said.wish is not None
        assert said.wish.trigger is Trigger.SCHEDULED


@given(anything, policies, histories)
def test_a_training_has_what_asked_for_it_and_every_decision_a_reason(
    found: Signals, policy: Watch, history: History
):
    said = decide(policy, history, found, NOW)

    assert said.reason.strip()
    assert said.act is not Act.TRAIN or said.wish is not None
    assert Decision(act=said.act, reason=said.reason, wish=said.wish) == said


judged = st.sampled_from([PASS, FAIL, UNSURE])
believed = st.builds(
    signals, drift=judged, scores=judged, performance=judged, psi=st.floats(0, 2),
    drop=st.floats(-1, 1),
)  # fmt: skip


@given(believed, histories)
def test_what_is_found_never_defers_a_training_that_is_due(found: Signals, history: History):
    """A fall is no reason to train later than the clock would have."""
    history = replace(history, urgent=history.trained if history.urgent else None)
    by_the_clock = decide(weighing(), history, signals(), NOW)

    said = decide(weighing(), history, found, NOW)

    assert said.act is Act.TRAIN or by_the_clock.act is not Act.TRAIN


@given(anything)
def test_signals_read_as_they_were_written(found: Signals):
    """What the monitor writes is what retrain decides on."""
    read = Signals.from_dict(document(found))

    assert replace(read, reasons=None) == replace(found, reasons=None)


@given(st.dictionaries(st.sampled_from(["errors", "drift", "quality", "version"]), st.none()))
def test_signals_of_another_kind_are_refused(broken: dict[str, None]):
    with pytest.raises(ValueError, match="not the monitor's signals"):
        Signals.from_dict(broken)


class Watched(RuleBasedStateMachine):
    """A year of looks at a champion: whatever is found, the laws of the intervals hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.history = History(registered=NOW - 30 * DAY)
        self.begun: list[tuple[datetime, int]] = []

    @rule(hours=st.integers(0, 60))
    def time_passes(self, hours: int) -> None:
        self.now += hours * HOUR

    @rule(found=anything | st.sampled_from([drifted(), drifted(0.9), fell(), fell(0.3)]))
    def somebody_looks(self, found: Signals) -> None:
        said = decide(WEEKLY, self.history, found, self.now)
        if said.act is Act.TRAIN:
            assert said.wish is not None
            self.begun.append((self.now, said.wish.priority))
            urgent = said.wish.priority == URGENT
            self.history = replace(
                self.history,
                trained=self.now,
                urgent=self.now if urgent else self.history.urgent,
            )

    @rule()
    def a_training_ends_in_a_version(self) -> None:
        if self.begun:
            self.history = replace(self.history, trained=self.now, registered=self.now)

    @invariant()
    def never_two_within_a_day_but_for_priority_1(self) -> None:
        for (one, _), (two, priority) in zip(self.begun, self.begun[1:], strict=False):
            assert two - one >= DAY or priority == URGENT

    @invariant()
    def urgent_ones_keep_their_own_distance(self) -> None:
        urgent = [at for at, priority in self.begun if priority == URGENT]
        for one, two in itertools.pairwise(urgent):
            assert two - one >= WEEKLY.urgent_interval


Watched.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWatched = Watched.TestCase


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"min_interval": 6 * HOUR}, "at most one training a day"),
        ({"every": 2 * DAY, "min_interval": 3 * DAY}, "less than min_interval"),
        ({"severe_psi": 0.1}, "below psi"),
        ({"urgent_interval": 2 * DAY}, "what is urgent waits less"),
        ({"max_drop": 0.0}, "max_drop"),
        ({"rate": 1.0}, "rate"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(over: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        Watch(**over)


@pytest.mark.parametrize("over", [{"compute": -1.0}, {"decay": 0.0}, {"value": 0.0}])
def test_economics_that_cannot_be_are_refused(over: dict[str, float]):
    with pytest.raises(ValueError, match="Economics"):
        replace(COSTS, **over)
