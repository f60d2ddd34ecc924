"""Decide whether to train again. What is not known asks for nothing; broken data train nothing.

What asks, in the order in which it is heard:

1. ``performance``, or ``drift`` with a PSI above ``severe_psi``: urgent (priority 1) where the fall
   is severe. It waits for no training but another urgent one, ``urgent_interval`` long.
2. ``performance``: the metric surely fell.
3. ``drift``: p(x) surely moved. A person lets a version that it made to users (the release policy's
   ``approve_triggers``), as what is right may have moved too.
4. ``scheduled``: the last training is ``every`` ago.

Before any of them stands whether the evidence can be believed: an error in looking, or answers that
broke, ask a person to look first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from penstock.release import Trigger
from penstock.retrain.history import URGENT, History
from penstock.retrain.signals import Signals
from penstock.stats.economics import Decay
from penstock.verdict import Outcome
from penstock.watching import DAY, Economics, Watch

PERFORMANCE, DRIFT, SCHEDULED = 2, 3, 4
"""Priorities after the urgent one; the smaller goes first."""


class Act(StrEnum):
    """What is done about a look at the champion."""

    TRAIN = "train"
    WAIT = "wait"
    DIAGNOSE = "diagnose"  # a person looks first


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What asks for a training."""

    trigger: Trigger
    priority: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is done, and why."""

    act: Act
    reason: str
    wish: Wish | None = None
    """What asked for a training, granted or not."""

    @property
    def suppressed(self) -> bool:
        """Whether a training was asked for and is not begun."""
        return self.wish is not None and self.act is not Act.TRAIN

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        wish = self.wish
        return {
            "act": str(self.act),
            "reason": self.reason,
            "trigger": None if wish is None else str(wish.trigger),
            "priority": None if wish is None else wish.priority,
            "asked": None if wish is None else wish.reason,
            "suppressed": self.suppressed,
        }


def decide(policy: Watch, history: History, signals: Signals, now: datetime) -> Decision:
    """Return what to do about a look at the champion.

    Args:
        history: When this workload was trained before.
        now: No earlier than anything in the history.
    """
    wish = wanted(policy, history, signals, now)
    if blocked := _blocked(signals):
        return Decision(act=Act.DIAGNOSE, reason=blocked, wish=wish)
    if wish is None:
        return _idle(policy, history, signals, now)
    refused = _too_soon(policy, history, wish, now)
    refused = refused or _too_dear(policy, history, signals, wish, now)
    if refused:
        return Decision(act=Act.WAIT, reason=refused, wish=wish)
    return Decision(act=Act.TRAIN, reason=wish.reason, wish=wish)


def wanted(policy: Watch, history: History, signals: Signals, now: datetime) -> Wish | None:
    """Return what asks for a training, the most urgent; None where nothing does."""
    urgent = _severe(policy, signals)
    if signals.performance is Outcome.FAIL:
        reason = signals.why("performance")
        return Wish(
            trigger=Trigger.PERFORMANCE,
            priority=URGENT if urgent else PERFORMANCE,
            reason=f"{reason}{urgent}",
        )
    # Below so many users no drift is believed, whatever its numbers.
    if signals.moved and signals.evidence is Outcome.PASS:
        moved = "drift" if signals.drift is Outcome.FAIL else "scores"
        known = signals.performance is Outcome.PASS
        right = "; the metric holds" if known else "; what is right now is not known"
        return Wish(
            trigger=Trigger.DRIFT,
            priority=URGENT if urgent else DRIFT,
            reason=f"{signals.why(moved)}{right}{urgent}",
        )
    due = due_at(policy, history)
    if due is not None and now >= due:
        return Wish(
            trigger=Trigger.SCHEDULED,
            priority=SCHEDULED,
            reason=f"the last training is {_days(now - due + (policy.every or DAY))} ago, one is "
            f"due every {_days(policy.every or DAY)}",
        )
    return None


def due_at(policy: Watch, history: History) -> datetime | None:
    """Return when the schedule asks next; None without a schedule or a training to count from."""
    if policy.every is None or history.registered is None:
        return None
    return history.registered + policy.every


def _severe(policy: Watch, signals: Signals) -> str:
    """Return why it is urgent; empty where it is not."""
    drop, was = signals.drop, signals.registered
    if signals.performance is Outcome.FAIL and drop and was and drop > policy.severe_drop * was:
        return f"; severe: {drop / was:.0%} of what it was"
    psi = signals.psi
    if signals.drift is Outcome.FAIL and psi is not None and psi > policy.severe_psi:
        return f"; severe: PSI {psi:.2f}, above {policy.severe_psi:g}"
    return ""


def _blocked(signals: Signals) -> str:
    """Return why the evidence cannot be trained on; empty where it can."""
    unknown = "nothing is known of the champion, so nothing is decided"
    if signals.errors:
        first, *others = signals.errors
        return f"{unknown}: {first}" + (f" (and {len(others)} more)" if others else "")
    known = (signals.evidence, signals.quality, signals.drift, signals.scores, signals.performance)
    if signals.evidence is None or Outcome.ERROR in known:
        return f"{unknown}: the look at it failed"
    if signals.quality is Outcome.FAIL:
        moved = "; p(x) moved, and may have by that alone" if signals.moved else ""
        return f"the data are broken, mend them first: {signals.why('quality')}{moved}"
    return ""


def _idle(policy: Watch, history: History, signals: Signals, now: datetime) -> Decision:
    """Return what to do where nothing asks for a training."""
    if signals.fallen:
        parts = ", ".join(signals.fallen)
        reason = f"the metric fell on {parts} and not on all rows: see what these users have in "
        return Decision(act=Act.DIAGNOSE, reason=f"{reason}common, and collect more of their data")
    due = due_at(policy, history)
    after = f"; the next training is due in {_days(due - now)}" if due is not None else ""
    if signals.evidence is not Outcome.PASS:
        said = f"too little is known to ask for a training: {signals.why('evidence')}"
    elif Outcome.INCONCLUSIVE in (signals.drift, signals.scores, signals.performance):
        said = "nothing is surely worse, and not all of it is known"
    else:
        said = "nothing is worse"
    return Decision(act=Act.WAIT, reason=f"{said}{after}")


def _too_soon(policy: Watch, history: History, wish: Wish, now: datetime) -> str:
    """Return why a training is too soon after another; empty where it is not."""
    urgent = wish.priority == URGENT
    last = history.urgent if urgent else history.trained
    least = policy.urgent_interval if urgent else policy.min_interval
    if last is None or now - last >= least:
        return ""
    since = f"the last training was begun {_days(now - last)} ago"
    asked = f"asked for by {wish.trigger}: {wish.reason}"
    return f"{since}, the next may be after {_days(least)}; {asked}"


def _too_dear(policy: Watch, history: History, signals: Signals, wish: Wish, now: datetime) -> str:
    """Return why a training would not pay; empty where it would, or where nobody can tell.

    Only a loss that was measured is weighed: of drift without outcomes nobody knows what it costs.
    """
    economics = policy.economics
    measured = signals.performance in (Outcome.PASS, Outcome.FAIL) and signals.drop is not None
    due = due_at(policy, history)
    # One that is due is not weighed, whatever asked first: it is paid for either way.
    if economics is None or not measured or (due is not None and now >= due):
        return ""
    days = horizon_days(policy, history, economics, now)
    earned = economics.queries_a_day * economics.value * max(0.0, signals.drop or 0.0) * days
    if earned > economics.cost:
        return ""
    return (
        f"training would earn {earned:,.0f} in {days:.3g} days and costs {economics.cost:,.0f}; "
        f"asked for by {wish.trigger}: {wish.reason}"
    )


def horizon_days(policy: Watch, history: History, economics: Economics, now: datetime) -> float:
    """Return for how many days a training now would earn something.

    Until the next one that comes anyway; without a schedule, for as long as is best between two.
    """
    due = due_at(policy, history)
    if due is not None:
        return max(0.0, (due - now) / DAY)
    decay = Decay(
        queries_a_day=economics.queries_a_day,
        value=economics.value,
        accuracy=economics.accuracy,
        rate=economics.decay,
    )
    return decay.best_interval(training=economics.cost)


def _days(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    return f"{hours:.3g} h" if hours < 48 else f"{hours / 24:.3g} days"
